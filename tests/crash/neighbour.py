#!/usr/bin/env python3
"""A well-behaved client beside hostile ones: produces a record at a time with acks=all, at a constant rate, reads each one
back at once, and sees whether all of them are what they should be.

    tests/crash/neighbour.py ADDRESS [RATE]

For each line on standard input a line of JSON: what has been measured since the last one, in seconds. At the end of the
input all records are read again from the start. An error is told, and ends it."""
import json
import select
import sys
import time

import raw

TOPIC = 'neighbour'
PAD = b'n' * 1000


def value(i):
    return b'%d/' % i + PAD


def quantile(sorted_values, q):
    return sorted_values[min(len(sorted_values) - 1, int(len(sorted_values) * q))] if sorted_values else 0.0


def one(producer, consumer, i):
    """Record number i, there and back; the seconds for each way."""
    data = raw.batch([value(i)])
    began = time.monotonic()
    error, offset = producer.produce(TOPIC, data)
    produced = time.monotonic()
    assert (error, offset) == (0, i), f'record {i}: error {error}, offset {offset}'
    error, _, records = consumer.fetch(TOPIC, i, wait_ms=5000)
    fetched = time.monotonic()
    assert error == 0 and records.endswith(value(i) + b'\0'), f'record {i} is not what was sent: error {error}'
    return produced - began, fetched - produced


def tell(times, **more):
    times.sort()
    print(json.dumps({'count': len(times), 'p50': quantile(times, 0.5), 'p99': quantile(times, 0.99),
                      'max': times[-1] if times else 0.0, **more}), flush=True)


def main():
    rate = float(sys.argv[2]) if len(sys.argv) > 2 else 100
    producer, consumer = raw.Connection(sys.argv[1], 60), raw.Connection(sys.argv[1], 60)
    error = producer.create_topic(TOPIC)
    assert error in (0, 36), f'CreateTopics: error {error}'
    times, count, due = [], 0, time.monotonic()
    while True:
        wait = max(0.0, due - time.monotonic())
        if select.select([sys.stdin], [], [], wait)[0]:
            if not sys.stdin.readline():
                break
            tell(times)
            times = []
            continue
        times += one(producer, consumer, count)
        count += 1
        due = max(due + 1 / rate, time.monotonic())
    values = producer.read_all(TOPIC)
    assert values == [value(i) for i in range(count)], f'{len(values)} of {count} records are there, or others'
    tell(times, records=count)


try:
    main()
except Exception as e:  # whatever it is, the other side wants to know
    print(json.dumps({'error': f'{type(e).__name__}: {e}'}), flush=True)
    sys.exit(1)
