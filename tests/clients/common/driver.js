'use strict';
// What is asked of each client in JavaScript: tests/clients/README.md, "The short suites". An adapter says how it is done.
//
//     suite.js BROKER main|write|read RUN        (and, started by itself: victim RUN TOPIC)
//
// An adapter is an object with `name`, `codecs`, `nullHeader` (what a header without a value is to it), and, all async,
//     create(topic)                  three partitions       delete(topic)      throws what says `unknown` if there is none
//     produce(topic, codec, records)                        read(topic, count) → records from the start
//     ends(topic)                    → [offset of each partition]
//     at(topic, ms)                  → likewise; -1: none is so late; the function is missing where the API has it not
//     committed(topic)               → likewise, of the group of the topic's name
//     member(topic)                  → its member, with assigned() → so many partitions, poll() → records, of which all
//                                      are committed by commit(), close()
//     close()
// Record i goes to partition i mod 3, and everything in it follows from i.
const assert = require('assert');
const { spawn } = require('child_process');

const PARTITIONS = 3, RECORDS = 301, KEPT = 2000, TIMEOUT_MS = 60000;
const sleep = (ms) => new Promise((done) => setTimeout(done, ms));
const [, , broker, phase, runText] = process.argv;
const run = Number(runText);
let client, failures = 0;

function record(topic, i) {
  const h1 = ['h1', Buffer.from(`v${i}`)];
  return {
    partition: i % PARTITIONS,
    offset: Math.floor(i / PARTITIONS),
    key: i % 5 === 0 ? null : Buffer.from(`k${i % 23}`),
    value: i % 31 === 30 ? null
      : Buffer.from(`${topic}/${i}/` + String.fromCharCode(97 + i % 26).repeat(i * 37 % 600)),
    headers: [[], [h1], [h1, ['h2', client.nullHeader], ['h3', Buffer.alloc(0)]]][i % 3],
    timestamp: (run - 3600) * 1000 + i * 10,
  };
}

function check(topic, r) {
  const i = r.offset * PARTITIONS + r.partition;
  assert.deepStrictEqual(r, record(topic, i));
  return i;
}

function produce(topic, codec, from, to) {
  const records = [];
  for (let i = from; i < to; i++) records.push(record(topic, i));
  return client.produce(topic, codec, records);
}

async function consume(topic, count) {
  const ends = await client.ends(topic);
  assert.strictEqual(ends[0] + ends[1] + ends[2], count, `ends: ${ends}`);
  const due = [0, 0, 0];
  for (const r of await client.read(topic, count)) {
    assert.strictEqual(r.offset, due[r.partition]++, `partition ${r.partition}: order`);
    check(topic, r);
  }
  assert.deepStrictEqual(due, ends);
}

async function created(topic) {
  await client.create(topic);
  for (const deadline = Date.now() + TIMEOUT_MS; ; await sleep(50)) { // Apache Kafka's partitions come up later
    try {
      if ((await client.ends(topic)).length === PARTITIONS) return;
    } catch (e) {
      if (Date.now() > deadline) throw e;
    }
  }
}

async function roundtrip(topic, codec) {
  await created(topic);
  await produce(topic, codec, 0, RECORDS);
  await consume(topic, RECORDS);
  for (let i = 0; client.at && i <= RECORDS; i += 43) {
    const found = await client.at(topic, record(topic, i).timestamp - 3);
    found.forEach((offset, p) => {
      const first = i + (p - i % PARTITIONS + PARTITIONS) % PARTITIONS;
      assert.strictEqual(offset, first < RECORDS ? Math.floor(first / PARTITIONS) : -1, `time of record ${i}, partition ${p}`);
    });
  }
  await client.delete(topic);
}

async function unknown(topic) {
  await assert.rejects(() => client.delete(topic), (e) => /unknown|does not host/i.test(String(e) + e.type));
}

// Two members share the partitions; one is killed after a commit; the other goes on there.
async function killed(topic) {
  await created(topic);
  const other = spawn(process.execPath, [process.argv[1], broker, 'victim', runText, topic], { stdio: ['ignore', 'pipe', 'inherit'] });
  let said = '';
  other.stdout.on('data', (data) => { said += data; });
  let signal = null;
  other.on('close', (code, by) => { signal = by || `code ${code}`; });
  try {
    const me = await client.member(topic);
    const deadline = Date.now() + TIMEOUT_MS, seen = new Set();
    while (!said.startsWith('joined\n') || me.assigned() === 0 || me.assigned() === PARTITIONS) {
      assert(Date.now() < deadline, `${me.assigned()} partitions assigned`);
      assert.strictEqual((await me.poll()).length, 0, 'records in an empty topic');
    }
    await produce(topic, 'none', 0, RECORDS);
    for (let gone = false; !gone || seen.size < RECORDS;) {
      assert(Date.now() < deadline, `timed out after ${seen.size} of ${RECORDS}`);
      if (!gone && signal) {
        gone = true;
        assert.strictEqual(signal, 'SIGKILL');
        const done = said.split('\n')[1].split(' ').map(Number);
        assert(done.length >= 20, `committed: ${done}`);
        for (const i of done) {
          assert(!seen.has(i), `record ${i} went to both`);
          seen.add(i);
        }
      }
      for (const r of await me.poll()) {
        const i = check(topic, r);
        assert(!seen.has(i), `record ${i} was read again, though committed`);
        seen.add(i);
      }
      await me.commit();
    }
    await me.close();
  } finally {
    other.kill('SIGKILL');
  }
  await client.delete(topic);
}

// Commits what it reads, says so, reads on without a commit, and is killed.
async function victim(topic) {
  const me = await client.member(topic), done = [];
  while (me.assigned() === 0) await me.poll();
  process.stdout.write('joined\n');
  while (done.length < 20) {
    for (const r of await me.poll()) done.push(check(topic, r));
    await me.commit();
  }
  process.stdout.write(done.join(' ') + '\n');
  for (let i = 0; i < 10; i++) await me.poll();
  process.kill(process.pid, 'SIGKILL');
}

async function groupRead(topic, seen, count) {
  const me = await client.member(topic);
  for (const deadline = Date.now() + TIMEOUT_MS; seen.size < count;) {
    assert(Date.now() < deadline, `timed out after ${seen.size} of ${count}`);
    for (const r of await me.poll()) {
      const i = check(topic, r);
      assert(!seen.has(i), `record ${i} came again`);
      seen.add(i);
    }
    await me.commit();
  }
  await me.close();
}

async function keptGroup(topic) {
  const seen = new Set();
  if (phase === 'write') {
    await created(topic);
    await produce(topic, 'none', 0, RECORDS);
    await groupRead(topic, seen, 100);
    return;
  }
  (await client.committed(topic)).forEach((offset, p) => {
    for (let o = 0; o < offset; o++) seen.add(o * PARTITIONS + p);
  });
  assert(seen.size >= 100, `only ${seen.size} of 100 commits are left`);
  await produce(topic, 'none', RECORDS, RECORDS + 60);
  await groupRead(topic, seen, RECORDS + 60);
  await client.delete(topic);
}

async function kept(topic, codec) {
  if (phase === 'write') {
    await created(topic);
    await produce(topic, codec, 0, KEPT);
    return;
  }
  await consume(topic, KEPT);
  await produce(topic, codec, KEPT, KEPT + 300);
  await consume(topic, KEPT + 300);
  await client.delete(topic);
}

async function test(name, body) {
  try {
    await body();
    console.log('ok', name);
  } catch (e) {
    failures++;
    console.log(`FAIL ${name}: ${String(e && e.stack || e).replace(/\s+/g, ' ').slice(0, 600)}`);
  }
}

async function main(make) {
  client = await make(broker);
  const topic = (part) => `${client.name}-${run}-${part}`;
  if (phase === 'victim') {
    await victim(process.argv[5]);
  } else if (phase === 'main') {
    for (const codec of client.codecs) await test(`roundtrip.${codec}`, () => roundtrip(topic(codec), codec));
    await test('unknown-topic', () => unknown(topic('unknown')));
    await test('group.killed', () => killed(topic('killed')));
  } else {
    await test(`restart.${phase}.group`, () => keptGroup(topic('kept-group')));
    for (const codec of client.codecs) await test(`restart.${phase}.${codec}`, () => kept(topic(`kept-${codec}`), codec));
  }
  await client.close();
  process.exit(failures ? 1 : 0);
}

module.exports = { PARTITIONS, TIMEOUT_MS, sleep, main };
