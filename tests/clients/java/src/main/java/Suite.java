// The Java client of Apache Kafka against a broker; the same checks as tests/clients/librdkafka. What the client's version
// decides is in Since.java; -Dbrief=true leaves the modes out.
//
//   Suite BROKER main|write|read RUN        (and, started by itself: victim RUN TOPIC)
//
// Record i of a topic goes to partition i mod 3, and everything in it follows from i, so a consumer checks content,
// order and completeness from the offset alone. Each test prints `ok NAME`, `FAIL NAME: why` or `skip NAME: why`.

import java.nio.charset.StandardCharsets;
import java.time.Duration;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.Collection;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.Random;
import java.util.concurrent.ExecutionException;
import java.util.concurrent.Future;
import java.util.concurrent.TimeUnit;
import org.apache.kafka.clients.admin.Admin;
import org.apache.kafka.clients.admin.Config;
import org.apache.kafka.clients.admin.DescribeClusterResult;
import org.apache.kafka.clients.admin.ListOffsetsResult;
import org.apache.kafka.clients.admin.NewTopic;
import org.apache.kafka.clients.admin.OffsetSpec;
import org.apache.kafka.clients.admin.TopicDescription;
import org.apache.kafka.clients.consumer.ConsumerRecord;
import org.apache.kafka.clients.consumer.KafkaConsumer;
import org.apache.kafka.clients.consumer.OffsetAndTimestamp;
import org.apache.kafka.clients.producer.KafkaProducer;
import org.apache.kafka.clients.producer.ProducerRecord;
import org.apache.kafka.clients.producer.RecordMetadata;
import org.apache.kafka.common.TopicPartition;
import org.apache.kafka.common.config.ConfigResource;
import org.apache.kafka.common.errors.InvalidTopicException;
import org.apache.kafka.common.errors.RecordTooLargeException;
import org.apache.kafka.common.errors.TopicExistsException;
import org.apache.kafka.common.errors.UnknownTopicOrPartitionException;
import org.apache.kafka.common.header.Header;
import org.apache.kafka.common.header.internals.RecordHeader;
import org.apache.kafka.common.record.TimestampType;
import org.apache.kafka.common.serialization.ByteArrayDeserializer;
import org.apache.kafka.common.serialization.ByteArraySerializer;

public class Suite {
    static final int PARTITIONS = 3, RECORDS = 301, RESTART_RECORDS = 5000, TIMEOUT_S = 30;
    static final List<String> CODECS = List.of("none", "gzip", "snappy", "lz4", "zstd");
    static final List<String> MODES = Boolean.getBoolean("brief") ? List.of("idempotent") : List.of("idempotent", "acks-all", "acks-1", "acks-0");

    static String broker;
    static long run;
    static int failures;

    static final class Failed extends Exception {
        Failed(String why) { super(why); }
    }

    static void expect(boolean condition, String why) throws Failed {
        if (!condition) throw new Failed(why);
    }

    interface Body {
        void run() throws Exception;
    }

    static void test(String name, Body body) {
        try {
            body.run();
            System.out.println("ok " + name);
        } catch (Throwable e) {
            failures++;
            Throwable why = e instanceof ExecutionException ? e.getCause() : e;
            System.out.println("FAIL " + name + ": " + (why instanceof Failed ? why.getMessage() : why.toString()));
        }
    }

    static byte[] utf8(String s) { return s.getBytes(StandardCharsets.UTF_8); }

    static ProducerRecord<byte[], byte[]> expected(String topic, int i) {
        byte[] key = i % 5 == 0 ? null : utf8("k" + i % 23);
        byte[] value = null;
        if (i % 31 != 30) {
            byte[] head = utf8(topic + "/" + i + "/");
            value = Arrays.copyOf(head, head.length + i * 37 % 600);
            Arrays.fill(value, head.length, value.length, (byte) ('a' + i % 26));
        }
        List<Header> headers = new ArrayList<>();
        if (i % 3 >= 1) headers.add(new RecordHeader("h1", utf8("v" + i)));
        if (i % 3 == 2) {
            headers.add(new RecordHeader("h2", (byte[]) null));
            headers.add(new RecordHeader("h3", new byte[0]));
        }
        return new ProducerRecord<>(topic, i % PARTITIONS, (run - 3600) * 1000 + i * 10L, key, value, headers);
    }

    static Map<String, Object> common() {
        Map<String, Object> c = new HashMap<>();
        c.put("bootstrap.servers", broker);
        c.put("request.timeout.ms", 15000);
        c.put("default.api.timeout.ms", TIMEOUT_S * 1000);
        return c;
    }

    static KafkaProducer<byte[], byte[]> producer(String codec, String mode, int maxBytes) {
        Map<String, Object> c = common();
        c.put("compression.type", codec);
        c.put("enable.idempotence", mode.equals("idempotent"));
        c.put("acks", mode.equals("acks-1") ? "1" : mode.equals("acks-0") ? "0" : "all");
        if (!mode.equals("idempotent")) c.put("max.in.flight.requests.per.connection", 1); // keeps the order on retries
        c.put("linger.ms", 2);
        c.put("batch.size", 8000);
        c.put("max.request.size", maxBytes);
        c.put("delivery.timeout.ms", TIMEOUT_S * 1000);
        return new KafkaProducer<>(c, new ByteArraySerializer(), new ByteArraySerializer());
    }

    static KafkaConsumer<byte[], byte[]> consumer() {
        Map<String, Object> c = common();
        c.put("enable.auto.commit", false);
        c.put("auto.offset.reset", "none");
        c.put("fetch.max.wait.ms", 200);
        c.put("check.crcs", true);
        c.put("allow.auto.create.topics", false);
        return new KafkaConsumer<>(c, new ByteArrayDeserializer(), new ByteArrayDeserializer());
    }

    static List<TopicPartition> partitions(String topic) {
        List<TopicPartition> all = new ArrayList<>();
        for (int p = 0; p < PARTITIONS; p++) all.add(new TopicPartition(topic, p));
        return all;
    }

    static void create(Admin admin, String topic) throws Exception {
        admin.createTopics(List.of(new NewTopic(topic, PARTITIONS, (short) 1))).all().get(TIMEOUT_S, TimeUnit.SECONDS);
    }

    // Also waits until each partition answers: Apache Kafka's come up after its answer.
    static void created(String topic) throws Exception {
        try (Admin admin = Admin.create(common())) {
            create(admin, topic);
            Map<TopicPartition, OffsetSpec> ask = new HashMap<>();
            for (TopicPartition tp : partitions(topic)) ask.put(tp, OffsetSpec.latest());
            for (int tries = 0;; tries++) {
                Throwable why = causeOf(() -> admin.listOffsets(ask).all().get(TIMEOUT_S, TimeUnit.SECONDS));
                if (why == null) return;
                expect(tries < 100 && why instanceof UnknownTopicOrPartitionException, "not served: " + why);
                Thread.sleep(50);
            }
        }
    }

    static void delete(String topic) throws Exception {
        try (Admin admin = Admin.create(common())) {
            admin.deleteTopics(List.of(topic)).all().get(TIMEOUT_S, TimeUnit.SECONDS);
        }
    }

    static void produceAll(String codec, String mode, String topic, int from, int to) throws Exception {
        List<Future<RecordMetadata>> futures = new ArrayList<>();
        try (KafkaProducer<byte[], byte[]> p = producer(codec, mode, 1000000)) {
            for (int i = from; i < to; i++) futures.add(p.send(expected(topic, i)));
            p.flush();
            for (int k = 0; k < futures.size(); k++) {
                RecordMetadata md = futures.get(k).get(TIMEOUT_S, TimeUnit.SECONDS);
                int i = from + k;
                if (!mode.equals("acks-0"))
                    expect(md.partition() == i % PARTITIONS && md.offset() == i / PARTITIONS,
                            "record " + i + " was acknowledged at " + md);
            }
        }
    }

    static void check(String topic, ConsumerRecord<byte[], byte[]> r) throws Failed {
        int i = (int) r.offset() * PARTITIONS + r.partition();
        ProducerRecord<byte[], byte[]> want = expected(topic, i);
        expect(Arrays.equals(r.key(), want.key()), "record " + i + ": another key");
        expect(Arrays.equals(r.value(), want.value()), "record " + i + ": another value");
        expect(r.timestamp() == want.timestamp() && r.timestampType() == TimestampType.CREATE_TIME,
                "record " + i + ": timestamp " + r.timestamp());
        Header[] got = r.headers().toArray(), wanted = want.headers().toArray();
        expect(got.length == wanted.length, "record " + i + ": " + got.length + " headers");
        for (int k = 0; k < got.length; k++)
            expect(got[k].key().equals(wanted[k].key()) && Arrays.equals(got[k].value(), wanted[k].value()),
                    "record " + i + ": header " + k + " is " + got[k]);
    }

    static void consumeAll(String topic, int count) throws Exception {
        try (KafkaConsumer<byte[], byte[]> c = consumer()) {
            List<TopicPartition> all = partitions(topic);
            c.assign(all);
            c.seekToBeginning(all);
            Map<TopicPartition, Long> starts = c.beginningOffsets(all), ends = c.endOffsets(all);
            long total = 0;
            for (TopicPartition tp : all) {
                expect(starts.get(tp) == 0, tp + " starts at " + starts.get(tp));
                total += ends.get(tp);
            }
            expect(total == count, "end offsets sum up to " + total + " of " + count);
            long[] next = new long[PARTITIONS];
            int seen = 0;
            for (long deadline = System.nanoTime() + TIMEOUT_S * 1000000000L; seen < count; ) {
                expect(System.nanoTime() < deadline, "timed out after " + seen + " of " + count);
                for (ConsumerRecord<byte[], byte[]> r : c.poll(Duration.ofMillis(500))) {
                    expect(r.offset() == next[r.partition()], r.partition() + ": offset " + r.offset());
                    next[r.partition()]++;
                    check(topic, r);
                    seen++;
                }
            }
            expect(c.poll(Duration.ofMillis(300)).isEmpty(), "records past the end");
            for (TopicPartition tp : all) expect(next[tp.partition()] == ends.get(tp), tp + " is not complete");
        }
    }

    static void roundtrip(String topic, String codec, String mode) throws Exception {
        created(topic);
        produceAll(codec, mode, topic, 0, RECORDS);
        if (mode.equals("acks-0")) arrived(topic, RECORDS);
        consumeAll(topic, RECORDS);
        delete(topic);
    }

    static void arrived(String topic, int count) throws Exception {
        try (KafkaConsumer<byte[], byte[]> c = consumer()) {
            long total = 0;
            for (int tries = 0; tries < 100 && total < count; tries++) {
                if (tries > 0) Thread.sleep(50);
                total = 0;
                for (long end : c.endOffsets(partitions(topic)).values()) total += end;
            }
            expect(total == count, "end offsets sum up to " + total + " of " + count);
        }
    }

    static Throwable causeOf(Body body) throws Exception {
        try {
            body.run();
            return null;
        } catch (ExecutionException e) {
            return e.getCause();
        }
    }

    static void adminTest(String topic) throws Exception {
        created(topic);
        try (Admin admin = Admin.create(common())) {
            Throwable why = causeOf(() -> create(admin, topic));
            expect(why instanceof TopicExistsException, "created twice: " + why);
            why = causeOf(() -> create(admin, "not a/topic"));
            expect(why instanceof InvalidTopicException, "bad name: " + why);
            TopicDescription d = Since.describe(admin, topic);
            expect(d.partitions().size() == PARTITIONS && Since.hasId(d),
                    "describeTopics: " + d);
            expect(admin.listTopics().names().get().contains(topic), "listTopics does not show it");
            DescribeClusterResult cluster = admin.describeCluster();
            expect(!cluster.clusterId().get().isEmpty() && cluster.nodes().get().size() == 1
                    && cluster.controller().get() != null, "describeCluster");
            ConfigResource resource = new ConfigResource(ConfigResource.Type.TOPIC, topic);
            Config config = admin.describeConfigs(List.of(resource)).all().get().get(resource);
            expect("1048588".equals(config.get("max.message.bytes").value()), "max.message.bytes");
            ConfigResource b = new ConfigResource(ConfigResource.Type.BROKER,
                    String.valueOf(cluster.nodes().get().iterator().next().id()));
            expect(!admin.describeConfigs(List.of(b)).all().get().get(b).entries().isEmpty(), "broker's configs");
        }
        delete(topic);
        Throwable why = causeOf(() -> delete(topic));
        expect(why instanceof UnknownTopicOrPartitionException, "deleted twice: " + why);
    }

    static void times(String topic, String codec) throws Exception {
        created(topic);
        produceAll(codec, "idempotent", topic, 0, RECORDS);
        try (KafkaConsumer<byte[], byte[]> c = consumer()) {
            for (int i = 0; i <= RECORDS; i += 7) {
                Map<TopicPartition, Long> ask = new HashMap<>();
                for (TopicPartition tp : partitions(topic)) ask.put(tp, (run - 3600) * 1000 + i * 10L - 3);
                for (Map.Entry<TopicPartition, OffsetAndTimestamp> e : c.offsetsForTimes(ask).entrySet()) {
                    int first = i + Math.floorMod(e.getKey().partition() - i, PARTITIONS);
                    OffsetAndTimestamp got = e.getValue();
                    if (first >= RECORDS) expect(got == null, "time past the end: " + got);
                    else
                        expect(got != null && got.offset() == first / PARTITIONS
                                && got.timestamp() == (run - 3600) * 1000 + first * 10L,
                                "time of record " + i + " in " + e.getKey() + ": " + got);
                }
            }
        }
        if (Since.MAX_TIMESTAMP != null) try (Admin admin = Admin.create(common())) {
            Map<TopicPartition, OffsetSpec> ask = new HashMap<>();
            for (TopicPartition tp : partitions(topic)) ask.put(tp, Since.MAX_TIMESTAMP);
            for (Map.Entry<TopicPartition, ListOffsetsResult.ListOffsetsResultInfo> e :
                    admin.listOffsets(ask).all().get().entrySet()) {
                long last = (RECORDS - 1 - e.getKey().partition()) / PARTITIONS;
                expect(e.getValue().offset() == last, "max timestamp: " + e);
            }
        }
        delete(topic);
    }

    static byte[] noise(int len, int seed) {
        byte[] b = new byte[len];
        new Random(seed).nextBytes(b);
        return b;
    }

    static void large(String topic, String codec) throws Exception {
        created(topic);
        final int count = 6;
        try (KafkaProducer<byte[], byte[]> p = producer(codec, "idempotent", 3000000)) {
            for (int k = 0; k < count; k++)
                p.send(new ProducerRecord<>(topic, 0, null, noise(900000, k))).get(TIMEOUT_S, TimeUnit.SECONDS);
        }
        try (KafkaProducer<byte[], byte[]> p = producer(codec, "acks-all", 3000000)) {
            Throwable why = causeOf(() -> p.send(new ProducerRecord<>(topic, 0, null, noise(1500000, 9)))
                    .get(TIMEOUT_S, TimeUnit.SECONDS));
            expect(why instanceof RecordTooLargeException, "1.5 MB: " + why);
        }
        try (KafkaConsumer<byte[], byte[]> c = consumer()) {
            Collection<TopicPartition> one = List.of(new TopicPartition(topic, 0));
            c.assign(one);
            c.seekToBeginning(one);
            long deadline = System.nanoTime() + TIMEOUT_S * 1000000000L;
            for (int k = 0; k < count; ) {
                expect(System.nanoTime() < deadline, "timed out after " + k);
                for (ConsumerRecord<byte[], byte[]> r : c.poll(Duration.ofMillis(500))) {
                    expect(r.offset() == k && Arrays.equals(r.value(), noise(900000, k)), "record " + k + " differs");
                    k++;
                }
            }
        }
        delete(topic);
    }

    static void tail(String topic) throws Exception {
        created(topic);
        try (KafkaConsumer<byte[], byte[]> c = consumer()) {
            c.assign(partitions(topic));
            c.seekToEnd(partitions(topic));
            for (TopicPartition tp : partitions(topic)) expect(c.position(tp) == 0, "the end is not 0");
            for (int i = 0; i < 20; i++) {
                produceAll("none", "idempotent", topic, i, i + 1);
                boolean got = false;
                for (long deadline = System.nanoTime() + TIMEOUT_S * 1000000000L; !got; ) {
                    expect(System.nanoTime() < deadline, "record " + i + " did not come");
                    for (ConsumerRecord<byte[], byte[]> r : c.poll(Duration.ofMillis(500))) {
                        expect(!got && r.offset() * PARTITIONS + r.partition() == i, "another record than " + i);
                        check(topic, r);
                        got = true;
                    }
                }
            }
        }
        delete(topic);
    }

    static KafkaConsumer<byte[], byte[]> member(String topic, String assignor) {
        Map<String, Object> c = common();
        c.put("group.id", topic);
        c.put("enable.auto.commit", false);
        c.put("auto.offset.reset", "earliest");
        c.put("session.timeout.ms", 6000);
        c.put("heartbeat.interval.ms", 500);
        c.put("fetch.max.wait.ms", 100);
        c.put("max.poll.records", 10);
        c.put("partition.assignment.strategy", "org.apache.kafka.clients.consumer." + assignor);
        KafkaConsumer<byte[], byte[]> k = new KafkaConsumer<>(c, new ByteArrayDeserializer(), new ByteArrayDeserializer());
        k.subscribe(List.of(topic));
        return k;
    }

    /** Polls the members in turn until they have read so many records, each once, and committed them. A commit within a
     * cooperative rebalance is refused; after the next polls it goes through. */
    static void groupRead(String topic, List<KafkaConsumer<byte[], byte[]>> members, java.util.Set<Integer> seen, int count)
            throws Exception {
        java.util.Set<KafkaConsumer<byte[], byte[]>> uncommitted = new java.util.HashSet<>();
        for (long deadline = System.nanoTime() + 60 * 1000000000L; seen.size() < count || !uncommitted.isEmpty(); ) {
            expect(System.nanoTime() < deadline, "timed out after " + seen.size() + " of " + count);
            for (KafkaConsumer<byte[], byte[]> m : members) {
                for (ConsumerRecord<byte[], byte[]> r : m.poll(Duration.ofMillis(50))) {
                    check(topic, r);
                    expect(seen.add((int) r.offset() * PARTITIONS + r.partition()), "read twice: " + r.partition() + ": " + r.offset());
                    uncommitted.add(m);
                }
                try {
                    if (uncommitted.contains(m)) m.commitSync();
                    uncommitted.remove(m);
                } catch (org.apache.kafka.common.errors.RebalanceInProgressException e) {
                    continue;
                }
            }
        }
    }

    static void group(String topic, String assignor) throws Exception {
        created(topic);
        java.util.Set<Integer> seen = new java.util.HashSet<>();
        KafkaConsumer<byte[], byte[]> a = member(topic, assignor), b = member(topic, assignor);
        for (long deadline = System.nanoTime() + 60 * 1000000000L;
                a.assignment().isEmpty() || b.assignment().isEmpty() || a.assignment().size() + b.assignment().size() < PARTITIONS; ) {
            expect(System.nanoTime() < deadline, "no assignment");
            a.poll(Duration.ofMillis(100));
            b.poll(Duration.ofMillis(100));
        }
        for (TopicPartition tp : a.assignment()) expect(!b.assignment().contains(tp), tp + " has two owners");
        produceAll("none", "idempotent", topic, 0, 60);
        groupRead(topic, List.of(a, b), seen, 60);
        a.close();
        produceAll("none", "idempotent", topic, 60, 120);
        groupRead(topic, List.of(b), seen, 120);
        b.close();
        produceAll("none", "idempotent", topic, 120, 180);
        try (KafkaConsumer<byte[], byte[]> c = member(topic, assignor)) {
            groupRead(topic, List.of(c), seen, 180);
        }
        try (Admin admin = Admin.create(common())) {
            Map<TopicPartition, org.apache.kafka.clients.consumer.OffsetAndMetadata> done =
                    admin.listConsumerGroupOffsets(topic).partitionsToOffsetAndMetadata().get();
            for (TopicPartition tp : partitions(topic)) expect(done.get(tp).offset() == 60, tp + ": " + done.get(tp));
            expect(Since.lists(admin, topic), "listGroups does not show it");
            expect(admin.describeConsumerGroups(List.of(topic)).all().get().get(topic).members().isEmpty(), "members are left");
            admin.deleteConsumerGroupOffsets(topic, java.util.Set.of(new TopicPartition(topic, 0))).all().get();
            expect(!admin.listConsumerGroupOffsets(topic).partitionsToOffsetAndMetadata().get().containsKey(new TopicPartition(topic, 0)), "the offset is still there");
            admin.deleteConsumerGroups(List.of(topic)).all().get();
        }
        delete(topic);
    }

    /** Two members share the partitions; one is killed after a commit; the other goes on there. */
    static void killed(String topic) throws Exception {
        created(topic);
        Process other = new ProcessBuilder(System.getProperty("java.home") + "/bin/java", "-XX:TieredStopAtLevel=1", "-cp",
                System.getProperty("java.class.path"), "Suite", broker, "victim", "" + run, topic)
                .redirectError(ProcessBuilder.Redirect.INHERIT).start();
        java.io.BufferedReader said = new java.io.BufferedReader(new java.io.InputStreamReader(other.getInputStream()));
        java.util.Set<Integer> seen = new java.util.HashSet<>();
        try (KafkaConsumer<byte[], byte[]> me = member(topic, "RangeAssignor")) {
            expect("joined".equals(said.readLine()), "the other member did not join");
            for (long deadline = System.nanoTime() + 60 * 1000000000L; me.assignment().isEmpty() || me.assignment().size() == PARTITIONS; ) {
                expect(System.nanoTime() < deadline, "assigned: " + me.assignment());
                expect(me.poll(Duration.ofMillis(100)).isEmpty(), "records in an empty topic");
            }
            produceAll("none", "idempotent", topic, 0, RECORDS);
            String line = said.readLine();
            other.destroyForcibly().waitFor();
            expect(line != null && other.exitValue() == 137, "the other member ended with " + other.exitValue());
            for (String i : line.split(" ")) seen.add(Integer.valueOf(i));
            expect(seen.size() >= 20, "committed: " + line);
            groupRead(topic, List.of(me), seen, RECORDS);
        } finally {
            other.destroyForcibly();
        }
        delete(topic);
    }

    /** Commits what it reads, says so, and reads on without a commit until it is killed. */
    static void victim(String topic) throws Exception {
        StringBuilder done = new StringBuilder();
        try (KafkaConsumer<byte[], byte[]> me = member(topic, "RangeAssignor")) {
            while (me.assignment().isEmpty()) me.poll(Duration.ofMillis(100));
            System.out.println("joined");
            for (int count = 0; count < 20; ) {
                for (ConsumerRecord<byte[], byte[]> r : me.poll(Duration.ofMillis(100))) {
                    check(topic, r);
                    done.append(count++ > 0 ? " " : "").append(r.offset() * PARTITIONS + r.partition());
                }
                me.commitSync();
            }
            System.out.println(done);
            while (true) me.poll(Duration.ofMillis(100));
        }
    }

    static void keptGroup(String topic, boolean reading) throws Exception {
        java.util.Set<Integer> seen = new java.util.HashSet<>();
        if (!reading) {
            created(topic);
            produceAll("none", "idempotent", topic, 0, 300);
        }
        try (KafkaConsumer<byte[], byte[]> c = member(topic, "RangeAssignor")) {
            if (reading)
                for (var e : c.committed(new java.util.HashSet<>(partitions(topic))).entrySet())
                    if (e.getValue() != null)
                        for (int o = 0; o < e.getValue().offset(); o++) seen.add(o * PARTITIONS + e.getKey().partition());
            int before = seen.size();
            expect(!reading || before >= 100, "only " + before + " of 100 commits are left");
            groupRead(topic, List.of(c), seen, reading ? 300 : 100);
        }
        if (reading) delete(topic);
    }

    public static void main(String[] args) throws Exception {
        if (args.length < 3) {
            System.err.println("usage: Suite BROKER main|write|read RUN");
            System.exit(2);
        }
        broker = args[0];
        run = Long.parseLong(args[2]);
        String prefix = "java-" + run + "-";
        if (args[1].equals("victim")) {
            victim(args[3]);
        } else if (args[1].equals("main")) {
            test("admin", () -> adminTest(prefix + "admin"));
            for (String codec : CODECS) {
                for (String mode : MODES)
                    test("roundtrip." + codec + "." + mode,
                            () -> roundtrip(prefix + codec + "-" + mode, codec, mode));
                test("times." + codec, () -> times(prefix + "times-" + codec, codec));
                test("large." + codec, () -> large(prefix + "large-" + codec, codec));
            }
            test("tail", () -> tail(prefix + "tail"));
            for (String assignor : List.of("RangeAssignor", "CooperativeStickyAssignor"))
                test("group." + assignor, () -> group(prefix + "group-" + assignor, assignor));
            test("group.killed", () -> killed(prefix + "killed"));
        } else {
            test("restart." + args[1] + ".group", () -> keptGroup(prefix + "kept-group", args[1].equals("read")));
            for (String codec : CODECS) {
                String topic = prefix + "kept-" + codec;
                test("restart." + args[1] + "." + codec, args[1].equals("write") ? () -> {
                    created(topic);
                    produceAll(codec, "idempotent", topic, 0, RESTART_RECORDS);
                } : () -> {
                    consumeAll(topic, RESTART_RECORDS);
                    produceAll(codec, "idempotent", topic, RESTART_RECORDS, RESTART_RECORDS + 300);
                    consumeAll(topic, RESTART_RECORDS + 300);
                    delete(topic);
                });
            }
        }
        System.exit(failures > 0 ? 1 : 0);
    }
}
