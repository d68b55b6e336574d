'use strict';
// node-rdkafka against a broker; what is checked stands in common/driver.js.
//
// disconnect() deletes the client in another thread, and the addon has no lock between that and what this thread asks of
// it: poll() of a producer, unassign() from a consumer's rebalance_cb. So the timer that polls is stopped before, and
// partitions are left to librdkafka to assign (no rebalance_cb).
const Kafka = require('node-rdkafka');
const driver = require('../common/driver.js');

const call = (object, method, ...args) => new Promise((done, failed) =>
  object[method](...args, (error, result) => (error ? failed(error) : done(result))));

function record(m) {
  return {
    partition: m.partition, offset: m.offset, key: m.key === null || m.key === undefined ? null : Buffer.from(m.key),
    value: m.value, headers: (m.headers || []).map((h) => Object.entries(h)[0]).map(([k, v]) => [k, Buffer.from(v)]),
    timestamp: m.timestamp,
  };
}

class Member {
  constructor(consumer) { this.consumer = consumer; }

  assigned() { return this.consumer.assignments().length; }

  async poll() {
    const found = await call(this.consumer, 'consume', 20);
    this.read = found.length > 0;
    return found.map(record);
  }

  async commit() { if (this.read) this.consumer.commitSync(null); }

  close() { return call(this.consumer, 'disconnect'); }
}

async function make(broker) {
  const common = { 'metadata.broker.list': broker, 'broker.address.family': 'v4' };
  const admin = Kafka.AdminClient.create(common);
  const toppars = (topic, offset) => [0, 1, 2].map((partition) => ({ topic, partition, offset }));
  const offsets = (list) => list.sort((a, b) => a.partition - b.partition).map((tp) => tp.offset);
  const consumer = async (options) => {
    const c = new Kafka.KafkaConsumer({ ...common, 'enable.auto.commit': false, 'fetch.wait.max.ms': 50, ...options },
      { 'auto.offset.reset': 'earliest' });
    c.setDefaultConsumeTimeout(100);
    await call(c, 'connect', {});
    return c;
  };
  const byHand = async (body, group = 'by-hand') => {
    const c = await consumer({ 'group.id': group });
    try {
      return await body(c);
    } finally {
      await call(c, 'disconnect');
    }
  };
  return {
    name: 'node-rdkafka',
    codecs: ['none', 'gzip', 'snappy', 'lz4', 'zstd'],
    nullHeader: Buffer.alloc(0), // it knows no header without a value
    create: (topic) => call(admin, 'createTopic', { topic, num_partitions: driver.PARTITIONS, replication_factor: 1 }, driver.TIMEOUT_MS),
    delete: (topic) => call(admin, 'deleteTopic', topic, driver.TIMEOUT_MS),
    async produce(topic, codec, records) {
      const p = new Kafka.Producer({ ...common, 'compression.codec': codec, 'enable.idempotence': true, 'linger.ms': 2,
        'batch.num.messages': 50, dr_cb: true });
      await call(p, 'connect', {});
      let good = 0, bad = null;
      p.on('delivery-report', (error) => { if (error) bad = error; else good++; });
      p.setPollInterval(20);
      for (const r of records)
        p.produce(topic, r.partition, r.value, r.key, r.timestamp, null, r.headers.map(([k, v]) => ({ [k]: v })));
      await call(p, 'flush', driver.TIMEOUT_MS);
      for (const deadline = Date.now() + driver.TIMEOUT_MS; !bad && good < records.length && Date.now() < deadline;) await driver.sleep(10);
      p.setPollInterval(0);
      await call(p, 'disconnect');
      if (bad || good < records.length) throw bad || new Error(`${good} of ${records.length} acknowledged`);
    },
    read: (topic, count) => byHand(async (c) => {
      const all = [];
      c.assign(toppars(topic, 0));
      for (const deadline = Date.now() + driver.TIMEOUT_MS; all.length < count && Date.now() < deadline;)
        all.push(...(await call(c, 'consume', 500)).map(record));
      return all;
    }),
    ends: (topic) => byHand(async (c) => {
      const ends = [];
      for (let p = 0; p < driver.PARTITIONS; p++)
        ends.push((await call(c, 'queryWatermarkOffsets', topic, p, driver.TIMEOUT_MS)).highOffset);
      return ends;
    }),
    at: (topic, ms) => byHand(async (c) => offsets(await call(c, 'offsetsForTimes', toppars(topic, ms), driver.TIMEOUT_MS))),
    committed: (topic) => byHand(async (c) => offsets(await call(c, 'committed', toppars(topic), driver.TIMEOUT_MS)), topic),
    async member(topic) {
      const c = await consumer({ 'group.id': topic, 'session.timeout.ms': 6000, 'heartbeat.interval.ms': 500 });
      c.subscribe([topic]);
      return new Member(c);
    },
    close: async () => admin.disconnect(),
  };
}

driver.main(make);
