"""kafka-python 2.0.2 in the clothes of brokers of old: message formats 0 and 1, Produce 0-2, Fetch 0-2, ListOffsets 0.

    suite.py BROKER main|write|read RUN

Record i of a topic goes to partition i mod 3, and everything in it follows from i, so a consumer checks content, order
and completeness from the offset alone. Each test prints `ok NAME` or `FAIL NAME: why`.
"""
import sys
import threading
import time

import six

sys.modules.setdefault("kafka.vendor.six.moves", six.moves)  # its own six does not work from Python 3.12 on

from kafka import KafkaConsumer, KafkaProducer, TopicPartition  # noqa: E402
from kafka.admin import KafkaAdminClient, NewTopic  # noqa: E402
from kafka.errors import KafkaError, MessageSizeTooLargeError  # noqa: E402

PARTITIONS, RECORDS, RESTART_RECORDS, TIMEOUT = 3, 151, 1500, 30
VERSIONS = {"0.10.0": (0, 10, 0), "0.9": (0, 9), "0.8.2": (0, 8, 2)}
NEW = (0, 11)  # format 2
CODECS = [None, "gzip", "snappy", "lz4"]

broker, phase, run = sys.argv[1], sys.argv[2], int(sys.argv[3])
base_ms = (run - 3600) * 1000
failures = 0


class Failed(Exception):
    pass


def expect(condition, text):
    if not condition:
        raise Failed(text)


def expected(topic, i):
    """(key, value, timestamp in ms) of record i."""
    key = None if i % 5 == 0 else b"k%d" % (i % 23)
    value = None if i % 31 == 30 and key else b"%s/%d/" % (topic.encode(), i) + bytes([97 + i % 26]) * (i * 37 % 600)
    return key, value, base_ms + i * 10


def test(name, function, *args):
    global failures
    try:
        function(*args)
        print("ok", name, flush=True)
    except Failed as e:
        failures += 1
        print(f"FAIL {name}: {e}", flush=True)
    except Exception as e:  # what the client raises is a failure too, and told with its kind
        failures += 1
        print(f"FAIL {name}: {type(e).__name__}: {e}", flush=True)


def create(topics):
    admin = KafkaAdminClient(bootstrap_servers=broker)
    admin.create_topics([NewTopic(t, PARTITIONS, 1) for t in topics], timeout_ms=TIMEOUT * 1000)
    admin.close()
    c = consumer(NEW)  # Apache Kafka's partitions come up after its answer
    deadline = time.time() + TIMEOUT
    while True:
        try:
            c.end_offsets([TopicPartition(t, p) for t in topics for p in range(PARTITIONS)])
            break
        except KafkaError:
            expect(time.time() < deadline, "the topics are not served")
            time.sleep(0.05)
    c.close()


def producer(version, codec=None, acks="all"):
    return KafkaProducer(bootstrap_servers=broker, api_version=version, compression_type=codec, acks=acks, linger_ms=2,
                         batch_size=4000, max_request_size=4000000, retries=0 if acks == 0 else 3,
                         max_in_flight_requests_per_connection=1)


def consumer(version, group=None):
    return KafkaConsumer(bootstrap_servers=broker, api_version=version, group_id=group, enable_auto_commit=False,
                         auto_offset_reset="earliest", fetch_max_wait_ms=200, check_crcs=True)


def produce_all(p, topic, first, last):
    futures = []
    for i in range(first, last):
        key, value, ts = expected(topic, i)
        futures.append(p.send(topic, value, key, partition=i % PARTITIONS, timestamp_ms=ts))
    p.flush(TIMEOUT)
    if p.config["acks"] != 0:
        for n, f in enumerate(futures):
            offset = f.get(TIMEOUT).offset
            expect(offset == (first + n) // PARTITIONS, f"record {first + n} has got offset {offset}")


def check(m, timestamps):
    i = m.offset * PARTITIONS + m.partition
    key, value, ts = expected(m.topic, i)
    expect(m.key == key, f"record {i}: key {m.key} instead of {key}")
    expect(m.value == value, f"record {i}: another value")
    if timestamps is not None:
        expect(m.timestamp == (ts if timestamps else None) or (not timestamps and m.timestamp == -1),
               f"record {i}: timestamp {m.timestamp}")


def consume(c, count, timestamps, positions):
    """Reads until each partition is at its share of `count`; from where it is."""
    deadline = time.time() + TIMEOUT
    while sum(positions.values()) < count:
        expect(time.time() < deadline, f"timed out after {sum(positions.values())} of {count}")
        for tp, messages in c.poll(200, max_records=50).items():
            for m in messages:
                expect(m.offset == positions[tp.partition], f"offset {m.offset}, not {positions[tp.partition]}")
                positions[tp.partition] += 1
                check(m, timestamps)


def consume_all(version, topic, count, timestamps):
    c = consumer(version)
    parts = [TopicPartition(topic, p) for p in range(PARTITIONS)]
    c.assign(parts)
    consume(c, count, timestamps, {p: 0 for p in range(PARTITIONS)})
    expect(set(c.beginning_offsets(parts).values()) == {0}, "the topic does not begin at 0")
    ends = c.end_offsets(parts)
    expect(sum(ends.values()) == count, f"the ends are {ends}")
    c.close()


def round_trip(topic, version, codec, acks):
    p = producer(version, codec, acks)
    produce_all(p, topic, 0, RECORDS)
    p.close()
    consume_all(version, topic, RECORDS, version >= (0, 10, 0))
    consume_all(NEW, topic, RECORDS, version >= (0, 10, 0))


def new_to_old(topic, codec):
    p = producer(NEW, codec)
    produce_all(p, topic, 0, RECORDS)
    p.close()
    for version in VERSIONS.values():
        consume_all(version, topic, RECORDS, version >= (0, 10, 0))


def group(topic, version):
    """Members of one generation after the other go on where the last commit was."""
    name = f"g-{version}-{run}"
    p = producer(version, "gzip")
    positions = {n: 0 for n in range(PARTITIONS)}
    for part in (1, 2):
        produce_all(p, topic, (part - 1) * 60, part * 60)
        c = consumer(version, name)
        if version < (0, 9):  # partitions are assigned by hand, offsets are kept
            c.assign([TopicPartition(topic, n) for n in range(PARTITIONS)])
        else:
            c.subscribe([topic])
        consume(c, part * 60, version >= (0, 10, 0), positions)
        c.commit()
        c.close()
    p.close()


def waits_at_the_end(topic, version):
    c, p = consumer(version), producer(version, "lz4")
    c.assign([TopicPartition(topic, n) for n in range(PARTITIONS)])
    positions = {n: 0 for n in range(PARTITIONS)}
    for i in range(0, 30, 3):
        expect(not c.poll(20), "there was something before it was sent")
        produce_all(p, topic, i, i + 3)
        consume(c, i + 3, version >= (0, 10, 0), positions)
    c.close()
    p.close()


def sizes(topic, version):
    p = producer(version)
    try:
        p.send(topic, b"x" * 1200000, partition=0).get(TIMEOUT)
        raise Failed("a record over the limit was taken")
    except MessageSizeTooLargeError:
        pass
    for n in (900000, 1):
        expect(p.send(topic, b"y" * n, partition=1).get(TIMEOUT).offset == (n == 1), "another offset")
    p.close()
    c = consumer(version)
    c.assign([TopicPartition(topic, 1)])
    found, deadline = [], time.time() + TIMEOUT
    while len(found) < 2 and time.time() < deadline:
        for messages in c.poll(200).values():
            found += [len(m.value) for m in messages]
    expect(found == [900000, 1], f"sizes {found}")
    c.close()


def made_by_producing(topic, version):
    """No topic was made before: the metadata's request makes it."""
    p = producer(version)
    expect(p.send(topic, b"v").get(TIMEOUT).offset == 0, "another offset")
    p.close()


def write(topic, version):
    p = producer(version, "gzip")
    produce_all(p, topic, 0, RESTART_RECORDS)
    p.close()


def read(topic, version):
    consume_all(version, topic, RESTART_RECORDS, version >= (0, 10, 0))


def cases():
    """(name, function, arguments behind the topic's name)"""
    for label, v in VERSIONS.items():
        if phase != "main":
            yield f"restart/{label}", write if phase == "write" else read, v
            continue
        yield f"{label}/group", group, v
        for codec in CODECS:
            yield f"{label}/{codec}/all", round_trip, v, codec, "all"
        yield f"{label}/gzip/1", round_trip, v, "gzip", 1
        yield f"{label}/none/0", round_trip, v, None, 0
        yield f"{label}/waits-at-the-end", waits_at_the_end, v
        yield f"{label}/sizes", sizes, v
        yield f"{label}/made-by-producing", made_by_producing, v
    for codec in CODECS if phase == "main" else []:
        yield f"new-to-old/{codec}", new_to_old, codec


todo, threads = [(f"{name.replace('/', '-')}-{run}", name, *rest) for name, *rest in cases()], []
if phase != "read":
    create([topic for topic, name, f, *_ in todo if f is not made_by_producing])
for topic, name, function, *arguments in todo:
    if function is group:  # waits for members most of the time
        threads.append(threading.Thread(target=test, args=(name, function, topic, *arguments)))
        threads[-1].start()
    else:
        test(name if phase == "main" else f"{name}/{phase}", function, topic, *arguments)
for t in threads:
    t.join()
sys.exit(failures > 0)
