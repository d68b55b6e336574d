"""What is asked of each client in Python: tests/clients/README.md, "The short suites". An adapter says how it is done.

    suite.py BROKER main|write|read RUN        (and, started by itself: victim RUN TOPIC)

An adapter is an object with `name`, `codecs`, `null_header` (what a header without a value is to it), and
    create(topic)                  three partitions        delete(topic)       raises what contains `unknown` if there is none
    produce(topic, codec, records) → the offsets           read(topic, count)  → Records from the start, by hand
    ends(topic)                    → {partition: offset}   at(topic, ms)       → {partition: offset or None}
    member(topic)                  → a member of the group of the topic's name, with assigned(), poll() → Records,
                                     commit() of all that was polled, close()
Record i goes to partition i mod 3, and everything in it follows from i."""
import collections
import os
import signal
import subprocess
import sys
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "../../crash"))
import raw  # noqa: E402

PARTITIONS, RECORDS, KEPT, TIMEOUT = 3, 301, 2000, 60
CODECS = ["none", "gzip", "snappy", "lz4", "zstd"]  # in the order of their numbers
Record = collections.namedtuple("Record", "partition offset key value headers timestamp")


class Failed(Exception):
    pass


def expect(condition, text):
    if not condition:
        raise Failed(text)


class Driver:
    def __init__(self, adapter, run):
        self.client, self.run, self.failures = adapter, run, 0

    def record(self, topic, i):
        value = None if i % 31 == 30 and i % 5 else b"%s/%d/" % (topic.encode(), i) + bytes([97 + i % 26]) * (i * 37 % 600)
        headers = [[], [("h1", b"v%d" % i)], [("h1", b"v%d" % i), ("h2", self.client.null_header), ("h3", b"")]][i % 3]
        return Record(i % PARTITIONS, i // PARTITIONS, None if i % 5 == 0 else b"k%d" % (i % 23), value, headers,
                      (self.run - 3600) * 1000 + i * 10)

    def produce(self, topic, codec, first, last):
        records = [self.record(topic, i) for i in range(first, last)]
        offsets = list(self.client.produce(topic, codec, records))
        expect(offsets == [r.offset for r in records], f"acknowledged at {offsets[:9]}…")

    def consume(self, topic, count):
        expect(sum(self.client.ends(topic).values()) == count, f"ends: {self.client.ends(topic)}")
        due = [0] * PARTITIONS
        for r in self.client.read(topic, count):
            expect(r.offset == due[r.partition], f"partition {r.partition}: offset {r.offset}, not {due[r.partition]}")
            due[r.partition] += 1
            self.check(topic, r)
        expect(sum(due) == count, f"{sum(due)} of {count} records")

    def check(self, topic, r):
        want = self.record(topic, r.offset * PARTITIONS + r.partition)
        expect(r == want, f"read {r}, not {want}")
        return r.offset * PARTITIONS + r.partition

    def created(self, topic):
        self.client.create(topic)
        deadline = time.time() + TIMEOUT
        while True:  # Apache Kafka's partitions come up after its answer
            try:
                if len(self.client.ends(topic)) == PARTITIONS:
                    return
            except Exception as e:
                expect(time.time() < deadline, f"{topic} is not served: {e!r}")
            time.sleep(0.05)

    # ---- tests

    def roundtrip(self, topic, codec):
        self.created(topic)
        self.produce(topic, codec, 0, RECORDS)
        self.consume(topic, RECORDS)
        connection = raw.Connection(sys.argv[1])
        packed = connection.fetch(topic, 0)[2][22] & 7
        connection.close()
        expect(packed == CODECS.index(codec), f"the first batch has codec {packed}")
        for i in range(0, RECORDS + 1, 43):
            for p, offset in self.client.at(topic, self.record(topic, i).timestamp - 3).items():
                first = i + (p - i) % PARTITIONS
                want = first // PARTITIONS if first < RECORDS else None
                expect(offset == want, f"time of record {i}, partition {p}: {offset}, not {want}")
        self.client.delete(topic)

    def unknown(self, topic):
        try:
            self.client.delete(topic)
        except Exception as e:
            expect("unknown" in repr(e).lower(), f"deleted what is not there: {e!r}")
        else:
            raise Failed("deleted what is not there")

    def killed(self, topic):
        """Two members share the partitions; one is killed after a commit; the other goes on there."""
        self.created(topic)
        other = subprocess.Popen([sys.executable, sys.argv[0], sys.argv[1], "victim", str(self.run), topic],
                                 stdout=subprocess.PIPE, text=True)
        try:
            me, deadline, seen = self.client.member(topic), time.time() + TIMEOUT, collections.Counter()
            expect(other.stdout.readline() == "joined\n", "the other member did not join")
            while not 0 < len(me.assigned()) < PARTITIONS:
                expect(time.time() < deadline, f"assigned: {me.assigned()}")
                expect(not me.poll(), "records in an empty topic")
            self.produce(topic, "none", 0, RECORDS)
            while sum(seen.values()) < RECORDS and (len(seen) < RECORDS or time.time() < deadline):
                expect(time.time() < deadline, f"timed out after {len(seen)} of {RECORDS}")
                if other.poll() is not None and other.stdout:
                    expect(other.returncode == -signal.SIGKILL, f"the other member ended with {other.returncode}")
                    done = [int(i) for i in other.stdout.read().split()]
                    other.stdout.close()
                    other.stdout = None
                    expect(len(done) >= 20 and not seen.keys() & set(done), f"committed: {done}")
                    seen.update(done)
                seen.update(self.check(topic, r) for r in me.poll())
                me.commit()
            twice = [i for i in seen if seen[i] > 1]
            expect(not twice, f"read again, though committed: {twice[:9]}")
            me.close()
        finally:
            other.kill()
            other.wait()
        self.client.delete(topic)

    def victim(self, topic):
        """Commits what it reads, says so, reads on without a commit, and is killed."""
        me, done, deadline = self.client.member(topic), [], time.time() + TIMEOUT
        while not me.assigned() and time.time() < deadline:
            me.poll()
        print("joined", flush=True)
        while len(done) < 20 and time.time() < deadline:
            done += [self.check(topic, r) for r in me.poll()]
            me.commit()
        print(*done, flush=True)
        for _ in range(10):
            me.poll()
        os.kill(os.getpid(), signal.SIGKILL)

    def group_read(self, topic, seen, count):
        me, deadline = self.client.member(topic), time.time() + TIMEOUT
        while len(seen) < count:
            expect(time.time() < deadline, f"timed out after {len(seen)} of {count}")
            for r in me.poll():
                i = self.check(topic, r)
                expect(i not in seen, f"record {i} came again")
                seen.add(i)
            me.commit()
        me.close()

    def kept_group(self, topic, reading):
        seen = set()
        if not reading:
            self.created(topic)
            self.produce(topic, "none", 0, RECORDS)
            self.group_read(topic, seen, 100)
            return
        for p, offset in self.client.committed(topic).items():
            seen.update(o * PARTITIONS + p for o in range(offset))
        expect(len(seen) >= 100, f"only {len(seen)} of 100 commits are left")
        self.produce(topic, "none", RECORDS, RECORDS + 60)
        self.group_read(topic, seen, RECORDS + 60)
        self.client.delete(topic)

    def kept(self, topic, codec, reading):
        if not reading:
            self.created(topic)
            self.produce(topic, codec, 0, KEPT)
            return
        self.consume(topic, KEPT)
        self.produce(topic, codec, KEPT, KEPT + 300)
        self.consume(topic, KEPT + 300)
        self.client.delete(topic)

    def test(self, name, function, *args):
        try:
            function(*args)
            print("ok", name, flush=True)
        except Exception as e:  # what the client raises is a failure too, and told with its kind
            self.failures += 1
            print(f"FAIL {name}: {e if isinstance(e, Failed) else repr(e)}", flush=True)


def main(make):
    """`make(broker)` makes the adapter."""
    broker, phase, run = sys.argv[1], sys.argv[2], int(sys.argv[3])
    client = make(broker)
    d = Driver(client, run)
    if phase == "victim":
        d.victim(sys.argv[4])
    elif phase == "main":
        for codec in client.codecs:
            d.test(f"roundtrip.{codec}", d.roundtrip, f"{client.name}-{run}-{codec}", codec)
        d.test("unknown-topic", d.unknown, f"{client.name}-{run}-unknown")
        d.test("group.killed", d.killed, f"{client.name}-{run}-killed")
    else:
        reading = phase == "read"
        d.test(f"restart.{phase}.group", d.kept_group, f"{client.name}-{run}-kept-group", reading)
        for codec in client.codecs:
            d.test(f"restart.{phase}.{codec}", d.kept, f"{client.name}-{run}-kept-{codec}", codec, reading)
    sys.exit(d.failures > 0)
