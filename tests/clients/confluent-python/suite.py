"""confluent-kafka (Python) against a broker; the same checks as tests/clients/librdkafka, with the newest librdkafka.

    suite.py BROKER main|write|read RUN

Record i of a topic goes to partition i mod 3, and everything in it follows from i, so a consumer checks content, order
and completeness from the offset alone. Each test prints `ok NAME`, `FAIL NAME: why` or `skip NAME: why`.
"""
import os
import random
import subprocess
import sys
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "../../crash"))
import raw  # noqa: E402

from confluent_kafka import (OFFSET_BEGINNING, OFFSET_END, Consumer, KafkaError, KafkaException, Producer,
                             TopicPartition, TIMESTAMP_CREATE_TIME)
from confluent_kafka.admin import AdminClient, ConfigResource, NewTopic, OffsetSpec

PARTITIONS, RECORDS, RESTART_RECORDS, TIMEOUT = 3, 301, 5000, 30
CODECS = ["none", "gzip", "snappy", "lz4", "zstd"]
MODES = {"idempotent": ("all", True), "acks-all": ("all", False), "acks-1": ("1", False), "acks-0": ("0", False)}

broker, phase, run = sys.argv[1], sys.argv[2], int(sys.argv[3])
base_ms = (run - 3600) * 1000
common = {"bootstrap.servers": broker, "broker.address.family": "v4", "log_level": 2}
admin = AdminClient(dict(common))
failures = 0


class Failed(Exception):
    pass


def expect(condition, text):
    if not condition:
        raise Failed(text)


def expected(topic, i):
    """(key, value, headers, timestamp in ms) of record i."""
    key = None if i % 5 == 0 else b"k%d" % (i % 23)
    value = None if i % 31 == 30 else b"%s/%d/" % (topic.encode(), i) + bytes([97 + i % 26]) * (i * 37 % 600)
    headers = [[], [("h1", b"v%d" % i)], [("h1", b"v%d" % i), ("h2", None), ("h3", b"")]][i % 3]
    return key, value, headers, base_ms + i * 10


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


def create(topic, partitions=PARTITIONS):
    admin.create_topics([NewTopic(topic, partitions, 1)])[topic].result(TIMEOUT)


def created(topic):
    create(topic)
    c = consumer()  # Apache Kafka's partitions come up after its answer
    deadline = time.time() + TIMEOUT
    for p in range(PARTITIONS):
        while True:
            try:
                c.get_watermark_offsets(TopicPartition(topic, p), timeout=5)
                break
            except KafkaException:
                expect(time.time() < deadline, f"{topic} is not served")
                time.sleep(0.05)
    c.close()


def delete(topic):
    admin.delete_topics([topic])[topic].result(TIMEOUT)


def consumer():
    return Consumer({**common, "group.id": "by-hand", "enable.auto.commit": False, "enable.partition.eof": True,
                     "check.crcs": True, "auto.offset.reset": "error", "fetch.wait.max.ms": 200,
                     "allow.auto.create.topics": False, "fetch.message.max.bytes": 4000000})


def producer(codec, acks, idempotent, max_bytes=1000000):
    return Producer({**common, "compression.type": codec, "acks": acks, "enable.idempotence": idempotent,
                     "linger.ms": 2, "batch.num.messages": 50, "message.max.bytes": max_bytes})


def produce_all(p, topic, first, last):
    next_offset = {}
    errors = []
    count = [0]

    def delivered(err, msg):
        if err is not None:
            errors.append(err)
            return
        count[0] += 1
        if msg.offset() is not None and msg.offset() >= 0:
            if msg.offset() != next_offset.get(msg.partition(), 0) and first == 0:
                errors.append(f"partition {msg.partition()}: offset {msg.offset()} out of order")
            next_offset[msg.partition()] = msg.offset() + 1

    for i in range(first, last):
        key, value, headers, ts = expected(topic, i)
        while True:
            try:
                p.produce(topic, value, key, partition=i % PARTITIONS, on_delivery=delivered, timestamp=ts,
                          headers=headers)
                break
            except BufferError:
                p.poll(0.1)
        p.poll(0)
    left = p.flush(TIMEOUT)
    expect(left == 0, f"{left} records were not delivered in time")
    expect(not errors, f"{len(errors)} errors, first: {errors[:1]}")
    expect(count[0] == last - first, f"{count[0]} of {last - first} acknowledged")


def check(topic, m):
    i = m.offset() * PARTITIONS + m.partition()
    key, value, headers, ts = expected(topic, i)
    expect(m.key() == key, f"record {i}: key {m.key()} instead of {key}")
    expect(m.value() == value, f"record {i}: another value")
    expect((m.headers() or []) == headers, f"record {i}: headers {m.headers()}")
    expect(m.timestamp() == (TIMESTAMP_CREATE_TIME, ts), f"record {i}: timestamp {m.timestamp()}")


def consume_all(topic, count):
    c = consumer()
    c.assign([TopicPartition(topic, p, OFFSET_BEGINNING) for p in range(PARTITIONS)])
    next_offset, ended, deadline = [0] * PARTITIONS, set(), time.time() + TIMEOUT
    while len(ended) < PARTITIONS:
        expect(time.time() < deadline, f"timed out after {sum(next_offset)} of {count}")
        for m in c.consume(500, 0.5):
            if m.error():
                expect(m.error().code() == KafkaError._PARTITION_EOF, str(m.error()))
                ended.add(m.partition())
                continue
            expect(m.offset() == next_offset[m.partition()], f"offset {m.offset()}, not {next_offset[m.partition()]}")
            next_offset[m.partition()] += 1
            check(topic, m)
    expect(sum(next_offset) == count, f"{sum(next_offset)} of {count} records")
    for p in range(PARTITIONS):
        marks = c.get_watermark_offsets(TopicPartition(topic, p), timeout=TIMEOUT)
        expect(marks == (0, next_offset[p]), f"partition {p}: watermarks {marks}, {next_offset[p]} read")
    c.close()


def check_codec(topic, codec):
    """What lies in partition 0 is packed with that codec: librdkafka packs nothing, and says nothing, where a broker
    does not offer all that it takes for a sign of it (lz4: FindCoordinator, KAFKA-18659: Produce 0)."""
    connection = raw.Connection(broker)
    error, _, records = connection.fetch(topic, 0)
    connection.close()
    expect(error == 0 and len(records) > 61, f"raw Fetch: error {error}, {len(records)} bytes")
    found = CODECS[records[22] & 7]
    expect(found == codec, f"the first batch is packed with {found}, not {codec}")


def arrived(topic, count):
    c = consumer()
    total = -1
    for _ in range(100):
        total = sum(c.get_watermark_offsets(TopicPartition(topic, p), timeout=TIMEOUT)[1] for p in range(PARTITIONS))
        if total >= count:
            break
        time.sleep(0.05)
    c.close()
    expect(total == count, f"end offsets sum up to {total} of {count}")


def roundtrip(topic, codec, acks, idempotent):
    created(topic)
    produce_all(producer(codec, acks, idempotent), topic, 0, RECORDS)
    if acks == "0":
        arrived(topic, RECORDS)
    consume_all(topic, RECORDS)
    check_codec(topic, codec)
    delete(topic)


def error_of(function, *args):
    try:
        function(*args)
    except KafkaException as e:
        return e.args[0].code()
    return None


def admin_tests(topic):
    create(topic)
    for _ in range(100):
        found = admin.list_topics(timeout=TIMEOUT).topics.get(topic)
        if found and len(found.partitions) == PARTITIONS:
            break
        time.sleep(0.05)
    expect(found and len(found.partitions) == PARTITIONS, f"metadata shows {found}")
    code = error_of(create, topic)
    expect(code == KafkaError.TOPIC_ALREADY_EXISTS, f"created twice: {code}")
    cluster = admin.describe_cluster().result(TIMEOUT)
    expect(cluster.cluster_id and len(cluster.nodes) == 1, "describe_cluster shows no cluster")
    resource = ConfigResource(ConfigResource.Type.TOPIC, topic)
    configs = admin.describe_configs([resource])[resource].result(TIMEOUT)
    expect(configs["max.message.bytes"].value == "1048588", "max.message.bytes")
    expect(configs["cleanup.policy"].value == "delete", "cleanup.policy")
    delete(topic)
    code = error_of(delete, topic)
    expect(code == KafkaError.UNKNOWN_TOPIC_OR_PART, f"deleted twice: {code}")


def times(topic, codec):
    created(topic)
    produce_all(producer(codec, "all", True), topic, 0, RECORDS)
    c = consumer()
    for i in range(0, RECORDS + 1, 7):
        at = base_ms + i * 10 - 3
        found = c.offsets_for_times([TopicPartition(topic, p, at) for p in range(PARTITIONS)], TIMEOUT)
        for tp in found:
            first = i + (tp.partition - i) % PARTITIONS
            want = first // PARTITIONS if first < RECORDS else OFFSET_END
            expect(tp.offset == want, f"time of record {i}, partition {tp.partition}: {tp.offset} instead of {want}")
    c.close()
    tps = [TopicPartition(topic, p) for p in range(PARTITIONS)]
    for tp, f in admin.list_offsets({tp: OffsetSpec.max_timestamp() for tp in tps}).items():
        last = (RECORDS - 1 - tp.partition) // PARTITIONS
        expect(f.result(TIMEOUT).offset == last, f"max timestamp of partition {tp.partition}: {f.result().offset}")
    for tp, f in admin.list_offsets({tp: OffsetSpec.earliest() for tp in tps}).items():
        expect(f.result(TIMEOUT).offset == 0, "earliest")
    for tp, f in admin.list_offsets({tp: OffsetSpec.latest() for tp in tps}).items():
        expect(f.result(TIMEOUT).offset == (RECORDS - 1 - tp.partition) // PARTITIONS + 1, "latest")
    delete(topic)


def large(topic, codec):
    created(topic)
    results = []
    values = [random.Random(k).randbytes(900000) for k in range(6)]
    p = producer(codec, "all", True, 3000000)
    for v in values:
        p.produce(topic, v, partition=0, on_delivery=lambda e, m: results.append(e))
        expect(p.flush(TIMEOUT) == 0, "flush timed out")
    expect(results == [None] * len(values), f"900 KB: {results}")
    p = producer(codec, "all", False, 3000000)
    p.produce(topic, random.Random(9).randbytes(1500000), partition=0, on_delivery=lambda e, m: results.append(e))
    expect(p.flush(TIMEOUT) == 0, "flush timed out")
    expect(results[-1] is not None and results[-1].code() == KafkaError.MSG_SIZE_TOO_LARGE, f"1.5 MB: {results[-1]}")
    c = consumer()
    c.assign([TopicPartition(topic, 0, OFFSET_BEGINNING)])
    for k, v in enumerate(values):
        m = c.poll(TIMEOUT)
        expect(m is not None and not m.error(), f"record {k}: {m and m.error()}")
        expect(m.offset() == k and m.value() == v, f"record {k} differs")
    expect(c.get_watermark_offsets(TopicPartition(topic, 0), timeout=TIMEOUT) == (0, len(values)), "watermarks")
    c.close()
    delete(topic)


def tail(topic):
    created(topic)
    c = consumer()
    c.assign([TopicPartition(topic, p, OFFSET_END) for p in range(PARTITIONS)])
    for _ in range(PARTITIONS):
        m = c.poll(TIMEOUT)
        expect(m is not None and m.error() and m.error().code() == KafkaError._PARTITION_EOF, "no end of partition")
    p = producer("none", "all", True)
    for i in range(40):
        produce_all(p, topic, i, i + 1)
        m = c.poll(TIMEOUT)
        while m is not None and m.error() and m.error().code() == KafkaError._PARTITION_EOF:
            m = c.poll(TIMEOUT)
        expect(m is not None and not m.error(), f"record {i} did not come: {m and m.error()}")
        expect(m.offset() * PARTITIONS + m.partition() == i, f"another record than {i}")
        check(topic, m)
    c.close()
    delete(topic)


def member(topic, **options):
    c = Consumer(dict(common, **{"group.id": topic, "enable.auto.commit": False, "auto.offset.reset": "earliest",
                                 "session.timeout.ms": 6000, "heartbeat.interval.ms": 500, "fetch.wait.max.ms": 100}, **options))
    c.subscribe([topic])
    return c


def commit(c, message, deadline):
    """A cooperative member reads on while its group comes together, when a commit is refused: until it has."""
    while True:
        try:
            return c.commit(message=message, asynchronous=False)
        except KafkaException as e:
            if e.args[0].code() != KafkaError.REBALANCE_IN_PROGRESS:
                raise
        expect(time.time() < deadline, "the rebalance does not end")
        time.sleep(0.05)


def group_read(topic, consumers, seen, count, deadline=60):
    """Polls the members until `seen` (record → how often) has so many; commits after each message."""
    deadline = time.time() + deadline
    while len(seen) < count:
        expect(time.time() < deadline, f"timed out after {len(seen)} of {count}")
        for c in consumers:
            m = c.poll(0.05)
            if m is None:
                continue
            expect(not m.error(), f"poll: {m.error()}")
            check(topic, m)
            i = m.offset() * PARTITIONS + m.partition()
            seen[i] = seen.get(i, 0) + 1
            commit(c, m, deadline)


def group(topic, strategy):
    created(topic)
    seen, options = {}, {"partition.assignment.strategy": strategy}
    a, b = member(topic, **options), member(topic, **options)
    deadline = time.time() + 60
    while not a.assignment() or not b.assignment() or len(a.assignment() + b.assignment()) < PARTITIONS:
        expect(time.time() < deadline, "no assignment")
        a.poll(0.1)
        b.poll(0.1)
    parts = sorted(tp.partition for c in (a, b) for tp in c.assignment())
    expect(parts == list(range(PARTITIONS)), f"assigned: {parts}")
    produce_all(producer("none", "all", True), topic, 0, 60)
    group_read(topic, [a, b], seen, 60)
    expect(set(seen.values()) == {1}, "read twice, though nobody came or went")
    a.close()  # b takes over
    produce_all(producer("none", "all", True), topic, 60, 120)
    group_read(topic, [b], seen, 120)
    b.close()
    c = member(topic, **options)
    produce_all(producer("none", "all", True), topic, 120, 180)
    group_read(topic, [c], seen, 180)
    c.close()
    expect(set(seen.values()) == {1}, f"read twice: {[i for i in seen if seen[i] > 1][:5]}")
    done = Consumer(dict(common, **{"group.id": topic})).committed([TopicPartition(topic, p) for p in range(PARTITIONS)], TIMEOUT)
    expect([tp.offset for tp in done] == [60] * PARTITIONS, f"committed: {done}")
    groups = [g.group_id for g in admin.list_consumer_groups().result(TIMEOUT).valid]
    expect(topic in groups, "list_consumer_groups does not show it")
    described = admin.describe_consumer_groups([topic])[topic].result(TIMEOUT)
    expect(described.state.name == "EMPTY", f"state {described.state}")
    admin.delete_consumer_groups([topic])[topic].result(TIMEOUT)
    delete(topic)


def killed(topic, static):
    """A member is killed with SIGKILL after some commits; another one goes on from there."""
    created(topic)
    produce_all(producer("none", "all", True), topic, 0, 150)
    child = subprocess.run([sys.executable, __file__, broker, "victim" if not static else "victim-static", str(run), topic],
                           stdout=subprocess.PIPE, text=True, timeout=90)
    expect(child.returncode == -9, f"the member ended with {child.returncode}")
    committed = {int(i) for i in child.stdout.split()}
    expect(len(committed) == 50, f"{len(committed)} commits before the end")
    seen, c = {}, member(topic, **({"group.instance.id": "one"} if static else {}))
    group_read(topic, [c], seen, 100)
    c.close()
    expect(not committed & set(seen), f"read again: {sorted(committed & set(seen))[:5]}")
    expect(committed | set(seen) == set(range(150)), "records were passed over")
    delete(topic)


def victim(topic, static):
    c, n = member(topic, **({"group.instance.id": "one"} if static else {})), 0
    while n < 50:
        m = c.poll(1)
        if m is None or m.error():
            continue
        c.commit(message=m, asynchronous=False)
        print(m.offset() * PARTITIONS + m.partition(), flush=True)
        n += 1
    os.kill(os.getpid(), 9)


def kept_group_write(topic):
    created(topic)
    produce_all(producer("none", "all", True), topic, 0, 300)
    c, seen = member(topic), {}
    group_read(topic, [c], seen, 100)
    with open(f"/tmp/{topic}.seen", "w") as f:
        f.write(" ".join(map(str, seen)))
    c.close()


def kept_group_read(topic):
    with open(f"/tmp/{topic}.seen") as f:
        before = {int(i) for i in f.read().split()}
    os.unlink(f"/tmp/{topic}.seen")
    c, seen = member(topic), {}
    group_read(topic, [c], seen, 200)
    c.close()
    expect(not before & set(seen) and before | set(seen) == set(range(300)), "not where it stopped")
    delete(topic)


def kept_read(topic, codec):
    consume_all(topic, RESTART_RECORDS)
    produce_all(producer(codec, "all", True), topic, RESTART_RECORDS, RESTART_RECORDS + 300)
    consume_all(topic, RESTART_RECORDS + 300)
    delete(topic)


def kept_write(topic, codec):
    created(topic)
    produce_all(producer(codec, "all", True), topic, 0, RESTART_RECORDS)


if phase.startswith("victim"):
    victim(sys.argv[4], phase == "victim-static")
if phase == "main":
    test("admin", admin_tests, f"python-{run}-admin")
    for codec in CODECS:
        for mode, (acks, idempotent) in MODES.items():
            test(f"roundtrip.{codec}.{mode}", roundtrip, f"python-{run}-{codec}-{mode}", codec, acks, idempotent)
        test(f"times.{codec}", times, f"python-{run}-times-{codec}", codec)
        test(f"large.{codec}", large, f"python-{run}-large-{codec}", codec)
    test("tail", tail, f"python-{run}-tail")
    for strategy in ["range", "roundrobin", "cooperative-sticky"]:
        test(f"group.{strategy}", group, f"python-{run}-group-{strategy}", strategy)
    test("group.killed", killed, f"python-{run}-killed", False)
    test("group.killed-static", killed, f"python-{run}-killed-static", True)
else:
    test(f"restart.{phase}.group", kept_group_write if phase == "write" else kept_group_read, f"python-{run}-kept-group")
    for codec in CODECS:
        test(f"restart.{phase}.{codec}", kept_write if phase == "write" else kept_read, f"python-{run}-kept-{codec}",
             codec)
sys.exit(1 if failures else 0)
