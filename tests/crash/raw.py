"""Kafka's protocol by hand, as far as the tests of this folder need it: they send what no client library would."""
import socket
import struct
import time

PRODUCE, FETCH, LIST_OFFSETS, METADATA, API_VERSIONS, CREATE_TOPICS, DELETE_TOPICS, INIT_PRODUCER_ID = \
    0, 1, 2, 3, 18, 19, 20, 22
OFFSET_FETCH = 9
DESCRIBE_CONFIGS, DESCRIBE_CLUSTER = 32, 60

_TABLE = []
for _n in range(256):
    for _ in range(8):
        _n = _n >> 1 ^ (0x82F63B78 if _n & 1 else 0)
    _TABLE.append(_n)


def crc32c(data):
    crc = 0xFFFFFFFF
    for b in data:
        crc = crc >> 8 ^ _TABLE[(crc ^ b) & 255]
    return crc ^ 0xFFFFFFFF


def uvarint(n):
    out = bytearray()
    while n & ~0x7F:
        out.append(n & 0x7F | 0x80)
        n >>= 7
    out.append(n)
    return bytes(out)


def varint(n):
    return uvarint(n << 1 ^ n >> 63)


def batch(values, attributes=0):
    records = b''
    for i, value in enumerate(values):
        body = b'\0' + varint(0) + varint(i) + varint(-1) + varint(len(value)) + value + varint(0)
        records += varint(len(body)) + body
    ms = int(time.time() * 1000)
    tail = struct.pack('>hiqqqhii', attributes, len(values) - 1, ms, ms, -1, -1, -1, len(values)) + records
    return struct.pack('>qiibI', 0, len(tail) + 9, -1, 2, crc32c(tail)) + tail


def string(s):
    return struct.pack('>h', len(s)) + s.encode()


def frame(key, version, body, correlation=1):
    f = struct.pack('>hhi', key, version, correlation) + string('raw') + body
    return struct.pack('>i', len(f)) + f


def create_topic_body(name, partitions=1):
    return struct.pack('>i', 1) + string(name) + struct.pack('>ihiiib', partitions, 1, 0, 0, 30000, 0)


def produce_body(topic, data, partition=0, acks=-1):
    return struct.pack('>hhii', -1, acks, 30000, 1) + string(topic) + struct.pack('>iii', 1, partition, len(data)) + data


def fetch_body(topic, offset, partition=0, wait_ms=0, max_bytes=8 << 20, min_bytes=1):
    return struct.pack('>iiiibi', -1, wait_ms, min_bytes, max_bytes, 0, 1) + string(topic) + \
        struct.pack('>iiqi', 1, partition, offset, max_bytes)


def list_offsets_body(topic, at, partition=0):
    return struct.pack('>ii', -1, 1) + string(topic) + struct.pack('>iiq', 1, partition, at)


class Connection:
    def __init__(self, address, timeout=30):
        host, port = address.rsplit(':', 1)
        self.socket = socket.create_connection((host, int(port)), timeout)

    def close(self):
        self.socket.close()

    def receive(self, n):
        data = b''
        while len(data) < n:
            piece = self.socket.recv(n - len(data))
            if not piece:
                raise ConnectionError('the broker closed the connection')
            data += piece
        return data

    def answer(self):
        """The next answer, behind its correlation id."""
        return self.receive(struct.unpack('>i', self.receive(4))[0])[4:]

    def request(self, key, version, body):
        self.socket.sendall(frame(key, version, body))
        return self.answer()

    def create_topic(self, name, partitions=1):
        a = self.request(CREATE_TOPICS, 2, create_topic_body(name, partitions))
        return struct.unpack_from('>h', a, 8 + 2 + len(name))[0]

    def produce(self, topic, data, partition=0, acks=-1):
        """(error, base offset)"""
        # version 4: the first whose clients know KAFKA_STORAGE_ERROR (KIP-112)
        a = self.request(PRODUCE, 4, produce_body(topic, data, partition, acks))
        return struct.unpack_from('>hq', a, 4 + 2 + len(topic) + 8)

    def end_offset(self, topic, partition=0):
        """(error, offset)"""
        a = self.request(LIST_OFFSETS, 1, list_offsets_body(topic, -1, partition))
        error, _, offset = struct.unpack_from('>hqq', a, 4 + 2 + len(topic) + 8)
        return error, offset

    def fetch(self, topic, offset, partition=0, **more):
        """(error, high watermark, records)"""
        a = self.request(FETCH, 4, fetch_body(topic, offset, partition, **more))
        at = 8 + 2 + len(topic) + 8
        error, high, _, aborted = struct.unpack_from('>hqqi', a, at)
        at += 22 + max(aborted, 0) * 16
        return error, high, a[at + 4:]

    def committed(self, group, topic, partition=0):
        """What the group has committed; -1: nothing."""
        a = self.request(OFFSET_FETCH, 2, string(group) + struct.pack('>i', 1) + string(topic) + struct.pack('>ii', 1, partition))
        topics, error = struct.unpack_from('>ih', a)  # no topics beside an error of the group's
        if topics:
            at = 4 + 2 + len(topic) + 8
            offset, metadata = struct.unpack_from('>qh', a, at)
            error, = struct.unpack_from('>h', a, at + 10 + max(metadata, 0))
        if error:
            raise OSError(f'OffsetFetch: error {error}')
        return offset

    def read_all(self, topic, partition=0):
        """Values of all records from 0 to the end; raises where anything is amiss."""
        values, offset = [], 0
        while True:
            error, high, records = self.fetch(topic, offset, partition)
            if error:
                raise AssertionError(f'Fetch at {offset}: error {error}')
            at = 0
            while at + 61 <= len(records):
                base, length = struct.unpack_from('>qi', records, at)
                if at + 12 + length > len(records):
                    break
                b = records[at:at + 12 + length]
                if base != offset:
                    raise AssertionError(f'offset {base}, {offset} was due')
                p = 61
                for i in range(struct.unpack_from('>i', b, 57)[0]):
                    size, p = _varint(b, p)
                    end = p + size
                    q = p + 1
                    for _ in range(3):
                        _, q = _varint(b, q)
                    n, q = _varint(b, q)
                    values.append(b[q:q + n])
                    p = end
                    offset += 1
                at += 12 + length
            if offset >= high:
                return values


def _varint(b, p):
    n = shift = 0
    while True:
        n |= (b[p] & 0x7F) << shift
        shift += 7
        p += 1
        if not b[p - 1] & 0x80:
            return n >> 1 ^ -(n & 1), p
