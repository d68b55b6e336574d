/* Produce, Fetch, ListOffsets, Metadata, topics: requests to Apache Kafka 4.3, most of them wrong on purpose; its answers
 * are kafka.txt.
 *
 *   java -cp KAFKA-JARS:CLASSES Diff HOST:PORT          on a broker that has just been started on an empty directory */
import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.node.*;
import java.io.*;
import java.nio.ByteBuffer;
import java.util.*;
import java.util.function.*;
import org.apache.kafka.common.Uuid;
import org.apache.kafka.common.compress.Compression;
import org.apache.kafka.common.message.*;
import org.apache.kafka.common.message.CreateTopicsRequestData.*;
import org.apache.kafka.common.message.DeleteTopicsRequestData.DeleteTopicState;
import org.apache.kafka.common.message.DescribeConfigsRequestData.DescribeConfigsResource;
import org.apache.kafka.common.message.FetchRequestData.*;
import org.apache.kafka.common.message.ListOffsetsRequestData.*;
import org.apache.kafka.common.message.MetadataRequestData.MetadataRequestTopic;
import org.apache.kafka.common.message.ProduceRequestData.*;
import org.apache.kafka.common.protocol.*;
import org.apache.kafka.common.record.TimestampType;
import org.apache.kafka.common.record.internal.*;
import org.apache.kafka.common.utils.Crc32C;

class Diff extends Wire {
    /* ---- data ---- */

    static final SimpleRecord A = new SimpleRecord(TIME, "k".getBytes(), "one".getBytes()), B = new SimpleRecord(TIME + 1, "k".getBytes(), "two".getBytes());

    static MemoryRecords batch(SimpleRecord... records) { return MemoryRecords.withRecords(Compression.NONE, records); }

    static MemoryRecords packed(CompressionType type, SimpleRecord... records) {
        return MemoryRecords.withRecords(Compression.of(type).build(), records);
    }

    static MemoryRecords idempotent(long id, int producerEpoch, int sequence, SimpleRecord... records) {
        return MemoryRecords.withIdempotentRecords(Compression.NONE, id, (short) producerEpoch, sequence, records);
    }

    static byte[] bytes(MemoryRecords r) {
        byte[] b = new byte[r.sizeInBytes()];
        r.buffer().duplicate().get(b);
        return b;
    }

    /** A changed batch, with its checksum made right again. */
    static MemoryRecords changed(MemoryRecords r, Consumer<ByteBuffer> change) {
        ByteBuffer b = ByteBuffer.wrap(bytes(r));
        change.accept(b);
        b.putInt(17, (int) Crc32C.compute(b.array(), 21, b.array().length - 21));
        return MemoryRecords.readableRecords(b);
    }

    static MemoryRecords raw(byte[]... parts) {
        ByteArrayOutputStream all = new ByteArrayOutputStream();
        for (byte[] p : parts) all.writeBytes(p);
        return MemoryRecords.readableRecords(ByteBuffer.wrap(all.toByteArray()));
    }

    static MemoryRecords old(byte magic) {
        MemoryRecordsBuilder b = MemoryRecords.builder(ByteBuffer.allocate(300), magic, Compression.NONE, TimestampType.CREATE_TIME, 0L);
        b.append(A);
        return b.build();
    }

    /* ---- requests ---- */

    static ProduceRequestData produce(int v, String topic, int partition, int acks, BaseRecords records) {
        TopicProduceData t = new TopicProduceData().setPartitionData(List.of(new PartitionProduceData().setIndex(partition).setRecords(records)));
        if (v >= 13) t.setTopicId(ids.getOrDefault(topic, UNKNOWN));
        else t.setName(topic);
        ProduceRequestData r = new ProduceRequestData().setAcks((short) acks).setTimeoutMs(5000);
        r.topicData().add(t);
        return r;
    }

    static void produceCase(String name, String topic, int partition, int acks, BaseRecords records) throws Exception {
        show(name, ApiKeys.PRODUCE, 3, 13, v -> produce(v, topic, partition, acks, records));
    }

    static void appendTimeCase(String name, String topic, BaseRecords records) throws Exception {
        show("append time set by the client, " + name, ApiKeys.PRODUCE, 9, 9, v -> produce(v, topic, 0, -1, records));
    }

    static FetchRequestData fetch(int v, String topic, int partition, long offset, Consumer<FetchPartition> change) {
        FetchPartition p = new FetchPartition().setPartition(partition).setFetchOffset(offset).setPartitionMaxBytes(100000);
        change.accept(p);
        FetchTopic t = new FetchTopic().setPartitions(List.of(p));
        if (v >= 13) t.setTopicId(ids.getOrDefault(topic, UNKNOWN));
        else t.setTopic(topic);
        return new FetchRequestData().setMaxWaitMs(10).setMinBytes(0).setMaxBytes(1000000).setTopics(List.of(t));
    }

    static void fetchCase(String name, String topic, int partition, long offset) throws Exception {
        show(name, ApiKeys.FETCH, 4, 18, v -> fetch(v, topic, partition, offset, p -> { }));
    }

    static void offsets(String name, String topic, int partition, long timestamp, int leaderEpoch) throws Exception {
        show(name, ApiKeys.LIST_OFFSETS, 1, 11, v -> new ListOffsetsRequestData().setReplicaId(-1).setTopics(List.of(
            new ListOffsetsTopic().setName(topic).setPartitions(List.of(new ListOffsetsPartition()
                .setPartitionIndex(partition).setTimestamp(timestamp).setCurrentLeaderEpoch(leaderEpoch))))));
    }

    static CreatableTopic topic(String name, int partitions, int replicas, String... configs) {
        CreatableTopic t = new CreatableTopic().setName(name).setNumPartitions(partitions).setReplicationFactor((short) replicas);
        for (int i = 0; i < configs.length; i += 2)
            t.configs().add(new CreatableTopicConfig().setName(configs[i]).setValue(configs[i + 1]));
        return t;
    }

    static CreatableTopic assigned(String name, int[]... nodes) {
        CreatableTopic t = topic(name, -1, -1);
        for (int[] n : nodes) {
            List<Integer> ids = new ArrayList<>();
            for (int i = 1; i < n.length; i++) ids.add(n[i]);
            t.assignments().add(new CreatableReplicaAssignment().setPartitionIndex(n[0]).setBrokerIds(ids));
        }
        return t;
    }

    static CreateTopicsRequestData create(boolean validate, CreatableTopic... topics) {
        CreateTopicsRequestData r = new CreateTopicsRequestData().setTimeoutMs(10000).setValidateOnly(validate);
        for (CreatableTopic t : topics) r.topics().mustAdd(t.duplicate());
        return r;
    }

    static void createCase(String name, Supplier<CreatableTopic[]> topics) throws Exception {
        show(name, ApiKeys.CREATE_TOPICS, 2, 7, v -> create(true, topics.get()));
    }

    static void metadataCase(String name, int from, int to, Function<Integer, List<MetadataRequestTopic>> topics) throws Exception {
        show(name, ApiKeys.METADATA, from, to, v -> {
            MetadataRequestData m = new MetadataRequestData().setTopics(topics.apply(v));
            if (v >= 4) m.setAllowAutoTopicCreation(false);
            return m;
        });
    }

    static MetadataRequestTopic named(String name) { return new MetadataRequestTopic().setName(name); }

    static DescribeConfigsRequestData describe(int type, String name, List<String> keys) {
        return new DescribeConfigsRequestData().setIncludeSynonyms(true).setResources(List.of(
            new DescribeConfigsResource().setResourceType((byte) type).setResourceName(name).setConfigurationKeys(keys)));
    }

    /** What a topic holds: each batch's type of timestamps and its newest one, and its records' timestamps. */
    static void stored(String name, String topic) throws Exception {
        ByteBuffer b = exchange(ApiKeys.FETCH, (short) 11, body(fetch(11, topic, 0, 0, p -> { }), (short) 11));
        FetchResponseData r = new FetchResponseData(new ByteBufferAccessor(b), (short) 11);
        ArrayNode batches = JsonNodeFactory.instance.arrayNode();
        for (RecordBatch batch : ((MemoryRecords) r.responses().get(0).partitions().get(0).records()).batches()) {
            ObjectNode o = batches.addObject().put("type", batch.timestampType().name).put("valid", batch.isValid());
            o.put("newest", batch.maxTimestamp() > TIME + 1000 ? "now" : "" + (batch.maxTimestamp() - TIME));
            ArrayNode records = o.putArray("records");
            for (org.apache.kafka.common.record.internal.Record one : batch)
                records.add(one.timestamp() > TIME + 1000 ? "now" : "" + (one.timestamp() - TIME));
        }
        System.out.println("Fetch 11-11 " + name + ": " + JsonNodeFactory.instance.objectNode().set("batches", batches));
    }

    /* ---- the cases ---- */

    static final String[] KEEP = {"retention.ms", "-1"}; /* Kafka would delete records of this age while we look */

    /** Makes topics, and waits until they lead and producer ids are to be had. */
    static void prepare(CreatableTopic... topics) throws Exception {
        Object made = call(ApiKeys.CREATE_TOPICS, 7, create(false, topics));
        for (JsonNode t : ((JsonNode) made).get("topics")) {
            if (t.get("errorCode").asInt() != 0) throw new IOException("cannot prepare: " + t);
            ids.put(t.get("name").asText(), Uuid.fromString(t.get("topicId").asText()));
        }
        for (int i = 0; i < 100; i++) { /* leaders may take a moment */
            JsonNode m = (JsonNode) call(ApiKeys.METADATA, 12, new MetadataRequestData().setTopics(null).setAllowAutoTopicCreation(false));
            boolean ready = m.get("topics").size() == ids.size();
            for (JsonNode t : m.get("topics"))
                for (JsonNode p : t.get("partitions")) {
                    ready &= p.get("leaderId").asInt() >= 0;
                    epoch = p.get("leaderEpoch").asInt();
                }
            if (ready) break;
            Thread.sleep(100);
        }
        for (int i = 0; i < 100; i++) { /* and so may the first block of producer ids */
            JsonNode p = (JsonNode) call(ApiKeys.INIT_PRODUCER_ID, 4, new InitProducerIdRequestData().setTransactionalId(null).setTransactionTimeoutMs(1000));
            if (p.get("errorCode").asInt() == 0) break;
            Thread.sleep(100);
        }
    }

    static void prepareData() throws Exception {
        prepare(topic("t", 2, 1, KEEP), topic("empty", 1, 1, KEEP), topic("data", 1, 1, KEEP),
            topic("compact", 1, 1, "cleanup.policy", "compact"), topic("stamped", 1, 1, "message.timestamp.type", "LogAppendTime"),
            topic("small", 1, 1, "max.message.bytes", "200"), topic("idem", 1, 1, KEEP), topic("plain", 1, 1), topic("bit", 1, 1, KEEP), topic("kept", 2, 1, KEEP),
            topic("segments", 1, 1, "segment.bytes", "1048576", "max.message.bytes", "2000000"), topic("strict", 1, 1, "min.insync.replicas", "2"));
        call(ApiKeys.PRODUCE, 9, produce(9, "data", 0, -1, batch(A, B)));
        call(ApiKeys.PRODUCE, 9, produce(9, "data", 0, -1, packed(CompressionType.GZIP, A, B, B)));
    }

    static void produceCases() throws Exception {
        produceCase("acks=all", "t", 0, -1, batch(A));
        produceCase("acks=1", "t", 0, 1, batch(A, B));
        show("acks=0", ApiKeys.PRODUCE, 9, 9, v -> produce(v, "t", 0, 0, batch(A)));
        show("acks=0 to an unknown topic", ApiKeys.PRODUCE, 9, 9, v -> produce(v, "nope", 0, 0, batch(A)));
        produceCase("acks=2", "t", 0, 2, batch(A));
        produceCase("acks=-2", "t", 0, -2, batch(A));
        produceCase("acks=2 to an unknown topic", "nope", 0, 2, batch(A));
        produceCase("unknown topic", "nope", 0, -1, batch(A));
        produceCase("unknown partition", "t", 9, -1, batch(A));
        produceCase("negative partition", "t", -1, -1, batch(A));
        produceCase("too few replicas", "strict", 0, -1, batch(A));
        produceCase("too few replicas, acks=1", "strict", 0, 1, batch(A));
        produceCase("no record data", "t", 0, -1, raw());
        produceCase("two batches", "t", 0, -1, raw(bytes(batch(A)), bytes(batch(B))));
        produceCase("a batch cut off", "t", 0, -1, raw(Arrays.copyOf(bytes(batch(A)), 40)));
        byte[] wrong = bytes(batch(A));
        wrong[wrong.length - 2] ^= 1;
        produceCase("a wrong checksum", "t", 0, -1, raw(wrong));
        produceCase("format 1", "t", 0, -1, old((byte) 1));
        produceCase("format 0", "t", 0, -1, old((byte) 0));
        produceCase("base offset 5", "t", 0, -1, changed(batch(A), b -> b.putLong(0, 5)));
        produceCase("count too large", "t", 0, -1, changed(batch(A), b -> b.putInt(57, 2)));
        produceCase("count and delta too large", "t", 0, -1, changed(batch(A), b -> b.putInt(57, 2).putInt(23, 1)));
        produceCase("count 0", "t", 0, -1, changed(batch(A), b -> b.putInt(57, 0)));
        produceCase("control batch", "t", 0, -1, changed(batch(A), b -> b.putShort(21, (short) 0x20)));
        produceCase("transactional batch without an id", "t", 0, -1, changed(batch(A), b -> b.putShort(21, (short) 0x10)));
        produceCase("append time set by the client", "t", 0, -1, changed(batch(A), b -> b.putShort(21, (short) 0x08)));
        appendTimeCase("two records", "bit", changed(batch(A, B), b -> b.putShort(21, (short) 0x08)));
        appendTimeCase("newest 500", "bit", changed(batch(A, B), b -> b.putShort(21, (short) 0x08).putLong(35, TIME + 500)));
        appendTimeCase("compressed", "bit", changed(packed(CompressionType.GZIP, A, B), b -> b.putShort(21, (short) 0x09)));
        appendTimeCase("compressed, newest 500", "bit", changed(packed(CompressionType.GZIP, A, B), b -> b.putShort(21, (short) 0x09).putLong(35, TIME + 500)));
        appendTimeCase("newest -1", "bit", changed(batch(A, B), b -> b.putShort(21, (short) 0x08).putLong(35, -1)));
        appendTimeCase("no timestamps", "bit", changed(batch(new SimpleRecord(-1, "k".getBytes(), "v".getBytes())), b -> b.putShort(21, (short) 0x08)));
        appendTimeCase("newest in the future", "bit", changed(batch(A, B), b -> b.putShort(21, (short) 0x08).putLong(35, Long.MAX_VALUE / 2)));
        appendTimeCase("records in the future", "bit", changed(batch(new SimpleRecord(Long.MAX_VALUE / 2, "k".getBytes(), "v".getBytes())), b -> b.putShort(21, (short) 0x08).putLong(35, TIME)));
        appendTimeCase("topic with append time", "stamped", changed(batch(A, B), b -> b.putShort(21, (short) 0x08)));
        appendTimeCase("compressed, topic with append time", "stamped", changed(packed(CompressionType.GZIP, A, B), b -> b.putShort(21, (short) 0x09)));
        appendTimeCase("newest -1, topic with append time", "stamped", changed(batch(A), b -> b.putShort(21, (short) 0x08).putLong(35, -1)));
        produceCase("newest wrong", "bit", 0, -1, changed(batch(A, B), b -> b.putLong(35, TIME + 500)));
        stored("what became of append times", "bit");
        stored("what became of append times in a topic with them", "stamped");
        produceCase("unknown codec", "t", 0, -1, changed(batch(A), b -> b.putShort(21, (short) 0x05)));
        produceCase("zstd", "t", 0, -1, packed(CompressionType.ZSTD, A, B));
        produceCase("lz4", "t", 0, -1, packed(CompressionType.LZ4, A, B));
        produceCase("compressed garbage", "t", 0, -1, changed(batch(A), b -> b.putShort(21, (short) 0x01)));
        produceCase("far in the future", "t", 0, -1, batch(new SimpleRecord(Long.MAX_VALUE / 2, "k".getBytes(), "v".getBytes())));
        produceCase("without a key, compacted", "compact", 0, -1, batch(new SimpleRecord(TIME, "v".getBytes())));
        produceCase("with a key, compacted", "compact", 0, -1, batch(A));
        produceCase("append time", "stamped", 0, -1, batch(A));
        produceCase("larger than a segment", "segments", 0, -1, batch(new SimpleRecord(TIME, null, new byte[1500000])));
        produceCase("too large", "small", 0, -1, batch(new SimpleRecord(TIME, null, new byte[300])));
        show("the same partition twice", ApiKeys.PRODUCE, 3, 12, v -> {
            ProduceRequestData r = produce(v, "t", 1, -1, batch(A));
            r.topicData().iterator().next().setPartitionData(List.of(new PartitionProduceData().setIndex(1).setRecords(batch(A)),
                new PartitionProduceData().setIndex(0).setRecords(batch(A, B))));
            return r;
        });
        show("no topics", ApiKeys.PRODUCE, 3, 13, v -> new ProduceRequestData().setAcks((short) -1).setTimeoutMs(100));
    }

    static void idempotenceCases() throws Exception {
        long p = 900000;
        exactOffsets = true;
        String t = "idem";
        show("first sequence 5", ApiKeys.PRODUCE, 9, 9, v -> produce(v, t, 0, -1, idempotent(p, 0, 5, A)));
        show("next sequence", ApiKeys.PRODUCE, 9, 9, v -> produce(v, t, 0, -1, idempotent(p, 0, 6, A, B)));
        show("the same again", ApiKeys.PRODUCE, 9, 9, v -> produce(v, t, 0, -1, idempotent(p, 0, 6, A, B)));
        show("the first again", ApiKeys.PRODUCE, 9, 9, v -> produce(v, t, 0, -1, idempotent(p, 0, 5, A)));
        show("a gap", ApiKeys.PRODUCE, 9, 9, v -> produce(v, t, 0, -1, idempotent(p, 0, 20, A)));
        show("a part of one again", ApiKeys.PRODUCE, 9, 9, v -> produce(v, t, 0, -1, idempotent(p, 0, 7, A)));
        show("after the gap", ApiKeys.PRODUCE, 9, 9, v -> produce(v, t, 0, -1, idempotent(p, 0, 8, A)));
        show("new epoch, sequence 3", ApiKeys.PRODUCE, 9, 9, v -> produce(v, t, 0, -1, idempotent(p, 1, 3, A)));
        show("new epoch, sequence 0", ApiKeys.PRODUCE, 9, 9, v -> produce(v, t, 0, -1, idempotent(p, 1, 0, A)));
        show("old epoch", ApiKeys.PRODUCE, 9, 9, v -> produce(v, t, 0, -1, idempotent(p, 0, 9, A)));
        for (int i = 1; i <= 6; i++) {
            int sequence = i;
            call(ApiKeys.PRODUCE, 9, produce(9, t, 0, -1, idempotent(p, 1, sequence, A)));
        }
        show("a duplicate five batches back", ApiKeys.PRODUCE, 9, 9, v -> produce(v, t, 0, -1, idempotent(p, 1, 2, A)));
        show("a duplicate six batches back", ApiKeys.PRODUCE, 9, 9, v -> produce(v, t, 0, -1, idempotent(p, 1, 1, A)));
        show("negative sequence", ApiKeys.PRODUCE, 9, 9, v -> produce(v, t, 0, -1, changed(idempotent(p, 2, 0, A), b -> b.putInt(53, -2))));
        show("sequence without a producer", ApiKeys.PRODUCE, 9, 9, v -> produce(v, t, 0, -1, changed(batch(A), b -> b.putInt(53, 3))));
        show("producer without an epoch", ApiKeys.PRODUCE, 9, 9, v -> produce(v, t, 0, -1, changed(idempotent(p, 0, 0, A), b -> b.putShort(51, (short) -1))));
        exactOffsets = false;
    }

    static void fetchCases() throws Exception {
        fetchCase("from the start", "data", 0, 0);
        fetchCase("in the middle of a batch", "data", 0, 3);
        fetchCase("at the end", "data", 0, 5);
        fetchCase("beyond the end", "data", 0, 6);
        fetchCase("offset -1", "data", 0, -1);
        fetchCase("offset -5", "data", 0, -5);
        fetchCase("empty", "empty", 0, 0);
        fetchCase("unknown topic", "nope", 0, 0);
        fetchCase("unknown partition", "data", 7, 0);
        show("one byte", ApiKeys.FETCH, 4, 18, v -> fetch(v, "data", 0, 0, p -> p.setPartitionMaxBytes(1)).setMaxBytes(1));
        show("no bytes", ApiKeys.FETCH, 4, 18, v -> fetch(v, "data", 0, 0, p -> p.setPartitionMaxBytes(0)).setMaxBytes(0));
        show("read committed", ApiKeys.FETCH, 4, 18, v -> fetch(v, "data", 0, 0, p -> { }).setIsolationLevel((byte) 1));
        show("unknown isolation", ApiKeys.FETCH, 4, 18, v -> fetch(v, "data", 0, 0, p -> { }).setIsolationLevel((byte) 7));
        show("current epoch", ApiKeys.FETCH, 9, 18, v -> fetch(v, "data", 0, 0, p -> p.setCurrentLeaderEpoch(epoch)));
        show("future epoch", ApiKeys.FETCH, 9, 18, v -> fetch(v, "data", 0, 0, p -> p.setCurrentLeaderEpoch(epoch + 5)));
        show("epoch -2", ApiKeys.FETCH, 9, 18, v -> fetch(v, "data", 0, 0, p -> p.setCurrentLeaderEpoch(-2)));
        show("unknown session", ApiKeys.FETCH, 7, 18, v -> fetch(v, "data", 0, 0, p -> { }).setSessionId(55).setSessionEpoch(3));
        show("session 0 with an epoch", ApiKeys.FETCH, 7, 18, v -> fetch(v, "data", 0, 0, p -> { }).setSessionId(0).setSessionEpoch(3));
        show("ends an unknown session", ApiKeys.FETCH, 7, 18, v -> fetch(v, "data", 0, 0, p -> { }).setSessionId(55).setSessionEpoch(-1));
        show("no topics", ApiKeys.FETCH, 4, 18, v -> new FetchRequestData().setMaxWaitMs(10));
    }

    /* ---- fetch sessions: one request after the other ---- */

    /** Partitions are written as TOPIC/NUMBER@OFFSET; those to be forgotten begin with a minus. */
    static FetchRequestData inSession(int v, int id, int sessionEpoch, String... partitions) {
        FetchRequestData r = new FetchRequestData().setMaxWaitMs(10).setMinBytes(0).setMaxBytes(1000000).setSessionId(id).setSessionEpoch(sessionEpoch);
        for (String one : partitions) {
            String[] words = one.split("[/@]");
            String topic = words[0].replaceFirst("^-", "");
            int number = Integer.parseInt(words[1]);
            if (one.startsWith("-")) {
                ForgottenTopic t = new ForgottenTopic().setPartitions(List.of(number));
                r.forgottenTopicsData().add(v >= 13 ? t.setTopicId(ids.getOrDefault(topic, UNKNOWN)) : t.setTopic(topic));
            } else {
                FetchTopic t = new FetchTopic().setPartitions(List.of(new FetchPartition().setPartition(number).setFetchOffset(Long.parseLong(words[2])).setPartitionMaxBytes(100000)));
                r.topics().add(v >= 13 ? t.setTopicId(ids.getOrDefault(topic, UNKNOWN)) : t.setTopic(topic));
            }
        }
        return r;
    }

    /** Shows the answer; gives back its session's id. */
    static int step(String name, int v, FetchRequestData r) throws Exception {
        Object answer = call(ApiKeys.FETCH, v, r);
        System.out.println("Fetch " + v + "-" + v + " session, " + name + ": " + (answer instanceof JsonNode n ? plain("", n) : answer));
        return answer instanceof JsonNode n ? n.get("sessionId").asInt() : 0;
    }

    static void cutRecords(long offset) throws Exception {
        call(ApiKeys.DELETE_RECORDS, 2, new DeleteRecordsRequestData().setTimeoutMs(5000).setTopics(List.of(new DeleteRecordsRequestData.DeleteRecordsTopic()
            .setName("kept").setPartitions(List.of(new DeleteRecordsRequestData.DeleteRecordsPartition().setPartitionIndex(0).setOffset(offset))))));
    }

    static long end = 0; /* of both partitions of "kept" */

    static void growKept() throws Exception {
        for (int p = 0; p < 2; p++) call(ApiKeys.PRODUCE, 9, produce(9, "kept", p, -1, batch(A)));
        end++;
    }

    static void sessionCases(int v) throws Exception {
        UNORDERED.add("partitions"); /* nobody promises an order within a session's answer */
        session = 0;
        session = step("begins", v, inSession(v, 0, 0, "data/0@5", "kept/0@" + end));
        step("nothing has changed", v, inSession(v, session, 1));
        step("the same epoch again", v, inSession(v, session, 1));
        step("an epoch too early", v, inSession(v, session, 3));
        step("one more partition", v, inSession(v, session, 2, "kept/1@" + end));
        growKept();
        step("new data", v, inSession(v, session, 3));
        step("the same data again", v, inSession(v, session, 4));
        step("read to the end", v, inSession(v, session, 5, "kept/0@" + end, "kept/1@" + end));
        step("what does not exist", v, inSession(v, session, 6, "nope/0@0", "data/7@0"));
        step("and still does not", v, inSession(v, session, 7));
        step("forgotten", v, inSession(v, session, 8, "-nope/0", "-data/7"));
        step("forgotten twice", v, inSession(v, session, 9, "-nope/0", "-empty/0"));
        step("one goes back", v, inSession(v, session, 10, "kept/1@0"));
        step("all go back", v, inSession(v, session, 11, "kept/0@0", "data/0@0"));
        step("out of range", v, inSession(v, session, 12, "data/0@9", "kept/1@" + end, "kept/0@" + end));
        step("in range again", v, inSession(v, session, 13, "data/0@5"));
        cutRecords(end);
        step("a cut", v, inSession(v, session, 14));
        step("named and forgotten at once", v, inSession(v, session, 15, "data/0@0", "-data/0", "empty/0@0", "-empty/0"));
        step("forgotten, and named again", v, inSession(v, session, 16, "data/0@5"));
        int other = v >= 13 ? 12 : 13;
        step("in version " + other, other, inSession(other, session, 17));
        step("still there", v, inSession(v, session, 17));
        step("a bad isolation level", v, inSession(v, session, 18, "data/0@0").setIsolationLevel((byte) 7));
        step("a negative epoch", v, inSession(v, session, -2));
        int old = session;
        session = step("anew", v, inSession(v, session, 0, "data/0@5"));
        step("the old one", v, inSession(v, old, 18));
        step("empties itself", v, inSession(v, session, 1, "-data/0"));
        step("after that", v, inSession(v, session, 2));
        session = 0;
        session = step("without a partition", v, inSession(v, 0, 0));
        step("its first partition", v, inSession(v, session, 1, "data/0@5"));
        session = step("ends with a fetch", v, inSession(v, session, -1, "data/0@5"));
        session = 0;
        session = step("of what does not exist", v, inSession(v, 0, 0, "nope/0@0"));
        step("of what still does not", v, inSession(v, session, 1));
        session = 0;
        session = step("one partition twice", v, inSession(v, 0, 0, "data/0@5", "data/0@0"));
        step("and once", v, inSession(v, session, 1));
        UNORDERED.remove("partitions");
    }

    /** Waits until a topic can be read (true), or is not there (false). */
    static void awaitTopic(String name, boolean there) throws Exception {
        for (int i = 0; i < 300; i++) {
            JsonNode a = (JsonNode) call(ApiKeys.FETCH, 12, fetch(12, name, 0, 0, p -> { }));
            if (a.get("responses").get(0).get("partitions").get(0).get("errorCode").asInt() == (there ? 0 : 3)) return;
            Thread.sleep(50);
        }
        throw new IOException(name + " is " + (there ? "not" : "still") + " there");
    }

    /** A topic goes, and another one of its name comes, while a session reads it. */
    static void remadeCases(int v) throws Exception {
        JsonNode made = (JsonNode) call(ApiKeys.CREATE_TOPICS, 7, create(false, topic("remade", 1, 1)));
        ids.put("remade", Uuid.fromString(made.get("topics").get(0).get("topicId").asText()));
        awaitTopic("remade", true);
        session = 0;
        session = step("of a topic that goes", v, inSession(v, 0, 0, "remade/0@0"));
        call(ApiKeys.DELETE_TOPICS, 5, new DeleteTopicsRequestData().setTimeoutMs(10000).setTopicNames(List.of("remade")));
        awaitTopic("remade", false);
        step("the topic is gone", v, inSession(v, session, 1));
        call(ApiKeys.CREATE_TOPICS, 7, create(false, topic("remade", 1, 1)));
        awaitTopic("remade", true);
        step("another one has its name", v, inSession(v, session, 2));
        step("it is not read", v, inSession(v, session, 3));
        call(ApiKeys.DELETE_TOPICS, 5, new DeleteTopicsRequestData().setTimeoutMs(10000).setTopicNames(List.of("remade")));
        awaitTopic("remade", false);
        ids.remove("remade");
    }

    static void offsetCases() throws Exception {
        for (long t : new long[] {-1, -2, -3, -4, -5, -6, -7, 0, TIME, TIME + 1, TIME + 2}) offsets("timestamp " + (t - (t > 7 ? TIME : 0)) + (t > 7 ? "+" : ""), "data", 0, t, -1);
        for (long t : new long[] {-1, -2, -3, 0}) offsets("empty, timestamp " + t, "empty", 0, t, -1);
        offsets("unknown topic", "nope", 0, -1, -1);
        offsets("unknown partition", "data", 3, -1, -1);
        show("current epoch", ApiKeys.LIST_OFFSETS, 4, 11, v -> new ListOffsetsRequestData().setReplicaId(-1).setTopics(List.of(new ListOffsetsTopic()
            .setName("data").setPartitions(List.of(new ListOffsetsPartition().setTimestamp(-1).setCurrentLeaderEpoch(epoch))))));
        show("future epoch", ApiKeys.LIST_OFFSETS, 4, 11, v -> new ListOffsetsRequestData().setReplicaId(-1).setTopics(List.of(new ListOffsetsTopic()
            .setName("data").setPartitions(List.of(new ListOffsetsPartition().setTimestamp(-1).setCurrentLeaderEpoch(epoch + 5))))));
        show("epoch -2", ApiKeys.LIST_OFFSETS, 4, 11, v -> new ListOffsetsRequestData().setReplicaId(-1).setTopics(List.of(new ListOffsetsTopic()
            .setName("data").setPartitions(List.of(new ListOffsetsPartition().setTimestamp(-1).setCurrentLeaderEpoch(-2))))));
        show("twice", ApiKeys.LIST_OFFSETS, 1, 11, v -> new ListOffsetsRequestData().setReplicaId(-1).setTopics(List.of(new ListOffsetsTopic()
            .setName("data").setPartitions(List.of(new ListOffsetsPartition().setTimestamp(-1), new ListOffsetsPartition().setTimestamp(-2))))));
        show("nothing", ApiKeys.LIST_OFFSETS, 1, 11, v -> new ListOffsetsRequestData().setReplicaId(-1));
        show("read committed", ApiKeys.LIST_OFFSETS, 2, 11, v -> new ListOffsetsRequestData().setReplicaId(-1).setIsolationLevel((byte) 1).setTopics(List.of(new ListOffsetsTopic()
            .setName("data").setPartitions(List.of(new ListOffsetsPartition().setTimestamp(-1))))));
    }

    static void metadataCases() throws Exception {
        metadataCase("all", 1, 13, v -> null);
        metadataCase("none", 1, 13, v -> List.of());
        metadataCase("one", 0, 13, v -> List.of(named("t")));
        metadataCase("twice", 0, 13, v -> List.of(named("t"), named("t")));
        metadataCase("unknown", 4, 13, v -> List.of(named("nope")));
        for (String bad : new String[] {"", ".", "..", "a/b", "x".repeat(250), "é"})
            metadataCase("name '" + (bad.length() > 9 ? "long" : bad) + "'", 4, 13, v -> List.of(named(bad)));
        metadataCase("by id", 12, 13, v -> List.of(new MetadataRequestTopic().setName(null).setTopicId(ids.get("t"))));
        metadataCase("by id, too early", 10, 11, v -> List.of(named("").setTopicId(ids.get("t"))));
        metadataCase("by unknown id", 12, 13, v -> List.of(new MetadataRequestTopic().setName(null).setTopicId(UNKNOWN)));
        metadataCase("by name and unknown id", 12, 13, v -> List.of(named("t").setTopicId(UNKNOWN)));
        metadataCase("null name", 12, 13, v -> List.of(new MetadataRequestTopic().setName(null)));
        show("authorised operations", ApiKeys.METADATA, 8, 13, v -> {
            MetadataRequestData m = new MetadataRequestData().setTopics(List.of(named("t"))).setAllowAutoTopicCreation(false).setIncludeTopicAuthorizedOperations(true);
            return v <= 10 ? m.setIncludeClusterAuthorizedOperations(true) : m;
        });
    }

    static void topicCases() throws Exception {
        createCase("good", () -> new CreatableTopic[] {topic("n1", 3, 1)});
        createCase("defaults", () -> new CreatableTopic[] {topic("n1", -1, -1)});
        createCase("exists", () -> new CreatableTopic[] {topic("t", 1, 1)});
        createCase("twice", () -> new CreatableTopic[] {topic("n1", 1, 1), topic("n1", 2, 1), topic("n2", 1, 1)});
        createCase("no partitions", () -> new CreatableTopic[] {topic("n1", 0, 1)});
        createCase("-2 partitions", () -> new CreatableTopic[] {topic("n1", -2, 1)});
        createCase("no replicas", () -> new CreatableTopic[] {topic("n1", 1, 0)});
        createCase("two replicas", () -> new CreatableTopic[] {topic("n1", 1, 2)});
        for (String bad : new String[] {"", ".", "..", "a/b", "x".repeat(250)})
            createCase("name '" + (bad.length() > 9 ? "long" : bad) + "'", () -> new CreatableTopic[] {topic(bad, 1, 1)});
        createCase("colliding name", () -> new CreatableTopic[] {topic("n.1", 1, 1), topic("n_1", 1, 1)});
        show("colliding names, made", ApiKeys.CREATE_TOPICS, 4, 4, v -> create(false, topic("m.1_", 1, 1), topic("m_1.", 1, 1), topic("m.1.", 1, 1), topic("m_1-", 1, 1)));
        show("colliding with what is there", ApiKeys.CREATE_TOPICS, 4, 4, v -> create(false, topic("m_1_", 1, 1), topic("m.1_", 1, 1), topic("m.1-", 1, 1)));
        show("colliding names, taken away", ApiKeys.DELETE_TOPICS, 4, 4, v -> new DeleteTopicsRequestData().setTimeoutMs(10000)
            .setTopicNames(List.of("m.1_", "m_1.", "m.1.", "m_1-", "m_1_", "m.1-")));
        createCase("20000 partitions", () -> new CreatableTopic[] {topic("n1", 20000, 1)});
        createCase("20000 partitions in all", () -> new CreatableTopic[] {topic("n1", 8000, 1), topic("n2", 8000, 1), topic("n3", 4000, 1), topic("a/b", 1, 1)});
        for (int ms : new int[] {0, -1}) {
            show("no time, " + ms, ApiKeys.CREATE_TOPICS, 2, 7, v -> create(true, topic("n1", 1, 1), topic("t", 1, 1), topic("a/b", 1, 1)).setTimeoutMs(ms));
            show("no time, " + ms, ApiKeys.DELETE_TOPICS, 1, 5, v -> new DeleteTopicsRequestData().setTimeoutMs(ms).setTopicNames(List.of("t", "nope")));
            show("no time, " + ms, ApiKeys.DELETE_TOPICS, 6, 6, v -> new DeleteTopicsRequestData().setTimeoutMs(ms).setTopics(List.of(
                new DeleteTopicState().setName("t"), new DeleteTopicState().setName(null).setTopicId(UNKNOWN))));
        }
        createCase("unknown option", () -> new CreatableTopic[] {topic("n1", 1, 1, "no.such.thing", "1")});
        createCase("bad value", () -> new CreatableTopic[] {topic("n1", 1, 1, "retention.ms", "abc")});
        createCase("value out of range", () -> new CreatableTopic[] {topic("n1", 1, 1, "min.insync.replicas", "0")});
        createCase("null value", () -> new CreatableTopic[] {topic("n1", 1, 1, "retention.ms", null)});
        createCase("bad choice", () -> new CreatableTopic[] {topic("n1", 1, 1, "compression.type", "rar")});
        createCase("assigned", () -> new CreatableTopic[] {assigned("n1", new int[] {0, 1}, new int[] {1, 1})});
        createCase("assigned to an unknown broker", () -> new CreatableTopic[] {assigned("n1", new int[] {0, 9})});
        createCase("assigned twice to one broker", () -> new CreatableTopic[] {assigned("n1", new int[] {0, 1, 1})});
        createCase("assigned with a gap", () -> new CreatableTopic[] {assigned("n1", new int[] {0, 1}, new int[] {2, 1})});
        createCase("assigned to nobody", () -> new CreatableTopic[] {assigned("n1", new int[] {0})});
        createCase("assigned, and a count", () -> new CreatableTopic[] {assigned("n1", new int[] {0, 1}).setNumPartitions(3)});
        createCase("nothing", () -> new CreatableTopic[0]);
        createCase("the metadata's name", () -> new CreatableTopic[] {topic("__cluster_metadata", 1, 1)});
        show("by name", ApiKeys.DELETE_TOPICS, 1, 5, v -> new DeleteTopicsRequestData().setTimeoutMs(5000).setTopicNames(List.of("nope", "a/b", "nope2", "nope2")));
        show("by name and id", ApiKeys.DELETE_TOPICS, 6, 6, v -> new DeleteTopicsRequestData().setTimeoutMs(5000).setTopics(List.of(
            new DeleteTopicState().setName("nope"), new DeleteTopicState().setName(null).setTopicId(UNKNOWN), new DeleteTopicState().setName(null),
            new DeleteTopicState().setName("t").setTopicId(ids.get("t")))));
        show("the same id twice", ApiKeys.DELETE_TOPICS, 6, 6, v -> new DeleteTopicsRequestData().setTimeoutMs(5000).setTopics(List.of(
            new DeleteTopicState().setName(null).setTopicId(ids.get("t")), new DeleteTopicState().setName(null).setTopicId(ids.get("t")))));
        show("nothing", ApiKeys.DELETE_TOPICS, 1, 6, v -> new DeleteTopicsRequestData().setTimeoutMs(5000));
        show("gone", ApiKeys.DELETE_TOPICS, 6, 6, v -> new DeleteTopicsRequestData().setTimeoutMs(5000).setTopics(List.of(new DeleteTopicState().setName(null).setTopicId(ids.get("small")))));
    }

    static void otherCases() throws Exception {
        List<String> keys = List.of("cleanup.policy", "max.message.bytes", "retention.ms", "no.such.option");
        for (String name : new String[] {"plain", "compact", "nope", "a/b", ""})
            show("topic '" + name + "'", ApiKeys.DESCRIBE_CONFIGS, 1, 4, v -> describe(2, name, keys));
        show("all options of a topic", ApiKeys.DESCRIBE_CONFIGS, 4, 4, v -> describe(2, "compact", null));
        show("an empty list of options", ApiKeys.DESCRIBE_CONFIGS, 4, 4, v -> describe(2, "plain", List.of()));
        for (String name : new String[] {"1", "2", "x", ""})
            show("broker '" + name + "'", ApiKeys.DESCRIBE_CONFIGS, 1, 4, v -> describe(4, name, List.of("num.partitions", "auto.create.topics.enable", "log.retention.ms")));
        show("unknown kind", ApiKeys.DESCRIBE_CONFIGS, 1, 4, v -> describe(3, "x", null));
        show("nothing", ApiKeys.DESCRIBE_CONFIGS, 1, 4, v -> new DescribeConfigsRequestData());
        show("plain", ApiKeys.DESCRIBE_CLUSTER, 0, 2, v -> new DescribeClusterRequestData());
        show("authorised operations", ApiKeys.DESCRIBE_CLUSTER, 0, 2, v -> new DescribeClusterRequestData().setIncludeClusterAuthorizedOperations(true));
        show("controllers", ApiKeys.DESCRIBE_CLUSTER, 1, 2, v -> new DescribeClusterRequestData().setEndpointType((byte) 2));
        show("unknown endpoints", ApiKeys.DESCRIBE_CLUSTER, 1, 2, v -> new DescribeClusterRequestData().setEndpointType((byte) 9));
        show("idempotent", ApiKeys.INIT_PRODUCER_ID, 0, 5, v -> new InitProducerIdRequestData().setTransactionalId(null).setTransactionTimeoutMs(1000));
        show("with an id", ApiKeys.INIT_PRODUCER_ID, 3, 5, v -> new InitProducerIdRequestData().setTransactionalId(null).setTransactionTimeoutMs(1000).setProducerId(5).setProducerEpoch((short) 2));
        show("id without an epoch", ApiKeys.INIT_PRODUCER_ID, 3, 5, v -> new InitProducerIdRequestData().setTransactionalId(null).setTransactionTimeoutMs(1000).setProducerId(5));
        show("empty transactional id", ApiKeys.INIT_PRODUCER_ID, 0, 5, v -> new InitProducerIdRequestData().setTransactionalId("").setTransactionTimeoutMs(1000));
        show("unstable version", ApiKeys.INIT_PRODUCER_ID, 6, 6, v -> new InitProducerIdRequestData().setTransactionalId(null).setTransactionTimeoutMs(1000));
        show("bad name", ApiKeys.API_VERSIONS, 3, 4, v -> new ApiVersionsRequestData().setClientSoftwareName("-x").setClientSoftwareVersion("1"));
        show("empty name", ApiKeys.API_VERSIONS, 3, 4, v -> new ApiVersionsRequestData());
        ByteBuffer b = exchange(ApiKeys.API_VERSIONS, (short) 9, body(new ApiVersionsRequestData(), (short) 4));
        System.out.println("ApiVersions 9-9 a version to come: " + (b == null ? "closed" : plain("", json(ApiKeys.API_VERSIONS, (short) 0, b))));
        b = exchange(ApiKeys.API_VERSIONS, (short) 3, new byte[0]);
        System.out.println("ApiVersions 3-3 no body: " + (b == null ? "closed" : "answered"));
        b = exchange(ApiKeys.METADATA, (short) 9, new byte[] {5});
        System.out.println("Metadata 9-9 cut off: " + (b == null ? "closed" : "answered"));
        b = exchange(ApiKeys.METADATA, (short) 9, new byte[] {1, 0, 0, 0, 0, 1, 2, 3});
        System.out.println("Metadata 9-9 bytes left over: " + (b == null ? "closed" : "answered"));
    }

    public static void main(String[] args) throws Exception {
        begin(args);
        prepareData();
        metadataCases();
        produceCases();
        idempotenceCases();
        fetchCases();
        for (int v : new int[] {7, 12, 13, 18}) sessionCases(v);
        for (int v : new int[] {12, 13, 18}) remadeCases(v);
        offsetCases();
        topicCases();
        otherCases();
    }
}
