/* What administrators' tools and consumers ask beside the data: epochs, partitions, configurations, log directories,
 * producers, the quorum, elections, features. Apache Kafka 4.3's answers are kafka-admin.txt.
 *
 *   java -cp KAFKA-JARS:CLASSES Admin HOST:PORT          on a broker that has just been started on an empty directory */
import com.fasterxml.jackson.databind.JsonNode;
import java.io.IOException;
import java.util.*;
import java.util.function.*;
import org.apache.kafka.common.Uuid;
import org.apache.kafka.common.message.*;
import org.apache.kafka.common.message.CreatePartitionsRequestData.*;
import org.apache.kafka.common.message.DescribeTopicPartitionsRequestData.Cursor;
import org.apache.kafka.common.message.MetadataRequestData.MetadataRequestTopic;
import org.apache.kafka.common.message.OffsetForLeaderEpochRequestData.*;
import org.apache.kafka.common.message.UpdateFeaturesRequestData.*;
import org.apache.kafka.common.protocol.*;
import org.apache.kafka.common.record.internal.SimpleRecord;

class Admin extends Diff {
    /* ---- epochs ---- */

    static void epoch(String name, String topic, int partition, IntSupplier asked, IntSupplier current, int replica) throws Exception {
        show(name, ApiKeys.OFFSET_FOR_LEADER_EPOCH, 2, 4, v -> {
            OffsetForLeaderTopic t = new OffsetForLeaderTopic().setTopic(topic).setPartitions(List.of(new OffsetForLeaderPartition()
                .setPartition(partition).setLeaderEpoch(asked.getAsInt()).setCurrentLeaderEpoch(current.getAsInt())));
            OffsetForLeaderEpochRequestData r = new OffsetForLeaderEpochRequestData();
            if (v >= 3) r.setReplicaId(replica);
            r.topics().add(t);
            return r;
        });
    }

    static void epochCases() throws Exception {
        epoch("the newest", "one", 0, () -> epoch, () -> -1, -1);
        epoch("the newest, the client knows", "one", 0, () -> epoch, () -> epoch, -1);
        epoch("the newest of an empty partition", "two", 1, () -> epoch, () -> -1, -1);
        epoch("one to come", "one", 0, () -> epoch + 3, () -> -1, -1);
        epoch("none", "one", 0, () -> -1, () -> -1, -1);
        epoch("negative", "one", 0, () -> -7, () -> -1, -1);
        epoch("the client is ahead", "one", 0, () -> epoch, () -> epoch + 1, -1);
        epoch("the client says -2", "one", 0, () -> epoch, () -> -2, -1);
        epoch("debugging replica", "one", 0, () -> epoch, () -> -1, -2);
        epoch("unknown topic", "nope", 0, () -> epoch, () -> -1, -1);
        epoch("bad name", "a/b", 0, () -> epoch, () -> -1, -1);
        epoch("unknown partition", "one", 4, () -> epoch, () -> -1, -1);
        epoch("negative partition", "one", -1, () -> epoch, () -> -1, -1);
        show("nothing", ApiKeys.OFFSET_FOR_LEADER_EPOCH, 2, 4, v -> new OffsetForLeaderEpochRequestData());
        show("two partitions", ApiKeys.OFFSET_FOR_LEADER_EPOCH, 4, 4, v -> {
            OffsetForLeaderTopic t = new OffsetForLeaderTopic().setTopic("two").setPartitions(List.of(
                new OffsetForLeaderPartition().setPartition(0).setLeaderEpoch(epoch), new OffsetForLeaderPartition().setPartition(1).setLeaderEpoch(epoch)));
            OffsetForLeaderEpochRequestData r = new OffsetForLeaderEpochRequestData();
            r.topics().add(t);
            return r;
        });
    }

    /* ---- partitions ---- */

    static CreatePartitionsTopic grow(String name, int count, int[]... nodes) {
        CreatePartitionsTopic t = new CreatePartitionsTopic().setName(name).setCount(count).setAssignments(nodes.length == 0 ? null : new ArrayList<>());
        for (int[] n : nodes) {
            List<Integer> ids = new ArrayList<>();
            for (int id : n) ids.add(id);
            t.assignments().add(new CreatePartitionsAssignment().setBrokerIds(ids));
        }
        return t;
    }

    static void growCase(String name, int from, boolean validate, Supplier<CreatePartitionsTopic[]> topics) throws Exception {
        show(name, ApiKeys.CREATE_PARTITIONS, from, 3, v -> {
            CreatePartitionsRequestData r = new CreatePartitionsRequestData().setTimeoutMs(10000).setValidateOnly(validate);
            for (CreatePartitionsTopic t : topics.get()) r.topics().add(t);
            return r;
        });
    }

    static void partitionCases() throws Exception {
        growCase("checked only", 0, true, () -> new CreatePartitionsTopic[] {grow("one", 3)});
        growCase("as many as there are", 0, true, () -> new CreatePartitionsTopic[] {grow("one", 1)});
        growCase("fewer", 0, true, () -> new CreatePartitionsTopic[] {grow("two", 1)});
        growCase("none", 0, true, () -> new CreatePartitionsTopic[] {grow("one", 0)});
        growCase("-1", 0, true, () -> new CreatePartitionsTopic[] {grow("one", -1)});
        growCase("unknown topic", 0, true, () -> new CreatePartitionsTopic[] {grow("nope", 3)});
        growCase("bad name", 0, true, () -> new CreatePartitionsTopic[] {grow("a/b", 3)});
        growCase("empty name", 0, true, () -> new CreatePartitionsTopic[] {grow("", 3)});
        growCase("twice", 0, true, () -> new CreatePartitionsTopic[] {grow("one", 3), grow("one", 4), grow("two", 3)});
        growCase("a good one and a bad one", 0, true, () -> new CreatePartitionsTopic[] {grow("one", 3), grow("nope", 3)});
        growCase("assigned", 0, true, () -> new CreatePartitionsTopic[] {grow("one", 3, new int[] {1}, new int[] {1})});
        growCase("assigned too few", 0, true, () -> new CreatePartitionsTopic[] {grow("one", 3, new int[] {1})});
        growCase("assigned too many", 0, true, () -> new CreatePartitionsTopic[] {grow("one", 2, new int[] {1}, new int[] {1})});
        growCase("assigned to an unknown broker", 0, true, () -> new CreatePartitionsTopic[] {grow("one", 2, new int[] {9})});
        growCase("assigned twice to one broker", 0, true, () -> new CreatePartitionsTopic[] {grow("one", 2, new int[] {1, 1})});
        growCase("assigned to two brokers", 0, true, () -> new CreatePartitionsTopic[] {grow("one", 2, new int[] {1, 2})});
        growCase("assigned to nobody", 0, true, () -> new CreatePartitionsTopic[] {grow("one", 2, new int[] {})});
        growCase("too many", 0, true, () -> new CreatePartitionsTopic[] {grow("one", 20000)});
        for (int ms : new int[] {0, -1})
            show("no time, " + ms, ApiKeys.CREATE_PARTITIONS, 0, 3, v -> {
                CreatePartitionsRequestData r = new CreatePartitionsRequestData().setTimeoutMs(ms).setValidateOnly(true);
                for (CreatePartitionsTopic t : List.of(grow("one", 3), grow("nope", 3), grow("two", 1))) r.topics().add(t);
                return r;
            });
        growCase("nothing", 0, true, () -> new CreatePartitionsTopic[0]);
        growCase("made", 3, false, () -> new CreatePartitionsTopic[] {grow("grows", 3), grow("nope", 2)});
        growCase("made again", 3, false, () -> new CreatePartitionsTopic[] {grow("grows", 3)});
        leaders("grows", 3);
        metadataCase("more partitions", 12, 12, v -> List.of(named("grows")));
        produceCase("to a new partition", "grows", 2, -1, batch(A));
        produceCase("beyond the new partitions", "grows", 3, -1, batch(A));
        call(ApiKeys.PRODUCE, 9, produce(9, "grows", 1, -1, batch(A)));
        show("from a new partition", ApiKeys.FETCH, 12, 13, v -> fetch(v, "grows", 1, 1, p -> { }).setMaxBytes(1));
        offsets("the first record of a new partition", "grows", 1, TIME, -1);
        growCase("assigned, made", 3, false, () -> new CreatePartitionsTopic[] {grow("grows", 4, new int[] {1})});
        leaders("grows", 4);
        metadataCase("still more partitions", 12, 12, v -> List.of(named("grows")));
    }

    /* ---- deleting records ---- */

    static void cut(String name, String topic, int partition, long offset) throws Exception {
        show(name, ApiKeys.DELETE_RECORDS, 0, 2, v -> new DeleteRecordsRequestData().setTimeoutMs(10000).setTopics(List.of(
            new DeleteRecordsRequestData.DeleteRecordsTopic().setName(topic).setPartitions(List.of(
                new DeleteRecordsRequestData.DeleteRecordsPartition().setPartitionIndex(partition).setOffset(offset))))));
    }

    static SimpleRecord at(long time) { return new SimpleRecord(TIME + time, "k".getBytes(), "v".getBytes()); }

    static void cutCases() throws Exception {
        call(ApiKeys.PRODUCE, 9, produce(9, "cut", 0, -1, batch(at(500), at(900))));
        call(ApiKeys.PRODUCE, 9, produce(9, "cut", 0, -1, batch(at(300), at(400))));
        call(ApiKeys.PRODUCE, 9, produce(9, "cut", 0, -1, batch(at(600), at(100))));
        cut("nothing to delete", "cut", 0, 0);
        cut("beyond the end", "cut", 0, 7);
        cut("negative", "cut", 0, -2);
        cut("unknown topic", "nope", 0, 0);
        cut("bad name", "a/b", 0, 0);
        cut("unknown partition", "cut", 3, 0);
        cut("negative partition", "cut", -1, 0);
        cut("compacted", "keyed", 0, 0);
        cut("in a batch", "cut", 0, 1);
        fetchCase("below the start", "cut", 0, 0);
        show("at the start", ApiKeys.FETCH, 12, 12, v -> fetch(v, "cut", 0, 1, p -> { }).setMaxBytes(1));
        cut("to a batch", "cut", 0, 2);
        cut("back", "cut", 0, 1);
        fetchCase("below the new start", "cut", 0, 1);
        for (long t : new long[] {-1, -2, -3, -4, TIME, TIME + 350, TIME + 700}) offsets("cut, timestamp " + (t < 0 ? "" + t : "+" + (t - TIME)), "cut", 0, t, -1);
        epoch("an epoch before all, cut", "cut", 0, () -> -7, () -> -1, -1);
        epoch("the newest, cut", "cut", 0, () -> epoch, () -> -1, -1);
        show("after a cut", ApiKeys.PRODUCE, 9, 9, v -> produce(v, "cut", 0, -1, batch(at(50))));
        cut("all", "cut", 0, -1);
        cut("all again", "cut", 0, -1);
        for (long t : new long[] {-1, -2, -3, TIME}) offsets("all cut, timestamp " + (t < 0 ? "" + t : "+0"), "cut", 0, t, -1);
        show("all cut", ApiKeys.FETCH, 12, 12, v -> fetch(v, "cut", 0, 7, p -> { }));
        show("after all is cut", ApiKeys.PRODUCE, 9, 9, v -> produce(v, "cut", 0, -1, batch(at(60))));
        show("the first one after all was cut", ApiKeys.FETCH, 12, 12, v -> fetch(v, "cut", 0, 7, p -> { }).setMaxBytes(1));
        show("nothing", ApiKeys.DELETE_RECORDS, 0, 2, v -> new DeleteRecordsRequestData().setTimeoutMs(1000));
        show("no partitions", ApiKeys.DELETE_RECORDS, 0, 2, v -> new DeleteRecordsRequestData().setTimeoutMs(1000).setTopics(List.of(
            new DeleteRecordsRequestData.DeleteRecordsTopic().setName("cut"))));
    }

    static void leaders(String topic, int partitions) throws Exception {
        for (int i = 0; i < 100; i++) {
            JsonNode m = (JsonNode) call(ApiKeys.METADATA, 12, new MetadataRequestData().setTopics(List.of(named(topic))).setAllowAutoTopicCreation(false));
            boolean ready = m.get("topics").get(0).get("partitions").size() == partitions;
            for (JsonNode p : m.get("topics").get(0).get("partitions")) ready &= p.get("leaderId").asInt() >= 0;
            for (int p = 1; ready && p < partitions; p++) /* the broker may hear of it later than the controller */
                ready = ((JsonNode) call(ApiKeys.PRODUCE, 9, produce(9, topic, p, -1, batch(A)))).get("responses").get(0).get("partitionResponses").get(0).get("errorCode").asInt() == 0;
            if (ready) return;
            Thread.sleep(100);
        }
        throw new IOException(topic + " has no leaders");
    }

    /* ---- describing topics in pages ---- */

    static void pages(String name, List<String> topics, int limit, Cursor cursor) throws Exception {
        show(name, ApiKeys.DESCRIBE_TOPIC_PARTITIONS, 0, 0, v -> new DescribeTopicPartitionsRequestData().setResponsePartitionLimit(limit).setCursor(cursor)
            .setTopics(topics.stream().map(t -> new DescribeTopicPartitionsRequestData.TopicRequest().setName(t)).toList()));
    }

    static Cursor cursor(String topic, int partition) { return new Cursor().setTopicName(topic).setPartitionIndex(partition); }

    static void pageCases() throws Exception {
        pages("one", List.of("one"), 2000, null);
        pages("two and unknown", List.of("two", "nope", "one"), 2000, null);
        pages("twice", List.of("one", "one"), 2000, null);
        pages("bad name", List.of("a/b"), 2000, null);
        pages("empty name", List.of(""), 2000, null);
        pages("all", List.of(), 2000, null);
        pages("one partition a page", List.of("one", "two"), 1, null);
        pages("two partitions a page", List.of("one", "two"), 2, null);
        pages("three partitions a page", List.of("one", "two"), 3, null);
        pages("a page within a topic", List.of("two"), 1, null);
        pages("all, two a page", List.of(), 2, null);
        pages("unknown at the end of a page", List.of("two", "zzz"), 2, null);
        pages("no partitions a page", List.of("one", "two"), 0, null);
        pages("-1 partitions a page", List.of("one", "two"), -1, null);
        pages("more than the limit a page", List.of("one"), 100000, null);
        pages("from the second partition", List.of("one", "two"), 2000, cursor("two", 1));
        pages("from a topic", List.of("one", "two"), 2000, cursor("two", 0));
        pages("all, from a topic", List.of(), 2000, cursor("two", 0));
        pages("from beyond a topic", List.of("two"), 2000, cursor("two", 9));
        pages("from a negative partition", List.of("two"), 2000, cursor("two", -1));
        pages("from a topic that was not named", List.of("two"), 2000, cursor("one", 0));
        pages("from a topic that is not there", List.of("two", "nope"), 2000, cursor("nope", 0));
        pages("all, from a topic that is not there", List.of(), 2000, cursor("p", 3));
        pages("from after all", List.of("one", "two"), 2000, cursor("zzz", 0));
    }

    /* ---- configurations ---- */

    static final byte SET = 0, DELETE = 1, APPEND = 2, SUBTRACT = 3;

    record Change(String name, int op, String value) { }

    static Change set(String name, String value) { return new Change(name, SET, value); }

    static IncrementalAlterConfigsRequestData.AlterConfigsResource incremental(int type, String name, Change... changes) {
        var r = new IncrementalAlterConfigsRequestData.AlterConfigsResource().setResourceType((byte) type).setResourceName(name);
        for (Change c : changes)
            r.configs().add(new IncrementalAlterConfigsRequestData.AlterableConfig().setName(c.name).setConfigOperation((byte) c.op).setValue(c.value));
        return r;
    }

    static void incrementalCase(String name, boolean validate, Supplier<IncrementalAlterConfigsRequestData.AlterConfigsResource[]> resources) throws Exception {
        show(name, ApiKeys.INCREMENTAL_ALTER_CONFIGS, 0, 1, v -> {
            IncrementalAlterConfigsRequestData r = new IncrementalAlterConfigsRequestData().setValidateOnly(validate);
            for (var one : resources.get()) r.resources().add(one);
            return r;
        });
    }

    static void change(String name, int type, String resource, Change... changes) throws Exception {
        incrementalCase(name, false, () -> new IncrementalAlterConfigsRequestData.AlterConfigsResource[] {incremental(type, resource, changes)});
    }

    static AlterConfigsRequestData.AlterConfigsResource whole(int type, String name, Change... changes) {
        var r = new AlterConfigsRequestData.AlterConfigsResource().setResourceType((byte) type).setResourceName(name);
        for (Change c : changes) r.configs().add(new AlterConfigsRequestData.AlterableConfig().setName(c.name).setValue(c.value));
        return r;
    }

    static void wholeCase(String name, boolean validate, Supplier<AlterConfigsRequestData.AlterConfigsResource[]> resources) throws Exception {
        show(name, ApiKeys.ALTER_CONFIGS, 0, 2, v -> {
            AlterConfigsRequestData r = new AlterConfigsRequestData().setValidateOnly(validate);
            for (var one : resources.get()) r.resources().add(one);
            return r;
        });
    }

    static final List<String> LOOK = List.of("cleanup.policy", "max.message.bytes", "retention.ms", "compression.type", "leader.replication.throttled.replicas");

    static void look(String name, String topic) throws Exception {
        show(name, ApiKeys.DESCRIBE_CONFIGS, 4, 4, v -> describe(2, topic, LOOK));
    }

    static void incrementalCases() throws Exception {
        change("set", 2, "conf", set("retention.ms", "-1"), set("max.message.bytes", "5000"));
        look("after set", "conf");
        change("deleted", 2, "conf", new Change("max.message.bytes", DELETE, null));
        change("deleted, with a value", 2, "conf", new Change("max.message.bytes", DELETE, "1"));
        change("deleted, unknown", 2, "conf", new Change("no.such.thing", DELETE, null));
        look("after deleted", "conf");
        change("appended", 2, "conf", new Change("cleanup.policy", APPEND, "compact"));
        look("after appended", "conf");
        change("appended what is there", 2, "conf", new Change("cleanup.policy", APPEND, "compact,delete"));
        look("after appended what is there", "conf");
        change("subtracted", 2, "conf", new Change("cleanup.policy", SUBTRACT, "delete"));
        look("after subtracted", "conf");
        change("subtracted what is not there", 2, "conf", new Change("cleanup.policy", SUBTRACT, "delete"));
        change("subtracted all", 2, "conf", new Change("cleanup.policy", SUBTRACT, "compact"));
        look("after subtracted all", "conf");
        change("appended nonsense", 2, "conf", new Change("cleanup.policy", APPEND, "burn"));
        change("appended to a number", 2, "conf", new Change("retention.ms", APPEND, "1"));
        change("subtracted from a number", 2, "conf", new Change("retention.ms", SUBTRACT, "1"));
        change("appended to an empty list", 2, "conf", new Change("leader.replication.throttled.replicas", APPEND, "0:1,0:2"));
        look("after appended to an empty list", "conf");
        change("set to null", 2, "conf", set("retention.ms", null));
        change("appended null", 2, "conf", new Change("cleanup.policy", APPEND, null));
        change("bad value", 2, "conf", set("retention.ms", "soon"));
        change("value out of range", 2, "conf", set("min.insync.replicas", "0"));
        change("more replicas than brokers", 2, "conf", set("min.insync.replicas", "5"));
        change("unknown option", 2, "conf", set("no.such.thing", "1"));
        change("empty option", 2, "conf", set("", "1"));
        change("unknown operation", 2, "conf", new Change("retention.ms", 9, "1"));
        change("a good one and a bad one", 2, "conf", set("retention.ms", "77"), set("compression.type", "rar"));
        change("the same option twice", 2, "conf", set("retention.ms", "1"), set("retention.ms", "2"));
        change("the same option, two operations", 2, "conf", set("cleanup.policy", "delete"), new Change("cleanup.policy", APPEND, "compact"));
        look("after all that", "conf");
        change("no changes", 2, "conf");
        change("unknown topic", 2, "nope", set("retention.ms", "1"));
        change("bad name", 2, "a/b", set("retention.ms", "1"));
        change("empty name", 2, "", set("retention.ms", "1"));
        incrementalCase("checked only", true, () -> new IncrementalAlterConfigsRequestData.AlterConfigsResource[] {incremental(2, "conf", set("retention.ms", "5"))});
        incrementalCase("checked only, bad", true, () -> new IncrementalAlterConfigsRequestData.AlterConfigsResource[] {incremental(2, "conf", set("retention.ms", "x"))});
        look("after checked only", "conf");
        incrementalCase("two topics, one unknown", false, () -> new IncrementalAlterConfigsRequestData.AlterConfigsResource[] {
            incremental(2, "conf", set("compression.type", "gzip")), incremental(2, "nope", set("compression.type", "gzip"))});
        look("after two topics", "conf");
        incrementalCase("the same topic twice", false, () -> new IncrementalAlterConfigsRequestData.AlterConfigsResource[] {
            incremental(2, "conf", set("compression.type", "lz4")), incremental(2, "conf", set("retention.ms", "9"))});
        look("after the same topic twice", "conf");
        incrementalCase("nothing", false, () -> new IncrementalAlterConfigsRequestData.AlterConfigsResource[0]);
        change("a broker's read-only option", 4, "1", set("log.dirs", "/tmp"));
        change("a broker's unknown option", 4, "1", set("no.such.thing", "1"));
        change("a broker's option for replication, deleted", 4, "1", new Change("leader.replication.throttled.rate", DELETE, null), new Change("no.such.thing", DELETE, null));
        change("a broker's read-only option, deleted", 4, "1", new Change("auto.create.topics.enable", DELETE, null));
        change("another broker", 4, "2", set("num.partitions", "1"));
        change("not a broker", 4, "x", set("num.partitions", "1"));
        change("unknown kind", 3, "x", set("a", "1"));
        change("kind 0", 0, "x", set("a", "1"));
    }

    static void wholeCases() throws Exception {
        wholeCase("set", false, () -> new AlterConfigsRequestData.AlterConfigsResource[] {whole(2, "conf", set("retention.ms", "-1"), set("max.message.bytes", "7000"))});
        look("after the whole", "conf");
        wholeCase("the rest is gone", false, () -> new AlterConfigsRequestData.AlterConfigsResource[] {whole(2, "conf", set("retention.ms", "-1"))});
        look("after the rest is gone", "conf");
        wholeCase("bad value", false, () -> new AlterConfigsRequestData.AlterConfigsResource[] {whole(2, "conf", set("retention.ms", "x"))});
        wholeCase("null value", false, () -> new AlterConfigsRequestData.AlterConfigsResource[] {whole(2, "conf", set("retention.ms", null))});
        wholeCase("unknown option", false, () -> new AlterConfigsRequestData.AlterConfigsResource[] {whole(2, "conf", set("no.such.thing", "1"))});
        wholeCase("unknown topic", false, () -> new AlterConfigsRequestData.AlterConfigsResource[] {whole(2, "nope", set("retention.ms", "1"))});
        wholeCase("bad name", false, () -> new AlterConfigsRequestData.AlterConfigsResource[] {whole(2, "a/b", set("retention.ms", "1"))});
        wholeCase("the same option twice", false, () -> new AlterConfigsRequestData.AlterConfigsResource[] {whole(2, "conf", set("retention.ms", "1"), set("retention.ms", "2"))});
        wholeCase("the same topic twice", false, () -> new AlterConfigsRequestData.AlterConfigsResource[] {
            whole(2, "conf", set("retention.ms", "1")), whole(2, "conf", set("retention.ms", "2"))});
        wholeCase("checked only", true, () -> new AlterConfigsRequestData.AlterConfigsResource[] {whole(2, "conf", set("retention.ms", "5"))});
        look("after the whole, refused or checked", "conf");
        wholeCase("nothing set", false, () -> new AlterConfigsRequestData.AlterConfigsResource[] {whole(2, "conf")});
        look("after nothing set", "conf");
        wholeCase("unknown kind", false, () -> new AlterConfigsRequestData.AlterConfigsResource[] {whole(3, "x", set("a", "1"))});
        wholeCase("a broker's read-only option", false, () -> new AlterConfigsRequestData.AlterConfigsResource[] {whole(4, "1", set("log.dirs", "/tmp"))});
        wholeCase("another broker", false, () -> new AlterConfigsRequestData.AlterConfigsResource[] {whole(4, "2", set("num.partitions", "1"))});
        wholeCase("nothing", false, () -> new AlterConfigsRequestData.AlterConfigsResource[0]);
    }

    static void resources(String name, int from, Integer... types) throws Exception {
        show(name, ApiKeys.LIST_CONFIG_RESOURCES, from, 1, v -> {
            ListConfigResourcesRequestData r = new ListConfigResourcesRequestData();
            return v == 0 ? r : r.setResourceTypes(Arrays.stream(types).map(Integer::byteValue).toList());
        });
    }

    static void resourceCases() throws Exception {
        resources("all kinds", 0);
        resources("topics", 1, 2);
        resources("brokers", 1, 4);
        resources("loggers", 1, 8);
        resources("client metrics", 1, 16);
        resources("groups", 1, 32);
        resources("topics and brokers", 1, 4, 2);
        resources("topics twice", 1, 2, 2);
        resources("unknown kind", 1, 3);
        resources("unknown kind and topics", 1, 2, 3);
        for (int type : new int[] {8, 16, 32})
            show("kind " + type, ApiKeys.DESCRIBE_CONFIGS, 1, 4, v -> describe(type, "nope", List.of("x")));
    }

    /* ---- the rest ---- */

    static void dirs(String name, Map<String, List<Integer>> topics) throws Exception {
        show(name, ApiKeys.DESCRIBE_LOG_DIRS, 1, 5, v -> {
            DescribeLogDirsRequestData r = new DescribeLogDirsRequestData();
            if (topics == null) return r.setTopics(null);
            topics.forEach((t, p) -> r.topics().add(new DescribeLogDirsRequestData.DescribableLogDirTopic().setTopic(t).setPartitions(p)));
            return r;
        });
    }

    static void dirCases() throws Exception {
        dirs("one", Map.of("one", List.of(0)));
        dirs("empty partition", Map.of("two", List.of(1)));
        dirs("two partitions", Map.of("two", List.of(0, 1)));
        dirs("the same partition twice", Map.of("two", List.of(1, 1)));
        dirs("unknown topic", Map.of("nope", List.of(0)));
        dirs("unknown partition", Map.of("one", List.of(0, 8)));
        dirs("negative partition", Map.of("one", List.of(-1)));
        dirs("no partitions", Map.of("one", List.of()));
        dirs("no topics", Map.of());
        dirs("all", null);
    }

    static void producers(String name, String topic, Integer... partitions) throws Exception {
        show(name, ApiKeys.DESCRIBE_PRODUCERS, 0, 0, v -> new DescribeProducersRequestData().setTopics(List.of(
            new DescribeProducersRequestData.TopicRequest().setName(topic).setPartitionIndexes(List.of(partitions)))));
    }

    static void producerCases() throws Exception {
        producers("none", "one", 0);
        call(ApiKeys.PRODUCE, 9, produce(9, "two", 0, -1, idempotent(7000, 3, 0, A, B)));
        call(ApiKeys.PRODUCE, 9, produce(9, "two", 0, -1, idempotent(7000, 3, 2, A)));
        producers("one", "two", 0);
        producers("one, and an empty partition", "two", 0, 1);
        call(ApiKeys.PRODUCE, 9, produce(9, "two", 0, -1, idempotent(7001, 0, 0, B)));
        producers("two", "two", 0);
        producers("unknown topic", "nope", 0);
        producers("bad name", "a/b", 0);
        producers("unknown partition", "one", 6);
        producers("negative partition", "one", -1);
        producers("no partitions", "one");
        show("nothing", ApiKeys.DESCRIBE_PRODUCERS, 0, 0, v -> new DescribeProducersRequestData());
    }

    static void quorum(String name, String topic, Integer... partitions) throws Exception {
        show(name, ApiKeys.DESCRIBE_QUORUM, 0, 2, v -> new DescribeQuorumRequestData().setTopics(List.of(new DescribeQuorumRequestData.TopicData().setTopicName(topic)
            .setPartitions(Arrays.stream(partitions).map(p -> new DescribeQuorumRequestData.PartitionData().setPartitionIndex(p)).toList()))));
    }

    static void quorumCases() throws Exception {
        quorum("the metadata", "__cluster_metadata", 0);
        quorum("another topic", "one", 0);
        quorum("another partition", "__cluster_metadata", 1);
        quorum("two partitions", "__cluster_metadata", 0, 1);
        quorum("no partitions", "__cluster_metadata");
        show("nothing", ApiKeys.DESCRIBE_QUORUM, 0, 2, v -> new DescribeQuorumRequestData());
    }

    static void elect(String name, int type, Map<String, List<Integer>> topics) throws Exception {
        show(name, ApiKeys.ELECT_LEADERS, type == 0 ? 0 : 1, 2, v -> {
            ElectLeadersRequestData r = new ElectLeadersRequestData().setTimeoutMs(5000);
            if (v >= 1) r.setElectionType((byte) type);
            if (topics == null) return r.setTopicPartitions(null);
            topics.forEach((t, p) -> r.topicPartitions().add(new ElectLeadersRequestData.TopicPartitions().setTopic(t).setPartitions(p)));
            return r;
        });
    }

    static void electCases() throws Exception {
        for (int type : new int[] {0, 1}) {
            String kind = type == 0 ? "" : "unclean, ";
            elect(kind + "one that leads", type, Map.of("one", List.of(0)));
            elect(kind + "two that lead", type, Map.of("two", List.of(0, 1)));
            elect(kind + "all", type, null);
            elect(kind + "unknown topic", type, Map.of("nope", List.of(0)));
            elect(kind + "unknown partition", type, Map.of("one", List.of(5, 0)));
            elect(kind + "negative partition", type, Map.of("one", List.of(-1)));
            elect(kind + "nothing", type, Map.of());
            elect(kind + "no partitions", type, Map.of("one", List.of()));
        }
        for (int ms : new int[] {0, -1})
            show("no time, " + ms, ApiKeys.ELECT_LEADERS, 0, 2, v -> {
                ElectLeadersRequestData r = new ElectLeadersRequestData().setTimeoutMs(ms);
                r.topicPartitions().add(new ElectLeadersRequestData.TopicPartitions().setTopic("one").setPartitions(List.of(0)));
                r.topicPartitions().add(new ElectLeadersRequestData.TopicPartitions().setTopic("nope").setPartitions(List.of(0)));
                return r;
            });
        show("all, no time", ApiKeys.ELECT_LEADERS, 0, 2, v -> new ElectLeadersRequestData().setTimeoutMs(0).setTopicPartitions(null));
        elect("unknown kind", 7, Map.of("one", List.of(0)));
    }

    static void moves(String name, Map<String, List<Integer>> topics) throws Exception {
        show(name, ApiKeys.LIST_PARTITION_REASSIGNMENTS, 0, 0, v -> {
            ListPartitionReassignmentsRequestData r = new ListPartitionReassignmentsRequestData().setTimeoutMs(5000);
            return topics == null ? r : r.setTopics(topics.entrySet().stream().map(e -> new ListPartitionReassignmentsRequestData.ListPartitionReassignmentsTopics()
                .setName(e.getKey()).setPartitionIndexes(e.getValue())).toList());
        });
    }

    static void moveCases() throws Exception {
        moves("all", null);
        moves("one", Map.of("one", List.of(0)));
        moves("unknown topic", Map.of("nope", List.of(0)));
        moves("unknown partition", Map.of("one", List.of(9)));
        moves("nothing", Map.of());
        for (int ms : new int[] {0, -1})
            show("no time, " + ms, ApiKeys.LIST_PARTITION_REASSIGNMENTS, 0, 0, v -> new ListPartitionReassignmentsRequestData().setTimeoutMs(ms));
    }

    static void features(String name, int from, boolean validate, FeatureUpdateKey... keys) throws Exception {
        show(name, ApiKeys.UPDATE_FEATURES, from, 2, v -> {
            UpdateFeaturesRequestData r = new UpdateFeaturesRequestData().setTimeoutMs(5000);
            if (v >= 1) r.setValidateOnly(validate);
            for (FeatureUpdateKey k : keys) r.featureUpdates().add(k.duplicate());
            return r;
        });
    }

    static FeatureUpdateKey feature(String name, int level, int type) {
        return new FeatureUpdateKey().setFeature(name).setMaxVersionLevel((short) level).setUpgradeType((byte) type);
    }

    static void featureCases() throws Exception {
        features("nothing", 0, false);
        features("unknown", 0, false, feature("no.such.feature", 1, 1));
        features("unknown, two", 0, false, feature("no.such.feature", 1, 1), feature("nor.this", 2, 1));
        features("unknown, checked only", 1, true, feature("no.such.feature", 1, 1));
        features("level 0", 0, false, feature("no.such.feature", 0, 1));
        features("negative level", 0, false, feature("no.such.feature", -1, 1));
        features("no name", 0, false, feature("", 1, 1));
        features("downgrade", 1, false, feature("no.such.feature", 0, 2));
        features("unknown kind of upgrade", 1, false, feature("no.such.feature", 1, 9));
        for (int ms : new int[] {0, -1})
            show("no time, " + ms, ApiKeys.UPDATE_FEATURES, 0, 2, v -> {
                UpdateFeaturesRequestData r = new UpdateFeaturesRequestData().setTimeoutMs(ms);
                r.featureUpdates().add(feature("no.such.feature", 1, 1));
                return r;
            });
        features("the same twice", 0, false, feature("no.such.feature", 1, 1), feature("no.such.feature", 2, 1));
        show("downgrade, unsaid", ApiKeys.UPDATE_FEATURES, 0, 0, v -> {
            UpdateFeaturesRequestData r = new UpdateFeaturesRequestData().setTimeoutMs(5000);
            r.featureUpdates().add(new FeatureUpdateKey().setFeature("no.such.feature").setMaxVersionLevel((short) 0).setAllowDowngrade(true));
            return r;
        });
    }

    public static void main(String[] args) throws Exception {
        begin(args);
        prepare(topic("one", 1, 1, KEEP), topic("two", 2, 1, KEEP), topic("grows", 1, 1, KEEP), topic("conf", 1, 1),
            topic("cut", 1, 1, KEEP), topic("keyed", 1, 1, "cleanup.policy", "compact"));
        call(ApiKeys.PRODUCE, 9, produce(9, "one", 0, -1, batch(A, B)));
        cutCases();
        epochCases();
        pageCases();
        dirCases();
        producerCases();
        quorumCases();
        electCases();
        moveCases();
        featureCases();
        resourceCases();
        incrementalCases();
        wholeCases();
        partitionCases();
    }
}
