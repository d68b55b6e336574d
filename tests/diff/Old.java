/* The versions that Kafka 4 dropped: Produce 0-2, Fetch 0-3, ListOffsets 0, CreateTopics 0-1, DeleteTopics 0,
 * DescribeConfigs 0, and message sets of formats 0 and 1: requests to Apache Kafka 3.9, most of them wrong on purpose;
 * its answers are kafka-old.txt. What is fetched is shown message by message, as far as the last whole one: Kafka
 * fills an answer up with a cut message, or with bytes that mean nothing.
 *
 *   java -cp KAFKA-JARS:CLASSES Old HOST:PORT           on a broker that has just been started on an empty directory */
import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.node.*;
import java.io.*;
import java.nio.ByteBuffer;
import java.util.*;
import java.util.function.*;
import java.util.zip.CRC32;
import java.util.zip.GZIPOutputStream;
import org.apache.kafka.common.Uuid;
import org.apache.kafka.common.compress.Compression;
import org.apache.kafka.common.message.*;
import org.apache.kafka.common.message.CreateTopicsRequestData.*;
import org.apache.kafka.common.message.DescribeConfigsRequestData.DescribeConfigsResource;
import org.apache.kafka.common.message.FetchRequestData.*;
import org.apache.kafka.common.message.ListOffsetsRequestData.*;
import org.apache.kafka.common.message.ProduceRequestData.*;
import org.apache.kafka.common.protocol.*;
import org.apache.kafka.common.record.*;
import org.apache.kafka.common.utils.ByteBufferOutputStream;

class Old extends Wire {
    static final SimpleRecord A = record(0, "k", "one"), B = record(1, "k", "two"), C = record(2, null, "three"), D = record(3, "k", null);
    static final CompressionType[] CODECS = {CompressionType.NONE, CompressionType.GZIP, CompressionType.SNAPPY, CompressionType.LZ4};

    static SimpleRecord record(long ms, String key, String value) {
        return new SimpleRecord(TIME + ms, key == null ? null : key.getBytes(), value == null ? null : value.getBytes());
    }

    /* ---- message sets ---- */

    /** As a client of those days made them. */
    static byte[] set(int magic, CompressionType codec, SimpleRecord... records) {
        MemoryRecordsBuilder b = MemoryRecords.builder(ByteBuffer.allocate(4096), (byte) magic, Compression.of(codec).build(), TimestampType.CREATE_TIME, 0L);
        for (SimpleRecord r : records) b.append(r);
        return bytes(b.build());
    }

    static byte[] bytes(MemoryRecords r) {
        byte[] b = new byte[r.sizeInBytes()];
        r.buffer().duplicate().get(b);
        return b;
    }

    /** One message, with its checksum; without offset and size. */
    static byte[] message(int magic, int attributes, long timestamp, byte[] key, byte[] value) {
        ByteBuffer b = ByteBuffer.allocate(22 + (key == null ? 0 : key.length) + (value == null ? 0 : value.length) - (magic == 0 ? 8 : 0));
        b.putInt(0).put((byte) magic).put((byte) attributes);
        if (magic > 0) b.putLong(timestamp);
        b.putInt(key == null ? -1 : key.length);
        if (key != null) b.put(key);
        b.putInt(value == null ? -1 : value.length);
        if (value != null) b.put(value);
        return sealed(b.array());
    }

    static byte[] sealed(byte[] message) {
        CRC32 crc = new CRC32();
        crc.update(message, 4, message.length - 4);
        ByteBuffer.wrap(message).putInt(0, (int) crc.getValue());
        return message;
    }

    static byte[] at(long offset, byte[] message) {
        return ByteBuffer.allocate(12 + message.length).putLong(offset).putInt(message.length).put(message).array();
    }

    static byte[] cat(byte[]... parts) {
        ByteArrayOutputStream all = new ByteArrayOutputStream();
        for (byte[] p : parts) all.writeBytes(p);
        return all.toByteArray();
    }

    static byte[] plain(int magic, long offset, String value) { return at(offset, message(magic, 0, TIME, "k".getBytes(), value.getBytes())); }

    static byte[] gzip(byte[] bytes) {
        ByteArrayOutputStream out = new ByteArrayOutputStream();
        try (GZIPOutputStream z = new GZIPOutputStream(out)) {
            z.write(bytes);
        } catch (IOException e) {
            throw new UncheckedIOException(e);
        }
        return out.toByteArray();
    }

    static byte[] wrapped(int magic, long offset, byte[]... inner) { return at(offset, message(magic, 1, TIME, null, gzip(cat(inner)))); }

    static byte[] changed(byte[] set, Consumer<ByteBuffer> change) {
        byte[] copy = set.clone();
        change.accept(ByteBuffer.wrap(copy));
        return copy;
    }

    /** The same, with the checksum of the one message in it made right again. */
    static byte[] altered(byte[] set, Consumer<ByteBuffer> change) {
        byte[] copy = changed(set, change);
        return at(ByteBuffer.wrap(copy).getLong(), sealed(Arrays.copyOfRange(copy, 12, copy.length)));
    }

    /** lz4 with, or without, the mistake in the frame's checksum that format 0 has. */
    static byte[] lz4(int magic, int mistakeOf) {
        ByteArrayOutputStream inner = new ByteArrayOutputStream();
        ByteBufferOutputStream buffer = new ByteBufferOutputStream(512);
        try (OutputStream z = Compression.of(CompressionType.LZ4).build().wrapForOutput(buffer, (byte) mistakeOf)) {
            z.write(cat(plain(magic, 0, "one"), plain(magic, 1, "two")));
        } catch (IOException e) {
            throw new UncheckedIOException(e);
        }
        buffer.buffer().flip();
        byte[] b = new byte[buffer.buffer().remaining()];
        buffer.buffer().get(b);
        return at(1, message(magic, 3, TIME, null, b));
    }

    /* ---- requests ---- */

    static BaseRecords records(byte[] set) { return set == null ? null : MemoryRecords.readableRecords(ByteBuffer.wrap(set)); }

    static ProduceRequestData produce(String topic, int partition, int acks, byte[] set) {
        ProduceRequestData r = new ProduceRequestData().setAcks((short) acks).setTimeoutMs(5000);
        r.topicData().add(new TopicProduceData().setName(topic).setPartitionData(List.of(new PartitionProduceData().setIndex(partition).setRecords(records(set)))));
        return r;
    }

    static void send(String name, String topic, byte[] set) throws Exception { send(name, topic, 0, -1, set); }

    static void send(String name, String topic, int partition, int acks, byte[] set) throws Exception {
        show(name, ApiKeys.PRODUCE, 0, 2, v -> produce(topic, partition, acks, set));
    }

    static void sendOnce(String name, String topic, byte[] set) throws Exception { show(name, ApiKeys.PRODUCE, 2, 2, v -> produce(topic, 0, -1, set)); }

    static FetchRequestData fetch(String topic, int partition, long offset, int max) {
        return new FetchRequestData().setMaxWaitMs(10).setMinBytes(0).setMaxBytes(1000000).setTopics(List.of(new FetchTopic().setTopic(topic)
            .setPartitions(List.of(new FetchPartition().setPartition(partition).setFetchOffset(offset).setPartitionMaxBytes(max)))));
    }

    static void fetchCase(String name, int last, String topic, long offset) throws Exception {
        show(name, ApiKeys.FETCH, 0, last, v -> fetch(topic, 0, offset, 100000));
    }

    /** All of a partition, as a consumer reads it: Kafka cuts answers at the size that the batches have on its disk. */
    static void readAll(String topic) throws Exception {
        for (int v = 0; v <= 3; v++) {
            ArrayNode all = JsonNodeFactory.instance.arrayNode();
            for (long offset = 0, next = 0;; offset = next) {
                JsonNode answer = (JsonNode) call(ApiKeys.FETCH, v, fetch(topic, 0, offset, 100000));
                for (JsonNode m : answer.get("responses").get(0).get("partitions").get(0).get("messages")) {
                    all.add(m);
                    next = m.get("last").asLong() + 1;
                }
                if (next == offset) break;
            }
            System.out.println("Fetch " + v + "-" + v + " all of " + topic + ": " + JsonNodeFactory.instance.objectNode().set("messages", all));
        }
    }

    /** What came, with its bytes taken apart; null: nothing to be shown. */
    static void takeApart(Message m, JsonNode shown) {
        if (!(m instanceof FetchResponseData r)) return;
        for (int t = 0; t < r.responses().size(); t++)
            for (int p = 0; p < r.responses().get(t).partitions().size(); p++) {
                ObjectNode to = (ObjectNode) shown.get("responses").get(t).get("partitions").get(p);
                to.remove("recordsSizeInBytes");
                ArrayNode all = to.putArray("messages");
                if (!(r.responses().get(t).partitions().get(p).records() instanceof MemoryRecords records)) continue;
                for (MutableRecordBatch b : records.batches()) {
                    if (b.baseOffset() < 0) break; /* Kafka's filling */
                    ObjectNode o = all.addObject().put("magic", b.magic()).put("codec", b.compressionType().name).put("valid", b.isValid());
                    o.put("last", b.lastOffset()).put("type", b.timestampType().name).put("newest", when(b.maxTimestamp()));
                    if (b.magic() == 2) o.put("base", b.baseOffset()).put("count", b.countOrNull()).put("producer", b.producerId()).put("sequence", b.baseSequence());
                    if (!b.isValid()) continue;
                    ArrayNode list = o.putArray("records");
                    for (org.apache.kafka.common.record.Record x : b)
                        list.add(x.offset() + " " + when(x.timestamp()) + " " + text(x.key()) + "=" + text(x.value()) + " " + x.headers().length);
                }
            }
    }

    static String when(long t) { return t > TIME + 1000000 ? "now" : t == -1 ? "none" : "" + (t - TIME); }

    static String text(ByteBuffer b) {
        if (b == null) return "null";
        byte[] x = new byte[b.remaining()];
        b.duplicate().get(x);
        return x.length > 20 ? x.length + " bytes" : new String(x);
    }

    static ListOffsetsRequestData offsets(String topic, int partition, long timestamp, int max) {
        return new ListOffsetsRequestData().setReplicaId(-1).setTopics(List.of(new ListOffsetsTopic().setName(topic).setPartitions(List.of(
            new ListOffsetsPartition().setPartitionIndex(partition).setTimestamp(timestamp).setMaxNumOffsets(max)))));
    }

    static void offsetCase(String name, String topic, int partition, long timestamp, int max) throws Exception {
        show(name, ApiKeys.LIST_OFFSETS, 0, 0, v -> offsets(topic, partition, timestamp, max));
    }

    static CreatableTopic topic(String name, int partitions, int replicas, String... configs) {
        CreatableTopic t = new CreatableTopic().setName(name).setNumPartitions(partitions).setReplicationFactor((short) replicas);
        for (int i = 0; i < configs.length; i += 2) t.configs().add(new CreatableTopicConfig().setName(configs[i]).setValue(configs[i + 1]));
        return t;
    }

    static CreateTopicsRequestData create(CreatableTopic... topics) {
        CreateTopicsRequestData r = new CreateTopicsRequestData().setTimeoutMs(10000);
        for (CreatableTopic t : topics) r.topics().mustAdd(t.duplicate());
        return r;
    }

    static DeleteTopicsRequestData delete(String... names) { return new DeleteTopicsRequestData().setTimeoutMs(10000).setTopicNames(List.of(names)); }

    static DescribeConfigsRequestData describe(int type, String name, List<String> keys) {
        return new DescribeConfigsRequestData().setResources(List.of(new DescribeConfigsResource().setResourceType((byte) type).setResourceName(name).setConfigurationKeys(keys)));
    }

    /* ---- the cases ---- */

    static final String[] KEEP = {"retention.ms", "-1"}; /* Kafka would delete records of this age while we look */

    static void topicCases() throws Exception {
        ApiKeys c = ApiKeys.CREATE_TOPICS, d = ApiKeys.DELETE_TOPICS;
        show("only looked at", c, 1, 1, v -> create(topic("look", 2, 1)).setValidateOnly(true));
        for (int v : new int[] {0, 1}) {
            show("made", c, v, v, w -> create(topic("made" + v, 2, 1), topic("kept" + v, 1, 1, "retention.ms", "-1")));
            show("there already", c, v, v, w -> create(topic("made" + v, 2, 1)));
        }
        show("defaults", c, 0, 1, v -> create(topic("defaults" + v, -1, -1)));
        show("no partitions", c, 0, 1, v -> create(topic("n1", 0, 1)));
        show("no replicas", c, 0, 1, v -> create(topic("n1", 1, 0)));
        show("two replicas", c, 0, 1, v -> create(topic("n1", 1, 2)));
        for (String bad : new String[] {"", "..", "a/b", "x".repeat(250)}) show("name '" + (bad.length() > 9 ? "long" : bad) + "'", c, 0, 1, v -> create(topic(bad, 1, 1)));
        show("the same name twice", c, 0, 1, v -> create(topic("n1", 1, 1), topic("n1", 2, 1)));
        show("unknown option", c, 0, 1, v -> create(topic("n1", 1, 1, "no.such.thing", "1")));
        show("bad value", c, 0, 1, v -> create(topic("n1", 1, 1, "retention.ms", "abc")));
        show("null value", c, 0, 1, v -> create(topic("n1", 1, 1, "retention.ms", null)));
        show("assigned to an unknown broker", c, 0, 1, v -> {
            CreatableTopic t = topic("n1", -1, -1);
            t.assignments().add(new CreatableReplicaAssignment().setPartitionIndex(0).setBrokerIds(List.of(9)));
            return create(t);
        });
        show("nothing", c, 0, 1, v -> create());
        show("two topics and a wrong one", d, 0, 0, v -> delete("made0", "nope", "kept0"));
        show("gone already", d, 0, 0, v -> delete("made0"));
        show("the same name twice", d, 0, 0, v -> delete("made1", "made1"));
        show("bad names", d, 0, 0, v -> delete("a/b", ""));
        show("nothing", d, 0, 0, v -> delete());
    }

    static void configCases() throws Exception {
        ApiKeys a = ApiKeys.DESCRIBE_CONFIGS;
        List<String> keys = List.of("cleanup.policy", "max.message.bytes", "retention.ms", "no.such.option");
        for (String name : new String[] {"small", "compact", "nope", "a/b", ""}) show("topic '" + name + "'", a, 0, 0, v -> describe(2, name, keys));
        for (String name : new String[] {"1", "2", "x", ""})
            show("broker '" + name + "'", a, 0, 0, v -> describe(4, name, List.of("num.partitions", "auto.create.topics.enable")));
        show("unknown kind", a, 0, 0, v -> describe(3, "x", null));
        show("nothing", a, 0, 0, v -> new DescribeConfigsRequestData());
    }

    static void produceCases() throws Exception {
        for (int m = 0; m <= 1; m++) {
            String f = "format " + m;
            int magic = m;
            for (CompressionType codec : CODECS) {
                send(f + ", " + codec.name + ", one", "p" + m, set(m, codec, A));
                send(f + ", " + codec.name + ", four", "p" + m, set(m, codec, A, B, C, D));
                send(f + ", " + codec.name + ", acks=1", "p" + m, 0, 1, set(m, codec, A, B));
                sendOnce(f + ", " + codec.name + ", append time", "stamped", set(m, codec, A, B));
                sendOnce(f + ", " + codec.name + ", topic in gzip", "gzipped", set(m, codec, A, B, C));
                sendOnce(f + ", " + codec.name + ", topic in zstd", "zstd", set(m, codec, A, B, C));
                sendOnce(f + ", " + codec.name + ", topic uncompressed", "uncompressed", set(m, codec, A, B, C));
                send(f + ", " + codec.name + ", without a key, compacted", "compact", set(m, codec, A, C, B));
                send(f + ", " + codec.name + ", with keys, compacted", "compact", set(m, codec, A, B, D));
                send(f + ", " + codec.name + ", too large", "small", set(m, codec, record(0, "k", "x".repeat(300))));
                send(f + ", " + codec.name + ", random and too large", "small", set(m, codec, record(0, "k", new Random(7).ints(300, 33, 126).collect(StringBuilder::new, StringBuilder::appendCodePoint, StringBuilder::append).toString())));
                send(f + ", " + codec.name + ", too large together", "small", set(m, codec, record(0, "k", "x".repeat(80)), record(1, "k", "y".repeat(80)), record(2, "k", "z".repeat(80)), record(3, "k", "w".repeat(80))));
                send(f + ", " + codec.name + ", too old", "timely", set(m, codec, A, B));
                send(f + ", " + codec.name + ", one too old", "timely", set(m, codec, new SimpleRecord(System.currentTimeMillis(), "k".getBytes(), "v".getBytes()), B));
                send(f + ", " + codec.name + ", in the future", "bad", set(m, codec, new SimpleRecord(Long.MAX_VALUE / 2, "k".getBytes(), "v".getBytes())));
                send(f + ", " + codec.name + ", in time", "timely", set(m, codec, new SimpleRecord(System.currentTimeMillis(), "k".getBytes(), "v".getBytes())));
                send(f + ", " + codec.name + ", no timestamp", "bad", set(m, codec, new SimpleRecord(-1, "k".getBytes(), "v".getBytes())));
                show(f + " in version 3, " + codec.name, ApiKeys.PRODUCE, 3, 3, v -> produce("bad", 0, -1, set(magic, codec, A)));
                sendOnce(f + ", " + codec.name + ", twice in one set", "bad", cat(set(m, codec, A, B), set(m, codec, C)));
                sendOnce(f + ", " + codec.name + ", cut off behind", "bad", cat(set(m, codec, A, B), Arrays.copyOf(set(m, codec, A), 20)));
                sendOnce(f + ", " + codec.name + ", only a cut one", "bad", Arrays.copyOf(set(m, codec, A), 25));
                sendOnce(f + ", " + codec.name + ", wrong checksum", "bad", changed(set(m, codec, A, B), b -> b.put(12, (byte) (b.get(12) ^ 1))));
                sendOnce(f + ", " + codec.name + ", append time bit", "bad", altered(set(m, codec, A), b -> b.put(17, (byte) (b.get(17) | 8))));
                sendOnce(f + ", " + codec.name + ", append time bit, append time", "stamped", altered(set(m, codec, A), b -> b.put(17, (byte) (b.get(17) | 8))));
                sendOnce(f + ", " + codec.name + ", unknown attributes", "bad", altered(set(m, codec, A), b -> b.put(17, (byte) (b.get(17) | 0xf0))));
                sendOnce(f + ", " + codec.name + ", offset 77", "bad", changed(set(m, codec, A, B), b -> b.putLong(0, 77)));
                sendOnce(f + ", " + codec.name + ", offset -5", "bad", changed(set(m, codec, A, B), b -> b.putLong(0, -5)));
                send(f + ", " + codec.name + ", unknown topic", "nope", set(m, codec, A));
                send(f + ", " + codec.name + ", unknown partition", "bad", 9, -1, set(m, codec, A));
            }
            sendOnce(f + ", wrong checksum in the second", "bad", cat(set(m, CompressionType.NONE, A), changed(set(m, CompressionType.NONE, B), b -> b.put(12, (byte) (b.get(12) ^ 1)))));
            sendOnce(f + ", then the other", "bad", cat(set(m, CompressionType.NONE, A), set(1 - m, CompressionType.NONE, B)));
            sendOnce(f + ", then format 2", "bad", cat(set(m, CompressionType.NONE, A), set(2, CompressionType.NONE, B)));
            sendOnce(f + ", format 2 first", "bad", cat(set(2, CompressionType.NONE, A), set(m, CompressionType.NONE, B)));
            sendOnce(f + ", one compressed, one not", "bad", cat(set(m, CompressionType.GZIP, A, B), set(m, CompressionType.NONE, C)));
            sendOnce(f + ", one not compressed, one is", "bad", cat(set(m, CompressionType.NONE, A), set(m, CompressionType.GZIP, B, C)));
            sendOnce(f + ", size 13", "bad", changed(set(m, CompressionType.NONE, A), b -> b.putInt(8, 13)));
            sendOnce(f + ", size -1", "bad", changed(set(m, CompressionType.NONE, A), b -> b.putInt(8, -1)));
            sendOnce(f + ", size 14", "bad", at(0, sealed(Arrays.copyOf(message(m, 0, TIME, null, null), 14))));
            sendOnce(f + ", size 17", "bad", at(0, sealed(Arrays.copyOf(message(m, 0, TIME, null, null), 17))));
            sendOnce(f + ", good, then size 13", "bad", cat(set(m, CompressionType.NONE, A), changed(set(m, CompressionType.NONE, A), b -> b.putInt(8, 13))));
            sendOnce(f + ", good, then magic 3", "bad", cat(set(m, CompressionType.NONE, A), changed(set(m, CompressionType.NONE, A), b -> b.put(16, (byte) 3))));
            for (int codec : new int[] {4, 5, 7}) sendOnce(f + ", codec " + codec, "bad", at(0, message(m, codec, TIME, null, gzip(plain(m, 0, "one")))));
            sendOnce(f + ", codec of another", "bad", at(0, message(m, 2, TIME, null, gzip(plain(m, 0, "one")))));
            sendOnce(f + ", wrapper without a value", "bad", at(0, message(m, 1, TIME, null, null)));
            sendOnce(f + ", wrapper of nothing", "bad", wrapped(m, 0));
            sendOnce(f + ", wrapper of a cut message", "bad", wrapped(m, 0, Arrays.copyOf(plain(m, 0, "one"), 20)));
            sendOnce(f + ", wrapper with a key", "bad", at(0, message(m, 1, TIME, "key".getBytes(), gzip(plain(m, 0, "one")))));
            sendOnce(f + ", wrapper of a message and a cut one", "bad", wrapped(m, 0, plain(m, 0, "one"), Arrays.copyOf(plain(m, 1, "two"), 20)));
            sendOnce(f + ", wrapper of garbage", "bad", at(0, message(m, 1, TIME, null, "garbage".getBytes())));
            sendOnce(f + ", wrapper cut in the middle", "bad", at(0, message(m, 1, TIME, null, Arrays.copyOf(gzip(plain(m, 0, "one")), 25))));
            sendOnce(f + ", wrapper of packed garbage", "bad", wrapped(m, 0, "garbage, garbage, garbage, garbage".getBytes()));
            sendOnce(f + ", wrapper of size 13", "bad", wrapped(m, 0, changed(plain(m, 0, "one"), b -> b.putInt(8, 13))));
            sendOnce(f + ", wrapper of a wrapper", "bad", wrapped(m, 0, wrapped(m, 0, plain(m, 0, "one"))));
            sendOnce(f + ", wrapper of the other format", "bad", wrapped(m, 0, plain(1 - m, 0, "one")));
            sendOnce(f + ", wrapper of format 2", "bad", wrapped(m, 0, set(2, CompressionType.NONE, A)));
            sendOnce(f + ", wrapper of a wrong checksum", "bad", wrapped(m, 1, plain(m, 0, "one"), changed(plain(m, 1, "two"), b -> b.put(12, (byte) (b.get(12) ^ 1)))));
            sendOnce(f + ", wrapper of an append time", "bad", wrapped(m, 0, at(0, message(m, 8, TIME, null, "one".getBytes()))));
            for (long[] o : new long[][] {{1, 0, 1}, {0, 0, 1}, {0, 0, 0}, {1, 0, 0}, {5, 4, 5}, {5, 0, 1}, {1, 1, 0}, {3, 0, 9}, {0, 9, 9}, {-1, 0, 1}, {2, 5, 7}})
                sendOnce(f + ", wrapper " + o[0] + " of " + o[1] + " and " + o[2], "bad", wrapped(m, o[0], plain(m, o[1], "one"), plain(m, o[2], "two")));
            sendOnce(f + ", lz4 with the mistake", "bad", lz4(m, 0));
            sendOnce(f + ", lz4 without the mistake", "bad", lz4(m, 1));
            int key = m == 0 ? 18 : 26;
            sendOnce(f + ", key longer than the message", "bad", altered(set(m, CompressionType.NONE, A), b -> b.putInt(key, 999)));
            sendOnce(f + ", key of length -2", "bad", altered(set(m, CompressionType.NONE, A), b -> b.putInt(key, -2)));
            sendOnce(f + ", value longer than the message", "bad", altered(set(m, CompressionType.NONE, A), b -> b.putInt(key + 5, 999)));
            sendOnce(f + ", value shorter than the message", "bad", altered(set(m, CompressionType.NONE, A), b -> b.putInt(key + 5, 1)));
            sendOnce(f + ", value of length -2", "bad", altered(set(m, CompressionType.NONE, A), b -> b.putInt(key + 5, -2)));
            sendOnce(f + ", a compressed key longer than the message", "bad", wrapped(m, 0, altered(set(m, CompressionType.NONE, A), b -> b.putInt(key, 999))));
            sendOnce(f + ", a compressed value shorter than the message", "bad", wrapped(m, 0, altered(set(m, CompressionType.NONE, A), b -> b.putInt(key + 5, 1))));
        }
        sendOnce("negative timestamp", "bad", at(0, message(1, 0, -5, null, "one".getBytes())));
        sendOnce("compressed negative timestamp", "bad", wrapped(1, 0, at(0, message(1, 0, -5, null, "one".getBytes()))));
        sendOnce("negative timestamp, append time", "stamped", at(0, message(1, 0, -5, null, "one".getBytes())));
        sendOnce("wrapper of another timestamp", "bad", at(0, message(1, 1, TIME + 500, null, gzip(plain(1, 0, "one")))));
        send("no records", "bad", new byte[0]);
        send("null records", "bad", null);
        send("magic 3", "bad", changed(set(1, CompressionType.NONE, A), b -> b.put(16, (byte) 3)));
        send("magic -1", "bad", changed(set(1, CompressionType.NONE, A), b -> b.put(16, (byte) -1)));
        for (CompressionType codec : CompressionType.values()) {
            if (codec.id > 4 || codec.id < 0) continue;
            send("format 2, " + codec.name, "bad", set(2, codec, A, B));
        }
        sendOnce("format 2, twice", "bad", cat(set(2, CompressionType.NONE, A), set(2, CompressionType.NONE, B)));
        send("acks=2", "bad", 0, 2, set(1, CompressionType.NONE, A));
        send("acks=-2", "bad", 0, -2, set(1, CompressionType.GZIP, A));
        show("acks=0", ApiKeys.PRODUCE, 1, 1, v -> produce("bad", 0, 0, set(1, CompressionType.GZIP, A)));
        show("acks=0 to an unknown topic", ApiKeys.PRODUCE, 1, 1, v -> produce("nope", 0, 0, set(1, CompressionType.GZIP, A)));
        show("acks=0, wrong checksum", ApiKeys.PRODUCE, 1, 1, v -> produce("bad", 0, 0, changed(set(1, CompressionType.NONE, A), b -> b.put(12, (byte) (b.get(12) ^ 1)))));
        show("no topics", ApiKeys.PRODUCE, 0, 2, v -> new ProduceRequestData().setAcks((short) -1).setTimeoutMs(100));
        show("two partitions, one wrong", ApiKeys.PRODUCE, 0, 2, v -> {
            ProduceRequestData r = new ProduceRequestData().setAcks((short) -1).setTimeoutMs(5000);
            r.topicData().add(new TopicProduceData().setName("two").setPartitionData(List.of(
                new PartitionProduceData().setIndex(1).setRecords(records(set(1, CompressionType.GZIP, A, B))),
                new PartitionProduceData().setIndex(0).setRecords(records(wrapped(1, 0))))));
            return r;
        });
        for (String t : new String[] {"p0", "p1", "stamped", "gzipped", "zstd", "uncompressed", "compact", "bad", "two"})
            show("what became of it in " + t, ApiKeys.FETCH, 11, 11, v -> fetch(t, t.equals("two") ? 1 : 0, 0, 1000000));
    }

    static void fetchCases() throws Exception {
        for (String t : new String[] {"p0", "p1", "stamped", "gzipped", "uncompressed", "compact"}) readAll(t);
        byte[] headers = bytes(MemoryRecords.withRecords(Compression.NONE, new SimpleRecord(TIME + 9, null, "h".getBytes(), new org.apache.kafka.common.header.Header[] {
            new org.apache.kafka.common.header.internals.RecordHeader("a", "b".getBytes())}), A));
        byte[] idempotent = bytes(MemoryRecords.withIdempotentRecords(Compression.NONE, 500000, (short) 0, 0, A, B));
        byte[][] batches = {set(2, CompressionType.NONE, A, B, C), headers, set(2, CompressionType.GZIP, A, B, D), set(2, CompressionType.SNAPPY, A, C, C),
            set(2, CompressionType.LZ4, D, D, A), set(2, CompressionType.NONE, new SimpleRecord(-1, null, "untimed".getBytes())), idempotent,
            set(2, CompressionType.GZIP, new SimpleRecord(-1, (byte[]) null, (byte[]) null))};
        for (byte[] b : batches) call(ApiKeys.PRODUCE, 9, produce("data", 0, -1, b));
        for (long o = 0; o <= 19; o++) fetchCase("offset " + o, 3, "data", o);
        fetchCase("offset -1", 3, "data", -1);
        fetchCase("empty", 3, "empty", 0);
        fetchCase("unknown topic", 3, "nope", 0);
        show("unknown partition", ApiKeys.FETCH, 0, 3, v -> fetch("data", 7, 0, 1000));
        show("a follower", ApiKeys.FETCH, 0, 3, v -> fetch("data", 0, 0, 1000).setReplicaId(7));
        show("no topics", ApiKeys.FETCH, 0, 3, v -> new FetchRequestData().setMaxWaitMs(10));
        for (int max : new int[] {0, 1, 90, -1}) show("partition limit " + max, ApiKeys.FETCH, 0, 3, v -> fetch("data", 0, 0, max));
        show("limit 1", ApiKeys.FETCH, 3, 3, v -> fetch("data", 0, 0, 100000).setMaxBytes(1));
        show("the same partition twice", ApiKeys.FETCH, 0, 3, v -> new FetchRequestData().setMaxWaitMs(10).setMaxBytes(100000).setTopics(List.of(new FetchTopic().setTopic("data").setPartitions(List.of(
            new FetchPartition().setPartition(0).setFetchOffset(3).setPartitionMaxBytes(100000), new FetchPartition().setPartition(0).setFetchOffset(17).setPartitionMaxBytes(100000))))));
        show("two topics, one unknown", ApiKeys.FETCH, 0, 3, v -> new FetchRequestData().setMaxWaitMs(10).setMaxBytes(100000).setTopics(List.of(
            new FetchTopic().setTopic("data").setPartitions(List.of(new FetchPartition().setPartition(0).setFetchOffset(17).setPartitionMaxBytes(100000))),
            new FetchTopic().setTopic("nope").setPartitions(List.of(new FetchPartition().setPartition(0).setFetchOffset(0).setPartitionMaxBytes(100000))))));
        fetchCase("a topic in zstd", 11, "zstd", 0);
        fetchCase("a topic in zstd, beyond its end", 11, "zstd", 9999);
        show("a topic in zstd, unknown partition", ApiKeys.FETCH, 0, 11, v -> fetch("zstd", 3, 0, 1000));
        call(ApiKeys.PRODUCE, 9, produce("mixed", 0, -1, set(2, CompressionType.GZIP, A, B)));
        call(ApiKeys.PRODUCE, 9, produce("mixed", 0, -1, set(2, CompressionType.ZSTD, A, B)));
        fetchCase("zstd behind gzip", 11, "mixed", 0);
        fetchCase("zstd", 11, "mixed", 2);
    }

    static void offsetCases() throws Exception {
        for (String t : new String[] {"data", "empty"})
            for (int max : new int[] {0, 1, 2, 100})
                for (long time : new long[] {-1, -2, -3, 0, Long.MAX_VALUE}) offsetCase(t + ", timestamp " + time + ", at most " + max, t, 0, time, max);
        offsetCase("at most -1", "data", 0, -1, -1);
        offsetCase("a time long ago", "data", 0, TIME - 1000, 5);
        offsetCase("the records' time", "data", 0, TIME + 1000, 5);
        offsetCase("unknown topic", "nope", 0, -1, 1);
        offsetCase("unknown partition", "data", 3, -1, 1);
        offsetCase("negative partition", "data", -1, -1, 1);
        show("twice", ApiKeys.LIST_OFFSETS, 0, 0, v -> new ListOffsetsRequestData().setReplicaId(-1).setTopics(List.of(new ListOffsetsTopic().setName("data")
            .setPartitions(List.of(new ListOffsetsPartition().setTimestamp(-1).setMaxNumOffsets(1), new ListOffsetsPartition().setTimestamp(-2).setMaxNumOffsets(1))))));
        show("nothing", ApiKeys.LIST_OFFSETS, 0, 0, v -> new ListOffsetsRequestData().setReplicaId(-1));
        show("a follower", ApiKeys.LIST_OFFSETS, 0, 0, v -> offsets("data", 0, -1, 2).setReplicaId(5));
    }

    static void prepare() throws Exception {
        CreatableTopic[] topics = {topic("p0", 1, 1, KEEP), topic("p1", 1, 1, KEEP), topic("bad", 1, 1, "message.timestamp.after.max.ms", "3600000", "retention.ms", "-1"), topic("two", 2, 1, KEEP), topic("data", 1, 1, KEEP), topic("mixed", 1, 1, KEEP),
            topic("empty", 1, 1, KEEP), topic("compact", 1, 1, "cleanup.policy", "compact"), topic("small", 1, 1, "max.message.bytes", "250"),
            topic("stamped", 1, 1, "message.timestamp.type", "LogAppendTime", "retention.ms", "-1"), topic("timely", 1, 1, "message.timestamp.before.max.ms", "3600000", "retention.ms", "-1"),
            topic("gzipped", 1, 1, "compression.type", "gzip", "retention.ms", "-1"), topic("zstd", 1, 1, "compression.type", "zstd", "retention.ms", "-1"),
            topic("uncompressed", 1, 1, "compression.type", "uncompressed", "retention.ms", "-1")};
        call(ApiKeys.CREATE_TOPICS, 7, create(topics));
        for (int i = 0; i < 100; i++) { /* leaders may take a moment */
            JsonNode m = (JsonNode) call(ApiKeys.METADATA, 12, new MetadataRequestData().setTopics(null).setAllowAutoTopicCreation(false));
            boolean ready = m.get("topics").size() == topics.length;
            for (JsonNode t : m.get("topics"))
                for (JsonNode p : t.get("partitions")) ready &= p.get("leaderId").asInt() >= 0;
            if (ready) break;
            Thread.sleep(100);
        }
    }

    static void otherCases() throws Exception {
        JsonNode m = (JsonNode) call(ApiKeys.METADATA, 9, new MetadataRequestData().setTopics(List.of(new MetadataRequestData.MetadataRequestTopic().setName("data"))));
        epoch = m.get("topics").get(0).get("partitions").get(0).get("leaderEpoch").asInt();
        Map<String, Integer> epochs = new LinkedHashMap<>();
        epochs.put("the newest", epoch);
        epochs.put("one to come", epoch + 3);
        epochs.put("none", -1);
        for (String name : new String[] {"data", "nope", "a/b"})
            for (Map.Entry<String, Integer> asked : epochs.entrySet())
                show("topic '" + name + "', epoch " + asked.getKey(), ApiKeys.OFFSET_FOR_LEADER_EPOCH, 0, 1, v -> {
                    OffsetForLeaderEpochRequestData r = new OffsetForLeaderEpochRequestData();
                    r.topics().add(new OffsetForLeaderEpochRequestData.OffsetForLeaderTopic().setTopic(name).setPartitions(List.of(
                        new OffsetForLeaderEpochRequestData.OffsetForLeaderPartition().setPartition(0).setLeaderEpoch(asked.getValue()))));
                    return r;
                });
        for (String name : new String[] {"data", "nope"})
            show("topic '" + name + "'", ApiKeys.DESCRIBE_LOG_DIRS, 0, 0, v -> {
                DescribeLogDirsRequestData r = new DescribeLogDirsRequestData();
                r.topics().add(new DescribeLogDirsRequestData.DescribableLogDirTopic().setTopic(name).setPartitions(List.of(0)));
                return r;
            });
        for (short v = 0; v <= 2; v++) /* what is offered differs, of course */
            System.out.println("ApiVersions " + v + "-" + v + " plain: {\"errorCode\":" + json(ApiKeys.API_VERSIONS, v, exchange(ApiKeys.API_VERSIONS, v, new byte[0])).get("errorCode") + "}");
    }

    public static void main(String[] args) throws Exception {
        begin(args);
        exactOffsets = true;
        more = Old::takeApart;
        prepare();
        topicCases();
        configCases();
        produceCases();
        fetchCases();
        offsetCases();
        otherCases();
    }
}
