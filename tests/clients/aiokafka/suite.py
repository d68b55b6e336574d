"""aiokafka against a broker; what is checked stands in common/driver.py."""
import asyncio
import os
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "../common"))
import driver  # noqa: E402

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition  # noqa: E402
from aiokafka.admin import AIOKafkaAdminClient, NewTopic  # noqa: E402
from aiokafka.errors import for_code  # noqa: E402

loop = asyncio.new_event_loop()
asyncio.set_event_loop(loop)
do = loop.run_until_complete  # a member's heartbeats go out only while something is done


def tps(topic):
    return [TopicPartition(topic, p) for p in range(driver.PARTITIONS)]


def record(m):
    return driver.Record(m.partition, m.offset, m.key, m.value, list(m.headers), m.timestamp)


async def with_admin(broker, method, *args):
    """Calls the method; an error within the answer becomes an exception."""
    admin = AIOKafkaAdminClient(bootstrap_servers=broker)
    await admin.start()
    try:
        answer = await getattr(admin, method)(*args)
    finally:
        await admin.close()
    for _, code, *_ in getattr(answer, "topic_errors", None) or answer.topic_error_codes:
        if code:
            raise for_code(code)()


class Member:
    def __init__(self, broker, topic):
        async def begin():
            self.consumer = AIOKafkaConsumer(topic, bootstrap_servers=broker, group_id=topic, auto_offset_reset="earliest",
                                             enable_auto_commit=False, session_timeout_ms=6000, heartbeat_interval_ms=500,
                                             fetch_max_wait_ms=100, metadata_max_age_ms=2000)
            await self.consumer.start()
        do(begin())

    def assigned(self):
        return {tp.partition for tp in self.consumer.assignment()}

    def poll(self):
        found = do(self.consumer.getmany(timeout_ms=200, max_records=20))
        self.read = bool(found)
        return [record(m) for ms in found.values() for m in ms]

    def commit(self):
        if self.read:
            do(self.consumer.commit())

    def close(self):
        do(self.consumer.stop())


class Adapter:
    name, codecs, null_header = "aiokafka", driver.CODECS, None

    def __init__(self, broker):
        self.broker = broker

    def create(self, topic):
        do(with_admin(self.broker, "create_topics", [NewTopic(topic, driver.PARTITIONS, 1)]))

    def delete(self, topic):
        do(with_admin(self.broker, "delete_topics", [topic]))

    def produce(self, topic, codec, records):
        async def all_of_them():
            p = AIOKafkaProducer(bootstrap_servers=self.broker, compression_type=None if codec == "none" else codec,
                                 enable_idempotence=True, linger_ms=2, max_batch_size=8000)
            await p.start()
            sent = [await p.send(topic, r.value, r.key, r.partition, r.timestamp, r.headers) for r in records]
            offsets = [(await asyncio.wait_for(f, driver.TIMEOUT)).offset for f in sent]
            await p.stop()
            return offsets
        return do(all_of_them())

    def by_hand(self, body, group=None):
        async def started():
            c = AIOKafkaConsumer(bootstrap_servers=self.broker, group_id=group, auto_offset_reset="none",
                                 enable_auto_commit=False, fetch_max_wait_ms=100)
            await c.start()
            try:
                return await asyncio.wait_for(body(c), driver.TIMEOUT)
            finally:
                await c.stop()
        return do(started())

    def read(self, topic, count):
        async def body(c):
            c.assign(tps(topic))
            for tp in tps(topic):
                c.seek(tp, 0)
            return [record(await c.getone()) for _ in range(count)]
        return self.by_hand(body)

    def ends(self, topic):
        found = self.by_hand(lambda c: c.end_offsets(tps(topic)))
        return {tp.partition: offset for tp, offset in found.items()}

    def at(self, topic, ms):
        found = self.by_hand(lambda c: c.offsets_for_times({tp: ms for tp in tps(topic)}))
        return {tp.partition: o and o.offset for tp, o in found.items()}

    def committed(self, topic):
        async def body(c):
            c.assign(tps(topic))
            return {tp.partition: await c.committed(tp) or 0 for tp in tps(topic)}
        return self.by_hand(body, topic)

    def member(self, topic):
        return Member(self.broker, topic)


driver.main(Adapter)
