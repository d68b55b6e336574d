//! rdkafka (Rust) against a broker; what is checked is what common/driver.py checks.
//!
//!     suite BROKER main|write|read RUN        (and, started by itself: victim RUN TOPIC)
use std::collections::HashSet;
use std::io::{BufRead, BufReader, Read};
use std::os::unix::process::ExitStatusExt;
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use futures_executor::block_on;
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::{ClientContext, DefaultClientContext};
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer};
use rdkafka::error::KafkaError;
use rdkafka::message::{BorrowedMessage, DeliveryResult, Header, Headers, Message, OwnedHeaders};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer, ProducerContext};
use rdkafka::{ClientConfig, Offset, TopicPartitionList};

const PARTITIONS: i32 = 3;
const RECORDS: i64 = 301;
const KEPT: i64 = 2000;
const TIMEOUT: Duration = Duration::from_secs(60);
const CODECS: [&str; 5] = ["none", "gzip", "snappy", "lz4", "zstd"];

type Outcome<T = ()> = Result<T, Box<dyn std::error::Error>>;

macro_rules! expect {
    ($condition:expr, $($text:tt)*) => { if !$condition { return Err(format!($($text)*).into()); } };
}

#[derive(Debug, PartialEq)]
struct Record {
    key: Option<Vec<u8>>,
    value: Option<Vec<u8>>,
    headers: Vec<(String, Option<Vec<u8>>)>,
    timestamp: i64,
}

/// The offsets of what was acknowledged, in the order of the acknowledgements.
#[derive(Clone, Default)]
struct Acknowledged(Arc<Mutex<Vec<Result<(i32, i64), KafkaError>>>>);
impl ClientContext for Acknowledged {}
impl ProducerContext for Acknowledged {
    type DeliveryOpaque = ();
    fn delivery(&self, result: &DeliveryResult<'_>, _: ()) {
        self.0.lock().unwrap().push(match result {
            Ok(m) => Ok((m.partition(), m.offset())),
            Err((e, _)) => Err(e.clone()),
        });
    }
}

struct Suite {
    broker: String,
    run: i64,
}

impl Suite {
    fn config(&self) -> ClientConfig {
        let mut c = ClientConfig::new();
        c.set("bootstrap.servers", &self.broker).set("broker.address.family", "v4");
        c
    }

    fn record(&self, topic: &str, i: i64) -> Record {
        let text = |s: String| Some(s.into_bytes());
        let fill = ((97 + i % 26) as u8 as char).to_string().repeat((i * 37 % 600) as usize);
        let mut headers = vec![("h1".into(), text(format!("v{i}"))), ("h2".into(), None), ("h3".into(), Some(vec![]))];
        headers.truncate([0, 1, 3][(i % 3) as usize]);
        Record {
            key: if i % 5 == 0 { None } else { text(format!("k{}", i % 23)) },
            value: if i % 31 == 30 { None } else { text(format!("{topic}/{i}/{fill}")) },
            headers,
            timestamp: (self.run - 3600) * 1000 + i * 10,
        }
    }

    fn check(&self, topic: &str, m: &BorrowedMessage) -> Outcome<i64> {
        let i = m.offset() * PARTITIONS as i64 + m.partition() as i64;
        let headers = m.headers().map_or(vec![], |h| h.iter().map(|h| (h.key.into(), h.value.map(|v| v.into()))).collect());
        let got = Record {
            key: m.key().map(|k| k.into()),
            value: m.payload().map(|v| v.into()),
            headers,
            timestamp: m.timestamp().to_millis().unwrap_or(-1),
        };
        expect!(got == self.record(topic, i), "record {i}: {got:?}");
        Ok(i)
    }

    fn admin(&self) -> Outcome<AdminClient<DefaultClientContext>> {
        Ok(self.config().create()?)
    }

    fn created(&self, topic: &str) -> Outcome {
        let new = NewTopic::new(topic, PARTITIONS, TopicReplication::Fixed(1));
        for r in block_on(self.admin()?.create_topics(&[new], &AdminOptions::new()))? {
            r.map_err(|(_, code)| code.to_string())?;
        }
        let deadline = Instant::now() + TIMEOUT;
        while let Err(e) = self.ends(topic) { // Apache Kafka's partitions come up after its answer
            expect!(Instant::now() < deadline, "{topic} is not served: {e}");
            std::thread::sleep(Duration::from_millis(50));
        }
        Ok(())
    }

    fn delete(&self, topic: &str) -> Outcome {
        for r in block_on(self.admin()?.delete_topics(&[topic], &AdminOptions::new()))? {
            r.map_err(|(_, code)| code.to_string())?;
        }
        Ok(())
    }

    fn produce(&self, topic: &str, codec: &str, from: i64, to: i64) -> Outcome {
        let done = Acknowledged::default();
        let mut c = self.config();
        c.set("compression.type", codec).set("enable.idempotence", "true").set("linger.ms", "2").set("batch.num.messages", "50");
        let p: BaseProducer<Acknowledged> = c.create_with_context(done.clone())?;
        for i in from..to {
            let r = self.record(topic, i);
            let headers = r.headers.iter().fold(OwnedHeaders::new(), |all, (key, value)| all.insert(Header { key, value: value.as_ref() }));
            let mut one = BaseRecord::<[u8], [u8]>::to(topic).partition((i % PARTITIONS as i64) as i32).timestamp(r.timestamp);
            one = if r.headers.is_empty() { one } else { one.headers(headers) };
            one.key = r.key.as_deref();
            one.payload = r.value.as_deref();
            p.send(one).map_err(|(e, _)| e)?;
            p.poll(Duration::ZERO);
        }
        p.flush(TIMEOUT)?;
        let done = done.0.lock().unwrap();
        expect!(done.len() as i64 == to - from, "{} of {} acknowledged", done.len(), to - from);
        let mut due: Vec<i64> = (0..PARTITIONS as i64).map(|p| (from - p + 2) / PARTITIONS as i64).collect();
        for r in done.iter() {
            let (partition, offset) = r.clone()?;
            expect!(offset == due[partition as usize], "partition {partition}: acknowledged at {offset}");
            due[partition as usize] += 1;
        }
        Ok(())
    }

    fn consumer(&self, group: &str) -> Outcome<BaseConsumer> {
        let mut c = self.config();
        c.set("group.id", group).set("enable.auto.commit", "false").set("auto.offset.reset", "earliest").set("check.crcs", "true");
        c.set("session.timeout.ms", "6000").set("heartbeat.interval.ms", "500").set("fetch.wait.max.ms", "50");
        Ok(c.create()?)
    }

    fn member(&self, topic: &str) -> Outcome<BaseConsumer> {
        let c = self.consumer(topic)?;
        c.subscribe(&[topic])?;
        Ok(c)
    }

    fn ends(&self, topic: &str) -> Outcome<Vec<i64>> {
        let c = self.consumer("by-hand")?;
        (0..PARTITIONS).map(|p| Ok(c.fetch_watermarks(topic, p, TIMEOUT)?.1)).collect()
    }

    fn everywhere(topic: &str, offset: i64) -> Outcome<TopicPartitionList> {
        let mut list = TopicPartitionList::new();
        for p in 0..PARTITIONS {
            list.add_partition_offset(topic, p, Offset::Offset(offset))?;
        }
        Ok(list)
    }

    fn consume(&self, topic: &str, count: i64) -> Outcome {
        let ends = self.ends(topic)?;
        expect!(ends.iter().sum::<i64>() == count, "ends: {ends:?}");
        let c = self.consumer("by-hand")?;
        c.assign(&Self::everywhere(topic, 0)?)?;
        let mut due = [0i64; PARTITIONS as usize];
        for n in 0..count {
            let m = c.poll(TIMEOUT).ok_or(format!("timed out after {n} of {count}"))??;
            expect!(m.offset() == due[m.partition() as usize], "partition {}: offset {}", m.partition(), m.offset());
            due[m.partition() as usize] += 1;
            self.check(topic, &m)?;
        }
        Ok(())
    }

    fn roundtrip(&self, topic: &str, codec: &str) -> Outcome {
        self.created(topic)?;
        self.produce(topic, codec, 0, RECORDS)?;
        self.consume(topic, RECORDS)?;
        let c = self.consumer("by-hand")?;
        for i in (0..=RECORDS).step_by(43) {
            for tp in c.offsets_for_times(Self::everywhere(topic, self.record(topic, i).timestamp - 3)?, TIMEOUT)?.elements() {
                let first = i + (tp.partition() as i64 - i).rem_euclid(PARTITIONS as i64);
                let want = if first < RECORDS { Offset::Offset(first / PARTITIONS as i64) } else { Offset::End };
                expect!(tp.offset() == want, "time of record {i}, partition {}: {:?}", tp.partition(), tp.offset());
            }
        }
        self.delete(topic)
    }

    fn unknown(&self, topic: &str) -> Outcome {
        let why = self.delete(topic).err().map_or("nothing".into(), |e| e.to_string());
        expect!(why.to_lowercase().contains("unknown"), "deleted what is not there: {why}");
        Ok(())
    }

    /// One record, if one comes soon; committed.
    fn read_one(&self, topic: &str, me: &BaseConsumer) -> Outcome<Option<i64>> {
        let Some(m) = me.poll(Duration::from_millis(100)) else { return Ok(None) };
        let m = m?;
        let i = self.check(topic, &m)?;
        me.commit_message(&m, CommitMode::Sync)?;
        Ok(Some(i))
    }

    /// Two members share the partitions; one is killed after a commit; the other goes on there.
    fn killed(&self, topic: &str) -> Outcome {
        self.created(topic)?;
        let run = self.run.to_string();
        let mut other = Command::new(std::env::current_exe()?).args([&self.broker, "victim", &run, topic]).stdout(Stdio::piped()).spawn()?;
        let result = self.survive(topic, &mut other);
        let _ = other.kill();
        let _ = other.wait();
        result?;
        self.delete(topic)
    }

    fn survive(&self, topic: &str, other: &mut std::process::Child) -> Outcome {
        let me = self.member(topic)?;
        let mut said = BufReader::new(other.stdout.take().unwrap());
        let (mut line, mut rest, deadline) = (String::new(), String::new(), Instant::now() + TIMEOUT);
        said.read_line(&mut line)?;
        expect!(line == "joined\n", "the other member did not join");
        while ![1, 2].contains(&me.assignment()?.count()) {
            expect!(Instant::now() < deadline, "assigned: {:?}", me.assignment()?);
            expect!(me.poll(Duration::from_millis(100)).is_none(), "a record in an empty topic");
        }
        self.produce(topic, "none", 0, RECORDS)?;
        said.read_to_string(&mut rest)?;
        expect!(other.wait()?.signal() == Some(9), "the other member was not killed: {rest}");
        let mut seen = HashSet::new();
        for word in rest.split_whitespace() {
            seen.insert(word.parse::<i64>()?);
        }
        expect!(seen.len() >= 20, "committed: {rest}");
        self.read_until(topic, &me, &mut seen, RECORDS)
    }

    /// Commits what it reads, says so, reads on without a commit, and is killed.
    fn victim(&self, topic: &str) -> Outcome {
        let (me, mut done) = (self.member(topic)?, vec![]);
        while me.assignment()?.count() == 0 {
            self.read_one(topic, &me)?;
        }
        println!("joined");
        while done.len() < 20 {
            done.extend(self.read_one(topic, &me)?.map(|i| i.to_string()));
        }
        println!("{}", done.join(" "));
        for _ in 0..10 {
            me.poll(Duration::from_millis(100));
        }
        Command::new("kill").args(["-KILL", &std::process::id().to_string()]).status()?;
        Ok(())
    }

    fn read_until(&self, topic: &str, me: &BaseConsumer, seen: &mut HashSet<i64>, count: i64) -> Outcome {
        let deadline = Instant::now() + TIMEOUT;
        while (seen.len() as i64) < count {
            expect!(Instant::now() < deadline, "timed out after {} of {count}", seen.len());
            if let Some(i) = self.read_one(topic, me)? {
                expect!(seen.insert(i), "record {i} came again, though committed");
            }
        }
        Ok(())
    }

    fn kept_group(&self, topic: &str, reading: bool) -> Outcome {
        let mut seen = HashSet::new();
        if !reading {
            self.created(topic)?;
            self.produce(topic, "none", 0, RECORDS)?;
            return self.read_until(topic, &self.member(topic)?, &mut seen, 100);
        }
        let c = self.consumer(topic)?;
        for tp in c.committed_offsets(Self::everywhere(topic, 0)?, TIMEOUT)?.elements() {
            let offset = tp.offset().to_raw().unwrap_or(0).max(0);
            seen.extend((0..offset).map(|o| o * PARTITIONS as i64 + tp.partition() as i64));
        }
        expect!(seen.len() >= 100, "only {} of 100 commits are left", seen.len());
        self.produce(topic, "none", RECORDS, RECORDS + 60)?;
        self.read_until(topic, &self.member(topic)?, &mut seen, RECORDS + 60)?;
        self.delete(topic)
    }

    fn kept(&self, topic: &str, codec: &str, reading: bool) -> Outcome {
        if !reading {
            self.created(topic)?;
            return self.produce(topic, codec, 0, KEPT);
        }
        self.consume(topic, KEPT)?;
        self.produce(topic, codec, KEPT, KEPT + 300)?;
        self.consume(topic, KEPT + 300)?;
        self.delete(topic)
    }
}

fn main() -> Outcome {
    let args: Vec<String> = std::env::args().collect();
    let s = Suite { broker: args[1].clone(), run: args[3].parse()? };
    let topic = |part: &str| format!("rust-{}-{part}", s.run);
    let mut failed = false;
    let mut test = |name: String, result: Outcome| match result {
        Ok(()) => println!("ok {name}"),
        Err(e) => {
            failed = true;
            println!("FAIL {name}: {}", e.to_string().replace('\n', " "));
        }
    };
    match args[2].as_str() {
        "victim" => return s.victim(&args[4]),
        "main" => {
            for codec in CODECS {
                test(format!("roundtrip.{codec}"), s.roundtrip(&topic(codec), codec));
            }
            test("unknown-topic".into(), s.unknown(&topic("unknown")));
            test("group.killed".into(), s.killed(&topic("killed")));
        }
        phase => {
            test(format!("restart.{phase}.group"), s.kept_group(&topic("kept-group"), phase == "read"));
            for codec in CODECS {
                test(format!("restart.{phase}.{codec}"), s.kept(&topic(&format!("kept-{codec}")), codec, phase == "read"));
            }
        }
    }
    std::process::exit(failed as i32)
}
