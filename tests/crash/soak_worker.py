#!/usr/bin/env python3
"""One of the clients of long_soak: does its work until it is told otherwise, through restarts, full disks and steps of the
clock, and knows what was acknowledged.

    tests/crash/soak_worker.py ROLE PORT SEED CRC32C-LIBRARY

Lines on standard input, each answered by a line of JSON: `rest` (all that was sent is acknowledged, all that was acknowledged
is read again and right; and rests), `go` (on). What is wrong is told as {"error": …}, and ends it.

    producer-N   idempotent producer of partition N of `soak` in codec N % 5; record k has to be at offset k. Cuts the log
                 behind what it has checked.
    ledger       the same, small, and never cut: all of it is read each time
    old          Produce 2 and Fetch 2: message sets, compressed or not, without idempotence
    group        a consumer group in classic manner; what it has committed last is what it reads
    admin        topics that come, grow, are written to, and go
    rude         garbage, half frames, answers that nobody reads, resets"""
import ctypes
import json
import random
import select
import socket
import struct
import sys
import time
import zlib

import raw

ROLE, PORT, SEED = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
library = ctypes.CDLL(sys.argv[4])
library.cnk_crc32c.restype = ctypes.c_uint32
raw.crc32c = lambda data: library.cnk_crc32c(ctypes.c_uint32(0), bytes(data), ctypes.c_size_t(len(data)))
rng = random.Random(f'{SEED}/{ROLE}')
NONE, GZIP, SNAPPY, LZ4, ZSTD = range(5)
PATIENCE_S = 60
PACE_S = 0.03  # between two batches of a producer: the five write some 15 MB/s
# What passes: not leader, unknown for now, timed out, a full disk, no coordinator yet, timestamps that lie in the future while
# the broker's clock has been put back, and the like.
PASSING = {3, 5, 6, 7, 8, 9, 13, 14, 15, 16, 19, 20, 27, 32, 56}
done = {'bytes': 0, 'requests': 0, 'lost_connections': 0, 'passing': 0}


class Wrong(Exception):
    pass


class Passing(Exception):
    """An error that a client retries."""


def check(condition, what):
    if not condition:
        raise Wrong(what)


# ---- a connection that comes back ------------------------------------------------------------------------------------

class Client:
    def __init__(self):
        self.c = None

    def request(self, key, version, body):
        """The answer; OSError or ConnectionError where the broker goes away."""
        if self.c is None:
            self.c = raw.Connection(f'127.0.0.1:{PORT}', PATIENCE_S)
        done['requests'] += 1
        try:
            return self.c.request(key, version, body)
        except OSError:
            self.drop()
            raise

    def drop(self):
        if self.c:
            self.c.close()
        self.c = None


def until_done(step):
    """Calls until it neither loses its connection nor gets an error that passes."""
    deadline = time.monotonic() + PATIENCE_S
    while True:
        try:
            return step()
        except Passing as e:
            done['passing'] += 1
            why = str(e)
        except OSError as e:
            done['lost_connections'] += 1
            why = str(e)
        check(time.monotonic() < deadline, f'no way on for {PATIENCE_S} s: {why}')
        time.sleep(0.05)


def passes(error, what):
    """0 and what is allowed goes on, what passes is tried again, anything else is wrong."""
    if error in PASSING:
        raise Passing(f'{what}: error {error}')
    check(error == 0, f'{what}: error {error}')


# ---- codecs: gzip as it is; of the others, frames that hold the bytes uncompressed, which are no less valid -------------

def pack(codec, data):
    if codec == GZIP:
        c = zlib.compressobj(1, zlib.DEFLATED, 31)
        return c.compress(data) + c.flush()
    if codec == SNAPPY:  # literals of 64 KiB at most
        out = [raw.uvarint(len(data))]
        for at in range(0, len(data), 65536):
            piece = data[at:at + 65536]
            out += [b'\xf4', struct.pack('<H', len(piece) - 1), piece]
        return b''.join(out)
    if codec == LZ4:
        out = [b'\x04\x22\x4d\x18\x60\x70\x73']
        for at in range(0, len(data), 4 << 20):
            piece = data[at:at + (4 << 20)]
            out += [struct.pack('<I', len(piece) | 1 << 31), piece]
        return b''.join(out) + b'\0\0\0\0'
    if codec == ZSTD:
        out = [b'\x28\xb5\x2f\xfd\0\x58']
        pieces = [data[at:at + 65536] for at in range(0, len(data), 65536)] or [b'']
        for i, piece in enumerate(pieces):
            out += [struct.pack('<I', len(piece) << 3 | (i == len(pieces) - 1))[:3], piece]
        return b''.join(out)
    return data


def unpack(codec, data):
    """What `pack` made."""
    if codec == GZIP:
        return zlib.decompress(data, 31)
    if codec == NONE:
        return data
    out, at = [], 0
    if codec == SNAPPY:
        while data[at] & 0x80:
            at += 1
        at += 1
        while at < len(data):
            n = struct.unpack_from('<H', data, at + 1)[0] + 1
            out.append(data[at + 3:at + 3 + n])
            at += 3 + n
    elif codec == LZ4:
        at = 7
        while True:
            n = struct.unpack_from('<I', data, at)[0] & 0x7FFFFFFF
            if n == 0:
                break
            out.append(data[at + 4:at + 4 + n])
            at += 4 + n
    else:
        at, last = 6, False
        while not last:
            head = int.from_bytes(data[at:at + 3], 'little')
            last, n = head & 1, head >> 3
            out.append(data[at + 3:at + 3 + n])
            at += 3 + n
    return b''.join(out)


# ---- records -----------------------------------------------------------------------------------------------------------

BLOCK = random.Random(1).randbytes(1 << 17)


def value(name, k):
    """Record k of a partition: its number, and bytes that follow from it."""
    sizes = SIZES if name.startswith('soak') else SIZES[:5]  # what is never cut stays small
    n = (k * 7919 + len(name)) % sizes[k * 31 % len(sizes)]
    at = k * 104729 % 65536
    return b'%s/%d/' % (name.encode(), k) + BLOCK[at:at + n]


SIZES = [50, 200, 200, 1000, 1000, 5000, 20000, 60000]


def batch_of(codec, values, producer=(-1, -1, -1)):
    records = b''
    for i, v in enumerate(values):
        body = b'\0' + raw.varint(0) + raw.varint(i) + raw.varint(-1) + raw.varint(len(v)) + v + raw.varint(0)
        records += raw.varint(len(body)) + body
    ms = int(time.time() * 1000)
    tail = struct.pack('>hiqqqhii', codec, len(values) - 1, ms, ms, *producer, len(values)) + pack(codec, records)
    return struct.pack('>qiibI', 0, len(tail) + 9, -1, 2, raw.crc32c(tail)) + tail


def check_batches(name, records, offset):
    """All whole batches from the offset on; the offset behind them."""
    at = 0
    while at + 61 <= len(records):
        base, length, _, magic, crc = struct.unpack_from('>qiibI', records, at)
        if at + 12 + length > len(records):
            break
        b = records[at:at + 12 + length]
        at += 12 + length
        check(magic == 2 and raw.crc32c(b[21:]) == crc, f'{name}: a batch at {base} is damaged')
        codec, count = struct.unpack_from('>h', b, 21)[0] & 7, struct.unpack_from('>i', b, 57)[0]
        check(base <= offset < base + count, f'{name}: a batch at {base}, {offset} was due')
        data, p = unpack(codec, b[61:]), 0
        for i in range(count):
            size, p = raw._varint(data, p)
            end = p + size
            p += 1
            for _ in range(3):
                _, p = raw._varint(data, p)
            n, p = raw._varint(data, p)
            if base + i >= offset:
                check(data[p:p + n] == value(name, base + i), f'{name}: record {base + i} is another')
            p = end
        offset = base + count
    return offset


# ---- roles ---------------------------------------------------------------------------------------------------------------

class Role:
    def __init__(self):
        self.client = Client()

    def begin(self):
        pass

    def work(self):
        raise NotImplementedError

    def rest(self):
        pass

    def topic(self, name, partitions=1):
        def step():
            a = self.client.request(raw.CREATE_TOPICS, 2, raw.create_topic_body(name, partitions))
            error = struct.unpack_from('>h', a, 8 + 2 + len(name))[0]
            passes(0 if error == 36 else error, f'CreateTopics of {name}')
        until_done(step)

    def fetch(self, topic, offset, partition=0, max_bytes=4 << 20):
        """(error, high watermark, records)"""
        a = self.client.request(raw.FETCH, 4, raw.fetch_body(topic, offset, partition, wait_ms=100, max_bytes=max_bytes))
        at = 8 + 2 + len(topic) + 8
        error, high, _, aborted = struct.unpack_from('>hqqi', a, at)
        return error, high, a[at + 22 + max(aborted, 0) * 16 + 4:]


class Producer(Role):
    def __init__(self, topic, partition, codec, large):
        super().__init__()
        self.topic_name, self.partition, self.codec, self.large = topic, partition, codec, large
        self.name = f'{topic}-{partition}'
        self.acked = self.checked = self.sequence = 0

    def begin(self):
        self.topic(self.topic_name, 8 if self.topic_name == 'soak' else 1)

        def step():
            a = self.client.request(raw.INIT_PRODUCER_ID, 0, struct.pack('>hi', -1, 1000))
            error, self.id, self.epoch = struct.unpack_from('>hqh', a, 4)
            passes(error, 'InitProducerId')
        until_done(step)

    def work(self):
        count = rng.randrange(1, 40) if self.large else 1
        values = [value(self.name, self.acked + i) for i in range(count)]
        while self.large and sum(map(len, values)) > 900000:
            values.pop()
        data = batch_of(self.codec, values, (self.id, self.epoch, self.sequence))

        def step():  # the same batch until it is acknowledged: once is what must come of it
            a = self.client.request(raw.PRODUCE, 7, raw.produce_body(self.topic_name, data, self.partition))
            error, offset = struct.unpack_from('>hq', a, 4 + 2 + len(self.topic_name) + 8)
            passes(error, f'{self.name}: Produce at {self.acked}')
            # a duplicate whose place is forgotten has no offset to tell
            check(offset in (self.acked, -1), f'{self.name}: record {self.acked} was acknowledged at {offset}')
        until_done(step)
        done['bytes'] += len(data)
        self.acked += len(values)
        self.sequence = (self.sequence + len(values)) % (1 << 31)
        time.sleep(PACE_S)

    def read(self):
        error, high, records = self.fetch(self.topic_name, self.at, self.partition)
        passes(error, f'{self.name}: Fetch at {self.at}')
        check(high <= self.acked, f'{self.name}: {high} records, {self.acked} were sent')
        self.at = check_batches(self.name, records, self.at)

    def rest(self):
        self.at = self.checked
        deadline = time.monotonic() + PATIENCE_S
        while self.at < self.acked:
            before = self.at
            until_done(self.read)
            if self.at > before:
                deadline = time.monotonic() + PATIENCE_S
            check(time.monotonic() < deadline, f'{self.name} ends at {self.at}, {self.acked} were acknowledged')
        if not self.large:
            return
        self.checked = self.acked

        def cut():
            body = struct.pack('>i', 1) + raw.string(self.topic_name) + struct.pack('>iiqi', 1, self.partition, self.checked, 30000)
            a = self.client.request(21, 0, body)
            passes(struct.unpack_from('>h', a, len(a) - 2)[0], f'{self.name}: DeleteRecords')
        until_done(cut)


class Old(Role):
    """Without idempotence a batch that was sent again may be there twice: what was acknowledged is where it was said to be."""
    NAME = 'old'

    def __init__(self):
        super().__init__()
        self.acked, self.number = {}, 0

    def begin(self):
        self.topic(self.NAME)

    def work(self):
        magic, codec, number = rng.randrange(2), rng.choice([NONE, GZIP]), self.number
        self.number += 1
        data = self.message(magic, 0, value(self.NAME, number))
        if codec:
            data = self.message(magic, codec, pack(codec, data))

        def step():
            a = self.client.request(raw.PRODUCE, 2, raw.produce_body(self.NAME, data)[2:])
            error, offset = struct.unpack_from('>hq', a, 4 + 2 + len(self.NAME) + 8)
            passes(error, 'old: Produce')
            check(offset not in self.acked, f'old: {offset} was acknowledged twice')
            self.acked[offset] = number
        until_done(step)
        done['bytes'] += len(data)
        time.sleep(0.02)

    @staticmethod
    def message(magic, codec, v):
        body = struct.pack('>bb', magic, codec) + (struct.pack('>q', 1700000000000) if magic else b'')
        body += struct.pack('>ii', -1, len(v)) + v
        message = struct.pack('>I', zlib.crc32(body)) + body
        return struct.pack('>qi', 0, len(message)) + message

    def messages(self, data):
        """(offset, value) pairs, also of compressed ones."""
        at = 0
        while at + 26 <= len(data):
            offset, size, crc, magic, attributes = struct.unpack_from('>qiIbb', data, at)
            if at + 12 + size > len(data):
                return
            check(zlib.crc32(data[at + 16:at + 12 + size]) == crc, f'old: a message at {offset} is damaged')
            p = at + 18 + (8 if magic else 0)
            n = struct.unpack_from('>i', data, p)[0]
            p += 4 + max(n, 0)
            v = data[p + 4:p + 4 + struct.unpack_from('>i', data, p)[0]]
            if attributes & 7:
                inner = list(self.messages(unpack(attributes & 7, v)))
                shift = offset - inner[-1][0] if magic else 0  # relative offsets, and the last one's outside
                yield from ((o + shift, x) for o, x in inner)
            else:
                yield offset, v
            at += 12 + size

    def rest(self):
        seen, at, deadline = {}, 0, time.monotonic() + PATIENCE_S
        while at <= max(self.acked, default=-1):
            def step():
                a = self.client.request(raw.FETCH, 2, struct.pack('>iiii', -1, 100, 1, 1) + raw.string(self.NAME) +
                                        struct.pack('>iiqi', 1, 0, at, 4 << 20))
                start = 8 + 2 + len(self.NAME) + 8
                passes(struct.unpack_from('>h', a, start)[0], 'old: Fetch')
                return dict((o, v) for o, v in self.messages(a[start + 14:]) if o >= at)
            found = until_done(step)
            seen.update(found)
            at = max(found, default=at - 1) + 1
            check(found or time.monotonic() < deadline, f'old: ends at {at}')
        for offset, number in self.acked.items():
            check(seen.get(offset) == value(self.NAME, number), f'old: what was acknowledged at {offset} is another')


class Group(Role):
    def __init__(self):
        super().__init__()
        self.committed, self.n = -1, 0

    def begin(self):
        self.topic('grouped')

        def step():
            a = self.client.request(10, 1, raw.string('soakers') + b'\0')
            passes(struct.unpack_from('>h', a, 4)[0], 'FindCoordinator')
        until_done(step)

    def join(self):
        a = self.client.request(11, 1, raw.string('soakers') + struct.pack('>ii', 10000, 10000) + raw.string('') +
                                raw.string('consumer') + struct.pack('>i', 1) + raw.string('range') + struct.pack('>i', 0))
        passes(struct.unpack_from('>h', a)[0], 'JoinGroup')
        generation = struct.unpack_from('>i', a, 2)[0]
        at = 6
        for _ in range(2):  # protocol, leader
            at += 2 + struct.unpack_from('>h', a, at)[0]
        n = struct.unpack_from('>h', a, at)[0]
        member = a[at + 2:at + 2 + n].decode()
        a = self.client.request(14, 0, raw.string('soakers') + struct.pack('>i', generation) + raw.string(member) +
                                struct.pack('>i', 1) + raw.string(member) + struct.pack('>i', 2) + b'ab')
        passes(struct.unpack_from('>h', a)[0], 'SyncGroup')
        return generation, member

    def leave(self, member):
        a = self.client.request(13, 0, raw.string('soakers') + raw.string(member))
        passes(struct.unpack_from('>h', a)[0], 'LeaveGroup')

    def work(self):
        self.n += 1

        def step():
            generation, member = self.join()
            body = raw.string('soakers') + struct.pack('>i', generation) + raw.string(member) + struct.pack('>qi', -1, 1) + \
                raw.string('grouped') + struct.pack('>iiq', 1, 0, self.n) + raw.string('m')
            a = self.client.request(8, 2, body)
            error = struct.unpack_from('>h', a, len(a) - 2)[0]
            if error in (22, 25):  # the session ended meanwhile, as when the broker is gone for long
                raise Passing('OffsetCommit')
            passes(error, 'OffsetCommit')
            self.committed = self.n
            self.leave(member)
        until_done(step)
        time.sleep(0.05)

    def rest(self):
        def step():
            a = self.client.request(9, 1, raw.string('soakers') + struct.pack('>i', 1) + raw.string('grouped') +
                                    struct.pack('>ii', 1, 0))
            at = 4 + 2 + len('grouped') + 4
            _, offset = struct.unpack_from('>iq', a, at)
            passes(struct.unpack_from('>h', a, len(a) - 2)[0], 'OffsetFetch')
            check(self.committed <= offset <= self.n, f'group: {self.committed} was committed, {offset} is there')
        until_done(step)


class Admin(Role):
    def __init__(self):
        super().__init__()
        self.n = 0

    def work(self):
        self.n += 1
        name = f'churn-{self.n}'
        self.topic(name, rng.randrange(1, 10))
        data = batch_of(NONE, [value(name, 0)])

        def produce():
            a = self.client.request(raw.PRODUCE, 4, raw.produce_body(name, data))
            passes(struct.unpack_from('>h', a, 4 + 2 + len(name) + 8)[0], f'{name}: Produce')

        def grow():
            a = self.client.request(37, 0, struct.pack('>i', 1) + raw.string(name) + struct.pack('>iiib', 12, -1, 30000, 0))
            error = struct.unpack_from('>h', a, 8 + 2 + len(name))[0]
            passes(0 if error == 37 else error, f'{name}: CreatePartitions')  # 37: it has been, and the answer was lost

        def remove():
            a = self.client.request(raw.DELETE_TOPICS, 1, struct.pack('>i', 1) + raw.string(name) + struct.pack('>i', 30000))
            error = struct.unpack_from('>h', a, len(a) - 2)[0]
            if error != 3:  # gone, and the answer was lost
                passes(error, f'{name}: DeleteTopics')
        for step in (produce, grow, produce, remove):
            until_done(step)
        time.sleep(0.1)


class Rude(Role):
    def work(self):
        try:
            s = socket.create_connection(('127.0.0.1', PORT), 10)
            manner = rng.randrange(5)
            if manner == 0:
                s.sendall(rng.randbytes(rng.randrange(1, 3000)))
            elif manner == 1:
                s.sendall(struct.pack('>ihhi', rng.choice([1 << 20, 30 << 20]), raw.PRODUCE, 3, 1) + bytes(rng.randrange(5000)))
            elif manner == 2:
                s.sendall(raw.frame(raw.FETCH, 4, raw.fetch_body('soak', 0, rng.randrange(8), wait_ms=10000)))
            elif manner == 3:
                for _ in range(20):
                    s.sendall(raw.frame(raw.FETCH, 4, raw.fetch_body('ledger', 0, max_bytes=30 << 20)))
            time.sleep(rng.random() / 5)
            if rng.randrange(2):
                s.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack('ii', 1, 0))
            s.close()
        except OSError:
            time.sleep(0.1)


def role_of(name):
    kind, _, n = name.partition('-')
    if kind == 'producer':
        return Producer('soak', int(n), int(n) % 5, True)
    return {'ledger': lambda: Producer('ledger', 0, NONE, False), 'old': Old, 'group': Group, 'admin': Admin, 'rude': Rude}[kind]()


def main():
    role, going = role_of(ROLE), False
    role.begin()
    print(json.dumps(done), flush=True)
    while True:
        if not going or select.select([sys.stdin], [], [], 0)[0]:
            line = sys.stdin.readline().strip()
            if not line:
                return
            going = line == 'go'
            if not going:
                role.rest()
                role.client.drop()
            print(json.dumps(done), flush=True)
        if going:
            role.work()


try:
    main()
except Exception as e:  # told, whatever it is
    print(json.dumps({'error': f'{ROLE}: {type(e).__name__}: {e}'}), flush=True)
    sys.exit(1)
