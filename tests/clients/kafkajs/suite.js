'use strict';
// kafkajs against a broker; what is checked stands in common/driver.js. Its codecs but gzip are plug-ins;
// lz4 is left out: what the plug-in without native code writes, Apache Kafka refuses.
const { Kafka, CompressionTypes, CompressionCodecs, logLevel } = require('kafkajs');
const snappy = require('snappyjs');
const { ZstdCodec } = require('zstd-codec');
const driver = require('../common/driver.js');

const codec = (compress, decompress) => () => ({
  compress: async (encoder) => Buffer.from(compress(encoder.buffer)),
  decompress: async (buffer) => Buffer.from(decompress(buffer)),
});

function record(partition, m) {
  return {
    partition, offset: Number(m.offset), key: m.key, value: m.value, timestamp: Number(m.timestamp),
    headers: Object.entries(m.headers || {}),
  };
}

// A member is called with batches, and works on one at a time: each waits until its records are committed.
class Member {
  constructor(consumer, topic) {
    Object.assign(this, { consumer, topic, count: 0, waiting: [], open: null });
  }

  async begin() {
    const { consumer, topic } = this;
    consumer.on(consumer.events.GROUP_JOIN, (e) => { this.count = (e.payload.memberAssignment[topic] || []).length; });
    await consumer.connect();
    await consumer.subscribe({ topic, fromBeginning: true });
    await consumer.run({
      autoCommit: false,
      eachBatchAutoResolve: false,
      eachBatch: async ({ batch, resolveOffset, heartbeat, isRunning, isStale }) => {
        for (let at = 0; at < batch.messages.length && isRunning() && !isStale(); at += 20) {
          const some = batch.messages.slice(at, at + 20), offset = String(Number(some[some.length - 1].offset) + 1);
          await new Promise((done) => this.waiting.push({ some, done, partition: batch.partition, offset }));
          resolveOffset(some[some.length - 1].offset);
          await heartbeat();
        }
      },
    });
    return this;
  }

  assigned() { return this.count; }

  async poll() {
    for (let i = 0; i < 10 && !this.waiting.length; i++) await driver.sleep(20);
    this.open = this.waiting.shift();
    return this.open ? this.open.some.map((m) => record(this.open.partition, m)) : [];
  }

  async commit() {
    if (!this.open) return;
    const { partition, offset, done } = this.open;
    await this.consumer.commitOffsets([{ topic: this.topic, partition, offset }]);
    done();
    this.open = null;
  }

  async close() {
    const ended = this.consumer.disconnect();
    for (const left of this.waiting) left.done();
    await ended;
  }
}

async function make(broker) {
  const zstd = await new Promise((ready) => ZstdCodec.run((z) => ready(new z.Simple())));
  CompressionCodecs[CompressionTypes.Snappy] = codec((b) => snappy.compress(b), (b) => snappy.uncompress(b));
  CompressionCodecs[CompressionTypes.ZSTD] = codec((b) => zstd.compress(b), (b) => zstd.decompress(b));
  const kafka = new Kafka({ brokers: [broker], logLevel: logLevel.NOTHING, retry: { initialRetryTime: 50, retries: 12 } });
  const admin = kafka.admin({ retry: { initialRetryTime: 50, retries: 4 } }); // it tries again, too, where a topic is unknown
  await admin.connect();
  const byPartition = (list, of) => list.sort((a, b) => a.partition - b.partition).map((o) => Number(of(o)));
  return {
    name: 'kafkajs',
    codecs: ['none', 'gzip', 'snappy', 'zstd'],
    nullHeader: Buffer.alloc(0), // it sends no header without a value
    create: (topic) => admin.createTopics({ topics: [{ topic, numPartitions: driver.PARTITIONS }] }),
    delete: (topic) => admin.deleteTopics({ topics: [topic] }),
    async produce(topic, codecName, records) {
      const producer = kafka.producer({ idempotent: true, maxInFlightRequests: 1 });
      await producer.connect();
      const messages = records.map((r) => ({ ...r, headers: Object.fromEntries(r.headers), timestamp: String(r.timestamp) }));
      const compression = { none: 0, gzip: 1, snappy: 2, zstd: 4 }[codecName];
      for (let i = 0; i < messages.length; i += 150)
        await producer.send({ topic, acks: -1, compression, messages: messages.slice(i, i + 150) });
      await producer.disconnect();
    },
    async read(topic, count) { // there is no reading without a group
      const consumer = kafka.consumer({ groupId: `${topic}-reader-${Date.now()}`, maxWaitTimeInMs: 50 }), all = [];
      await consumer.connect();
      await consumer.subscribe({ topic, fromBeginning: true });
      await consumer.run({ autoCommit: false, eachMessage: async ({ partition, message }) => { all.push(record(partition, message)); } });
      for (const deadline = Date.now() + driver.TIMEOUT_MS; all.length < count && Date.now() < deadline;) await driver.sleep(20);
      await consumer.disconnect();
      return all;
    },
    ends: async (topic) => byPartition(await admin.fetchTopicOffsets(topic), (o) => o.high),
    at: async (topic, ms) => {
      const ends = await admin.fetchTopicOffsets(topic);
      const found = await admin.fetchTopicOffsetsByTimestamp(topic, ms); // the end, where there is none so late
      return byPartition(found, (o) => (o.offset === ends.find((e) => e.partition === o.partition).high ? -1 : o.offset));
    },
    committed: async (topic) => byPartition((await admin.fetchOffsets({ groupId: topic, topics: [topic] }))[0].partitions,
      (o) => Math.max(Number(o.offset), 0)),
    member: (topic) => new Member(kafka.consumer({ groupId: topic, sessionTimeout: 6000, rebalanceTimeout: 6000, heartbeatInterval: 500, maxWaitTimeInMs: 50 }), topic).begin(),
    close: () => admin.disconnect(),
  };
}

driver.main(make);
