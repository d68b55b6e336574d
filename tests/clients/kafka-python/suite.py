"""kafka-python against a broker; what is checked stands in common/driver.py. Also started by kafka-python-2."""
import os
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "../common"))
import driver  # noqa: E402

import kafka  # noqa: E402
from kafka import KafkaConsumer, KafkaProducer, TopicPartition  # noqa: E402
from kafka.admin import KafkaAdminClient, NewTopic  # noqa: E402

OLD = kafka.__version__.startswith("2.0.")


def tps(topic):
    return [TopicPartition(topic, p) for p in range(driver.PARTITIONS)]


def record(m):
    return driver.Record(m.partition, m.offset, m.key, m.value, list(m.headers), m.timestamp)


class Member:
    def __init__(self, broker, topic):
        self.consumer = KafkaConsumer(topic, bootstrap_servers=broker, group_id=topic, auto_offset_reset="earliest",
                                      enable_auto_commit=False, session_timeout_ms=6000, heartbeat_interval_ms=500,
                                      fetch_max_wait_ms=100, metadata_max_age_ms=2000)

    def assigned(self):
        return {tp.partition for tp in self.consumer.assignment()}

    def poll(self):
        found = self.consumer.poll(timeout_ms=200, max_records=20)
        self.read = bool(found)
        return [record(m) for ms in found.values() for m in ms]

    def commit(self):
        if self.read:
            self.consumer.commit()

    def close(self):
        self.consumer.close()


class Adapter:
    name = "kafka-python-2" if OLD else "kafka-python"
    codecs = driver.CODECS
    null_header = b""  # its producer wants bytes

    def __init__(self, broker):
        self.broker = broker
        self.admin = KafkaAdminClient(bootstrap_servers=broker)

    def create(self, topic):
        self.admin.create_topics([NewTopic(topic, driver.PARTITIONS, 1)])

    def delete(self, topic):
        self.admin.delete_topics([topic])

    def produce(self, topic, codec, records):
        more = {} if OLD else {"enable_idempotence": True}
        p = KafkaProducer(bootstrap_servers=self.broker, compression_type=None if codec == "none" else codec, acks="all",
                          linger_ms=2, batch_size=8000, max_in_flight_requests_per_connection=1, **more)
        sent = [p.send(topic, r.value, r.key, r.headers, r.partition, r.timestamp) for r in records]
        p.flush(driver.TIMEOUT)
        offsets = [f.get(driver.TIMEOUT).offset for f in sent]
        p.close()
        return offsets

    def hand(self):
        return KafkaConsumer(bootstrap_servers=self.broker, auto_offset_reset="none", enable_auto_commit=False,
                             fetch_max_wait_ms=100, check_crcs=True)

    def read(self, topic, count):
        c = self.hand()
        c.assign(tps(topic))
        c.seek_to_beginning(*tps(topic))
        c.config["consumer_timeout_ms"] = driver.TIMEOUT * 1000
        for _ in range(count):
            yield record(next(c))
        c.close()

    def ends(self, topic):
        c = self.hand()
        found = c.end_offsets(tps(topic))
        c.close()
        return {tp.partition: offset for tp, offset in found.items()}

    def at(self, topic, ms):
        c = self.hand()
        found = c.offsets_for_times({tp: ms for tp in tps(topic)})
        c.close()
        return {tp.partition: o and o.offset for tp, o in found.items()}

    def committed(self, topic):
        c = KafkaConsumer(bootstrap_servers=self.broker, group_id=topic, enable_auto_commit=False)
        found = {tp.partition: c.committed(tp) or 0 for tp in tps(topic)}
        c.close()
        return found

    def member(self, topic):
        return Member(self.broker, topic)


driver.main(Adapter)
