/* Groups and their offsets: requests to Apache Kafka 4.3, most of them wrong on purpose; its answers are kafka-groups.txt.
 *
 *   java -cp KAFKA-JARS:CLASSES Groups HOST:PORT          on a broker that has just been started on an empty directory */
import com.fasterxml.jackson.databind.JsonNode;
import java.io.*;
import java.nio.ByteBuffer;
import java.util.*;
import java.util.function.*;
import org.apache.kafka.common.Uuid;
import org.apache.kafka.common.message.*;
import org.apache.kafka.common.message.CreateTopicsRequestData.*;
import org.apache.kafka.common.message.DescribeConfigsRequestData.DescribeConfigsResource;
import org.apache.kafka.common.message.FetchRequestData.*;
import org.apache.kafka.common.message.MetadataRequestData.MetadataRequestTopic;
import org.apache.kafka.common.message.OffsetCommitRequestData.*;
import org.apache.kafka.common.message.OffsetFetchRequestData.*;
import org.apache.kafka.common.message.ProduceRequestData.*;
import org.apache.kafka.common.compress.Compression;
import org.apache.kafka.common.protocol.*;
import org.apache.kafka.common.record.internal.*;

class Groups extends Wire {
    /** Nobody has asked for a coordinator yet: there is no topic of groups. */
    static void firstCases() throws Exception {
        commitCase("before there are groups", v -> commit("g", on(v, "t", at(0, 5, ""))));
        fetchCase("before there are groups", 1, v -> fetch(v, "g", "t", List.of(0)));
        show("before there are groups", ApiKeys.JOIN_GROUP, 0, 9, v -> join("g", "", "range"));
        show("before there are groups", ApiKeys.SYNC_GROUP, 0, 5, v -> sync(v, "g", "m", 1));
        show("before there are groups", ApiKeys.HEARTBEAT, 0, 4, v -> beat("g", "m", 1));
        show("before there are groups", ApiKeys.LEAVE_GROUP, 0, 5, v -> leave(v, "g", "m"));
        show("before there are groups", ApiKeys.DESCRIBE_GROUPS, 0, 6, v -> describe("g"));
        show("before there are groups", ApiKeys.LIST_GROUPS, 0, 5, v -> new ListGroupsRequestData());
        show("before there are groups", ApiKeys.DELETE_GROUPS, 0, 2, v -> new DeleteGroupsRequestData().setGroupsNames(List.of("g")));
        show("before there are groups", ApiKeys.OFFSET_DELETE, 0, 0, v -> new OffsetDeleteRequestData().setGroupId("g").setTopics(offsetTopics("t", 0)));
        show("before there are groups", ApiKeys.FIND_COORDINATOR, 3, 3, v -> new FindCoordinatorRequestData().setKey("g"));
    }

    static void prepare() throws Exception {
        CreateTopicsRequestData r = new CreateTopicsRequestData().setTimeoutMs(10000);
        for (String name : new String[] {"t", "u", "doomed"})
            r.topics().add(new CreatableTopic().setName(name).setNumPartitions(3).setReplicationFactor((short) 1));
        for (JsonNode t : ((JsonNode) call(ApiKeys.CREATE_TOPICS, 7, r)).get("topics")) {
            if (t.get("errorCode").asInt() != 0) throw new IOException("cannot prepare: " + t);
            ids.put(t.get("name").asText(), Uuid.fromString(t.get("topicId").asText()));
        }
        firstCases();
        for (int i = 0; ; i++) { /* Kafka makes the topic after the first question, and loads it then */
            JsonNode a = (JsonNode) call(ApiKeys.FIND_COORDINATOR, 3, new FindCoordinatorRequestData().setKey("g"));
            Object f = a.get("errorCode").asInt() == 0 ? call(ApiKeys.OFFSET_FETCH, 7, new OffsetFetchRequestData().setGroupId("g")) : null;
            if (f instanceof JsonNode n && n.get("errorCode").asInt() == 0) break;
            if (i == 300) throw new IOException("no coordinator: " + a + " " + f);
            Thread.sleep(100);
        }
        Thread.sleep(1000);
    }

    /* ---- requests ---- */

    static OffsetCommitRequestPartition at(int partition, long offset, String metadata) {
        return new OffsetCommitRequestPartition().setPartitionIndex(partition).setCommittedOffset(offset).setCommittedMetadata(metadata);
    }

    static OffsetCommitRequestTopic on(int v, String topic, OffsetCommitRequestPartition... partitions) {
        OffsetCommitRequestTopic t = new OffsetCommitRequestTopic().setPartitions(List.of(partitions));
        return v >= 10 ? t.setTopicId(ids.getOrDefault(topic, UNKNOWN)) : t.setName(topic);
    }

    static OffsetCommitRequestData commit(String group, OffsetCommitRequestTopic... topics) {
        return new OffsetCommitRequestData().setGroupId(group).setTopics(List.of(topics));
    }

    static void commitCase(String name, Function<Integer, OffsetCommitRequestData> build) throws Exception {
        show(name, ApiKeys.OFFSET_COMMIT, 2, 10, build::apply);
    }

    /** partitions null: all; else pairs of topic and a list of partitions. */
    static OffsetFetchRequestData fetch(int v, String group, Object... topics) {
        if (v < 8) {
            List<OffsetFetchRequestTopic> list = new ArrayList<>();
            for (int i = 0; topics != null && i < topics.length; i += 2)
                list.add(new OffsetFetchRequestTopic().setName((String) topics[i]).setPartitionIndexes((List<Integer>) topics[i + 1]));
            return new OffsetFetchRequestData().setGroupId(group).setTopics(topics == null ? null : list);
        }
        List<OffsetFetchRequestTopics> list = new ArrayList<>();
        for (int i = 0; topics != null && i < topics.length; i += 2) {
            OffsetFetchRequestTopics t = new OffsetFetchRequestTopics().setPartitionIndexes((List<Integer>) topics[i + 1]);
            list.add(v >= 10 ? t.setTopicId(ids.getOrDefault(topics[i], UNKNOWN)) : t.setName((String) topics[i]));
        }
        return new OffsetFetchRequestData().setGroups(List.of(new OffsetFetchRequestGroup().setGroupId(group).setTopics(topics == null ? null : list)));
    }

    static void fetchCase(String name, int from, Function<Integer, OffsetFetchRequestData> build) throws Exception {
        show(name, ApiKeys.OFFSET_FETCH, from, 10, build::apply);
    }

    /* ---- the cases ---- */

    static void findCases() throws Exception {
        for (int type : new int[] {0, 3, 9, -1})
            show("key type " + type, ApiKeys.FIND_COORDINATOR, type == 0 ? 0 : 1, 6, v -> {
                FindCoordinatorRequestData r = new FindCoordinatorRequestData();
                if (v >= 1) r.setKeyType((byte) type);
                return v < 4 ? r.setKey("g") : r.setCoordinatorKeys(List.of("g", "h"));
            });
        show("empty key", ApiKeys.FIND_COORDINATOR, 0, 6, v -> v < 4 ? new FindCoordinatorRequestData().setKey("")
            : new FindCoordinatorRequestData().setCoordinatorKeys(List.of("", "g")));
        show("no keys", ApiKeys.FIND_COORDINATOR, 4, 6, v -> new FindCoordinatorRequestData());
        show("the same key twice", ApiKeys.FIND_COORDINATOR, 4, 6, v -> new FindCoordinatorRequestData().setCoordinatorKeys(List.of("g", "g")));
        epoch = ((JsonNode) call(ApiKeys.METADATA, 12, new MetadataRequestData().setTopics(List.of(new MetadataRequestTopic().setName("__consumer_offsets")))))
            .get("topics").get(0).get("partitions").get(0).get("leaderEpoch").asInt();
        show("the topic of groups", ApiKeys.METADATA, 12, 12, v -> new MetadataRequestData().setAllowAutoTopicCreation(false)
            .setTopics(List.of(new MetadataRequestTopic().setName("__consumer_offsets"))));
        show("the topic of groups", ApiKeys.DESCRIBE_CONFIGS, 4, 4, v -> new DescribeConfigsRequestData().setResources(List.of(new DescribeConfigsResource()
            .setResourceType((byte) 2).setResourceName("__consumer_offsets").setConfigurationKeys(List.of("cleanup.policy", "compression.type", "segment.bytes")))));
        show("the topic of groups", ApiKeys.DELETE_RECORDS, 0, 2, v -> new DeleteRecordsRequestData().setTimeoutMs(5000).setTopics(List.of(
            new DeleteRecordsRequestData.DeleteRecordsTopic().setName("__consumer_offsets").setPartitions(List.of(
                new DeleteRecordsRequestData.DeleteRecordsPartition().setPartitionIndex(0).setOffset(0))))));
        show("to the topic of groups", ApiKeys.PRODUCE, 9, 9, v -> {
            ProduceRequestData r = new ProduceRequestData().setAcks((short) -1).setTimeoutMs(5000);
            r.topicData().add(new TopicProduceData().setName("__consumer_offsets").setPartitionData(List.of(new PartitionProduceData()
                .setIndex(0).setRecords(MemoryRecords.withRecords(Compression.NONE, new SimpleRecord(TIME, "k".getBytes(), "v".getBytes()))))));
            return r;
        });
    }

    static void offsetCases() throws Exception {
        fetchCase("an unknown group", 1, v -> fetch(v, "nobody", "t", List.of(0, 1)));
        fetchCase("an unknown group, all", 2, v -> fetch(v, "nobody", (Object[]) null));
        commitCase("simple", v -> commit("g", on(v, "t", at(0, 5, "note"), at(2, 7, ""))));
        fetchCase("what was committed", 1, v -> fetch(v, "g", "t", List.of(0, 1, 2)));
        fetchCase("all that was committed", 2, v -> fetch(v, "g", (Object[]) null));
        commitCase("a null note", v -> commit("g", on(v, "t", at(1, 9, null))));
        fetchCase("a null note", 1, v -> fetch(v, "g", "t", List.of(1)));
        show("with a leader epoch", ApiKeys.OFFSET_COMMIT, 6, 10, v -> commit("g", on(v, "u", at(1, 9, "e").setCommittedLeaderEpoch(3))));
        fetchCase("with a leader epoch", 1, v -> fetch(v, "g", "u", List.of(1)));
        commitCase("back", v -> commit("g", on(v, "t", at(0, 2, ""))));
        fetchCase("back", 1, v -> fetch(v, "g", "t", List.of(0)));
        commitCase("negative offset", v -> commit("neg", on(v, "t", at(0, -1, ""), at(1, -2, ""))));
        fetchCase("negative offset", 1, v -> fetch(v, "neg", "t", List.of(0, 1)));
        commitCase("unknown topic", v -> commit("g", on(v, "nope", at(0, 5, ""))));
        commitCase("unknown partition", v -> commit("g", on(v, "t", at(3, 5, ""))));
        commitCase("negative partition", v -> commit("g", on(v, "t", at(-1, 5, ""))));
        commitCase("unknown and known topics", v -> commit("g2", on(v, "u", at(0, 1, "")), on(v, "nope", at(0, 5, "")), on(v, "t", at(0, 2, ""))));
        commitCase("unknown and known partitions", v -> commit("g2", on(v, "t", at(9, 1, ""), at(1, 5, ""))));
        commitCase("the same topic twice", v -> commit("g2", on(v, "t", at(0, 1, "")), on(v, "t", at(1, 2, ""))));
        commitCase("the same partition twice", v -> commit("g2", on(v, "t", at(0, 1, ""), at(0, 2, ""))));
        fetchCase("the same partition twice", 1, v -> fetch(v, "g2", "t", List.of(0, 0)));
        commitCase("note of 4096", v -> commit("g2", on(v, "t", at(0, 1, "x".repeat(4096)))));
        commitCase("note of 4097", v -> commit("g2", on(v, "t", at(0, 1, "x".repeat(4097)), at(1, 3, ""))));
        commitCase("no topics", v -> commit("g3"));
        commitCase("no partitions", v -> commit("g3", on(v, "t")));
        commitCase("generation of no group", v -> commit("g4", on(v, "t", at(0, 1, ""))).setGenerationIdOrMemberEpoch(3).setMemberId("m"));
        commitCase("generation of an empty group", v -> commit("g", on(v, "t", at(0, 1, ""))).setGenerationIdOrMemberEpoch(3).setMemberId("m"));
        commitCase("generation 0, no member", v -> commit("g", on(v, "t", at(0, 1, ""))).setGenerationIdOrMemberEpoch(0));
        commitCase("a member without a generation", v -> commit("g", on(v, "t", at(0, 1, ""))).setMemberId("m"));
        show("an instance without a generation", ApiKeys.OFFSET_COMMIT, 7, 10, v -> commit("g", on(v, "t", at(0, 1, ""))).setGroupInstanceId("i"));
        show("an instance with a generation", ApiKeys.OFFSET_COMMIT, 7, 10, v -> commit("g", on(v, "t", at(0, 1, ""))).setGroupInstanceId("i").setGenerationIdOrMemberEpoch(1).setMemberId("m"));
        commitCase("no group", v -> commit("", on(v, "t", at(0, 6, ""))));
        fetchCase("no group", 1, v -> fetch(v, "", "t", List.of(0)));
        fetchCase("no group, all", 2, v -> fetch(v, "", (Object[]) null));
        commitCase("a group's name in another alphabet", v -> commit("gruppe-ü-\u65e5\ud83d\ude00", on(v, "t", at(0, 6, ""))));
        fetchCase("unknown topic", 1, v -> fetch(v, "g", "nope", List.of(0), "t", List.of(1)));
        fetchCase("unknown partition", 1, v -> fetch(v, "g", "t", List.of(1, 77, -1)));
        fetchCase("no partitions", 1, v -> fetch(v, "g", "t", List.of()));
        fetchCase("no topics", 1, v -> fetch(v, "g"));
        show("several groups", ApiKeys.OFFSET_FETCH, 8, 10, v -> {
            OffsetFetchRequestData r = fetch(v, "g", "t", List.of(0));
            List<OffsetFetchRequestGroup> all = new ArrayList<>(r.groups());
            all.addAll(fetch(v, "nobody", "t", List.of(0)).groups());
            all.addAll(fetch(v, "neg", (Object[]) null).groups());
            all.addAll(fetch(v, "g2", "t", List.of(1)).groups());
            return r.setGroups(all);
        });
        show("the same group twice", ApiKeys.OFFSET_FETCH, 8, 10, v -> {
            OffsetFetchRequestData r = fetch(v, "g", "t", List.of(0));
            return r.setGroups(List.of(r.groups().get(0), fetch(v, "g", "t", List.of(1)).groups().get(0)));
        });
        show("no groups", ApiKeys.OFFSET_FETCH, 8, 10, v -> new OffsetFetchRequestData());
        show("stable", ApiKeys.OFFSET_FETCH, 7, 10, v -> fetch(v, "g", "t", List.of(0)).setRequireStable(true));
        show("as a member", ApiKeys.OFFSET_FETCH, 9, 10, v -> {
            OffsetFetchRequestData r = fetch(v, "g", "t", List.of(0));
            r.groups().get(0).setMemberId("m").setMemberEpoch(4);
            return r;
        });
        show("as a member of no group", ApiKeys.OFFSET_FETCH, 9, 10, v -> {
            OffsetFetchRequestData r = fetch(v, "nobody", "t", List.of(0));
            r.groups().get(0).setMemberId("m").setMemberEpoch(4);
            return r;
        });
        show("with a retention", ApiKeys.OFFSET_COMMIT, 2, 4, v -> commit("g5", on(v, "t", at(0, 1, "kept"))).setRetentionTimeMs(100000));
        show("with no retention", ApiKeys.OFFSET_COMMIT, 2, 4, v -> commit("g5", on(v, "t", at(1, 1, ""))).setRetentionTimeMs(-1));
        commitCase("of a topic that goes", v -> commit("g6", on(v, "doomed", at(0, 1, "")), on(v, "t", at(0, 2, ""))));
        call(ApiKeys.DELETE_TOPICS, 5, new DeleteTopicsRequestData().setTimeoutMs(5000).setTopicNames(List.of("doomed")));
        Thread.sleep(1500);
        fetchCase("of a topic that is gone", 1, v -> fetch(v, "g6", "doomed", List.of(0), "t", List.of(0)));
        fetchCase("all, of a topic that is gone", 2, v -> fetch(v, "g6", (Object[]) null));
        Uuid before = ids.get("doomed");
        CreateTopicsRequestData again = new CreateTopicsRequestData().setTimeoutMs(10000);
        again.topics().add(new CreatableTopic().setName("doomed").setNumPartitions(1).setReplicationFactor((short) 1));
        ids.put("doomed", Uuid.fromString(((JsonNode) call(ApiKeys.CREATE_TOPICS, 7, again)).get("topics").get(0).get("topicId").asText()));
        Thread.sleep(300);
        fetchCase("of a topic that is made again", 1, v -> fetch(v, "g6", "doomed", List.of(0)));
        ids.put("made again", ids.get("doomed"));
        ids.put("doomed", before);
    }

    /* ---- members ---- */

    /** Member ids end in random digits; each is shown by the name that it got when it was given out. */
    static final Map<String, String> members = new LinkedHashMap<>();

    static String named(String text) {
        for (var e : members.entrySet()) text = text.replace(e.getKey(), e.getValue());
        return text.replaceAll("-[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}", "-NEW");
    }

    static JsonNode ask(ApiKeys api, int version, Message request) throws Exception {
        try (java.net.Socket s = new java.net.Socket(host, port)) {
            s.setSoTimeout(20000);
            byte[] header = body(new RequestHeaderData().setRequestApiKey(api.id).setRequestApiVersion((short) version)
                .setCorrelationId(7).setClientId("diff"), api.requestHeaderVersion((short) version));
            byte[] bytes = body(request, (short) version);
            DataOutputStream out = new DataOutputStream(s.getOutputStream());
            out.writeInt(header.length + bytes.length);
            out.write(header);
            out.write(bytes);
            out.flush();
            DataInputStream in = new DataInputStream(s.getInputStream());
            byte[] answer = new byte[in.readInt()];
            in.readFully(answer);
            ByteBuffer b = ByteBuffer.wrap(answer);
            new ResponseHeaderData(new ByteBufferAccessor(b), api.responseHeaderVersion((short) version));
            return json(api, (short) version, b);
        }
    }

    static JsonNode tell(String name, ApiKeys api, int version, JsonNode answer) {
        System.out.println(api.name + " " + version + "-" + version + " " + name + ": " + plain("", parsed(named(answer.toString()))));
        return answer;
    }

    static JsonNode parsed(String text) {
        try {
            return new com.fasterxml.jackson.databind.ObjectMapper().readTree(text);
        } catch (IOException e) {
            throw new UncheckedIOException(e);
        }
    }

    static JsonNode now(String name, ApiKeys api, int version, Message request) throws Exception {
        return tell(name, api, version, ask(api, version, request));
    }

    /** Sent now; told when it is waited for. */
    static class Later {
        final String name;
        final ApiKeys api;
        final int version;
        final java.util.concurrent.FutureTask<JsonNode> task;
        Later(String name, ApiKeys api, int version, Message request) throws Exception {
            this.name = name;
            this.api = api;
            this.version = version;
            task = new java.util.concurrent.FutureTask<>(() -> ask(api, version, request));
            new Thread(task).start();
            Thread.sleep(60); /* it is there before what comes next */
        }
        JsonNode wait_() throws Exception { return tell(name, api, version, task.get()); }
        JsonNode quiet() throws Exception { return task.get(); }
    }

    static byte[] subscription(String... topics) {
        ByteBuffer b = ByteBuffer.allocate(200);
        b.putShort((short) 0).putInt(topics.length);
        for (String t : topics) b.putShort((short) t.length()).put(t.getBytes());
        b.putInt(-1).flip();
        byte[] bytes = new byte[b.remaining()];
        b.get(bytes);
        return bytes;
    }

    static JoinGroupRequestData join(String group, String member, String... protocols) {
        JoinGroupRequestData r = new JoinGroupRequestData().setGroupId(group).setMemberId(member).setSessionTimeoutMs(10000)
            .setRebalanceTimeoutMs(8000).setProtocolType("consumer");
        for (String p : protocols) r.protocols().add(new JoinGroupRequestData.JoinGroupRequestProtocol().setName(p).setMetadata(subscription("t")));
        return r;
    }

    static SyncGroupRequestData sync(int v, String group, String member, int generation, String... assignments) {
        SyncGroupRequestData r = new SyncGroupRequestData().setGroupId(group).setMemberId(member).setGenerationId(generation);
        if (v >= 5) r.setProtocolType("consumer").setProtocolName("range");
        for (int i = 0; i < assignments.length; i += 2)
            r.assignments().add(new SyncGroupRequestData.SyncGroupRequestAssignment().setMemberId(assignments[i]).setAssignment(assignments[i + 1].getBytes()));
        return r;
    }

    static HeartbeatRequestData beat(String group, String member, int generation) {
        return new HeartbeatRequestData().setGroupId(group).setMemberId(member).setGenerationId(generation);
    }

    static LeaveGroupRequestData leave(int v, String group, String... who) {
        LeaveGroupRequestData r = new LeaveGroupRequestData().setGroupId(group);
        if (v < 3) return r.setMemberId(who[0]);
        for (String w : who) r.members().add(new LeaveGroupRequestData.MemberIdentity().setMemberId(w));
        return r;
    }

    static DescribeGroupsRequestData describe(String... groups) { return new DescribeGroupsRequestData().setGroups(List.of(groups)); }

    /** A first join, twice where the version asks for it; gives the member's id. */
    static String first(String name, int v, String group) throws Exception {
        JsonNode a = ask(ApiKeys.JOIN_GROUP, v, join(group, "", "range", "roundrobin"));
        String id = a.get("memberId").asText();
        members.put(id, name);
        tell(name + " joins", ApiKeys.JOIN_GROUP, v, a);
        if (v >= 4) now(name + " joins with its id", ApiKeys.JOIN_GROUP, v, join(group, id, "range", "roundrobin"));
        return id;
    }

    static void life(int v) throws Exception {
        String g = "life" + v;
        int s = Math.min(v, 5), h = Math.min(v, 4), l = Math.min(v, 5), d = Math.min(v, 6), c = Math.max(2, v);
        String a = first("A", v, g);
        now("too early", ApiKeys.OFFSET_COMMIT, c, commit(g, on(c, "t", at(0, 1, ""))).setGenerationIdOrMemberEpoch(1).setMemberId(a));
        now("while it rebalances", ApiKeys.DESCRIBE_GROUPS, d, describe(g));
        now("A is told", ApiKeys.SYNC_GROUP, s, sync(s, g, a, 1, a, "all of it"));
        now("A", ApiKeys.HEARTBEAT, h, beat(g, a, 1));
        now("wrong generation", ApiKeys.HEARTBEAT, h, beat(g, a, 2));
        now("unknown member", ApiKeys.HEARTBEAT, h, beat(g, "nobody", 1));
        now("one member", ApiKeys.DESCRIBE_GROUPS, d, describe(g));
        now("a member's", ApiKeys.OFFSET_COMMIT, c, commit(g, on(c, "t", at(0, 1, ""))).setGenerationIdOrMemberEpoch(1).setMemberId(a));
        now("of another generation", ApiKeys.OFFSET_COMMIT, c, commit(g, on(c, "t", at(0, 1, ""))).setGenerationIdOrMemberEpoch(2).setMemberId(a));
        now("of another member", ApiKeys.OFFSET_COMMIT, c, commit(g, on(c, "t", at(0, 1, ""))).setGenerationIdOrMemberEpoch(1).setMemberId("x"));
        now("of nobody", ApiKeys.OFFSET_COMMIT, c, commit(g, on(c, "t", at(0, 1, ""))));
        now("wrong generation", ApiKeys.SYNC_GROUP, s, sync(s, g, a, 5));
        now("unknown member", ApiKeys.SYNC_GROUP, s, sync(s, g, "x", 1));
        if (s >= 5) {
            now("another protocol", ApiKeys.SYNC_GROUP, s, sync(s, g, a, 1).setProtocolName("cooperative"));
            now("another type", ApiKeys.SYNC_GROUP, s, sync(s, g, a, 1).setProtocolType("connect"));
            now("no protocol", ApiKeys.SYNC_GROUP, s, sync(s, g, a, 1).setProtocolName(null));
        }
        now("A is told again", ApiKeys.SYNC_GROUP, s, sync(s, g, a, 1));
        now("other protocols", ApiKeys.JOIN_GROUP, v, join(g, "", "sticky"));
        now("another type", ApiKeys.JOIN_GROUP, v, join(g, "", "range").setProtocolType("connect"));
        /* B comes */
        String b = "";
        if (v >= 4) {
            JsonNode j = ask(ApiKeys.JOIN_GROUP, v, join(g, "", "range"));
            members.put(b = j.get("memberId").asText(), "B");
            tell("B joins", ApiKeys.JOIN_GROUP, v, j);
            now("B is expected", ApiKeys.DESCRIBE_GROUPS, d, describe(g));
        }
        Later bj = new Later("B joins with its id", ApiKeys.JOIN_GROUP, v, join(g, b, "range"));
        now("A, B is there", ApiKeys.HEARTBEAT, h, beat(g, a, 1));
        now("A, B is there", ApiKeys.SYNC_GROUP, s, sync(s, g, a, 1));
        now("A's, B is there", ApiKeys.OFFSET_COMMIT, c, commit(g, on(c, "t", at(0, 3, ""))).setGenerationIdOrMemberEpoch(1).setMemberId(a));
        JsonNode aj = ask(ApiKeys.JOIN_GROUP, v, join(g, a, "range", "roundrobin"));
        if (v < 4) members.put(b = bj.quiet().get("memberId").asText(), "B");
        tell("A joins again", ApiKeys.JOIN_GROUP, v, aj);
        bj.wait_();
        Later bs = new Later("B waits for A", ApiKeys.SYNC_GROUP, s, sync(s, g, b, 2));
        now("A, nobody is told yet", ApiKeys.HEARTBEAT, h, beat(g, a, 2));
        now("A joins once more", ApiKeys.JOIN_GROUP, v, join(g, a, "range", "roundrobin"));
        now("A tells both", ApiKeys.SYNC_GROUP, s, sync(s, g, a, 2, a, "one half", b, "the other", "x", "nothing"));
        bs.wait_();
        now("B joins as it is", ApiKeys.JOIN_GROUP, v, join(g, b, "range"));
        now("two members", ApiKeys.DESCRIBE_GROUPS, d, describe(g));
        now("group with members", ApiKeys.DELETE_GROUPS, Math.min(v, 2), new DeleteGroupsRequestData().setGroupsNames(List.of(g)));
        now("what is subscribed", ApiKeys.OFFSET_DELETE, 0, new OffsetDeleteRequestData().setGroupId(g).setTopics(offsetTopics("t", 0, 1)));
        now("what is not subscribed", ApiKeys.OFFSET_DELETE, 0, new OffsetDeleteRequestData().setGroupId(g).setTopics(offsetTopics("u", 0, 1)));
        /* B goes */
        now("a stranger", ApiKeys.LEAVE_GROUP, l, leave(l, g, "x"));
        now("B", ApiKeys.LEAVE_GROUP, l, leave(l, g, b));
        now("B once more", ApiKeys.LEAVE_GROUP, l, leave(l, g, b));
        now("A, B is gone", ApiKeys.HEARTBEAT, h, beat(g, a, 2));
        now("B is gone", ApiKeys.JOIN_GROUP, v, join(g, a, "range"));
        now("B is gone", ApiKeys.SYNC_GROUP, s, sync(s, g, a, 3, a, "all again"));
        now("A", ApiKeys.LEAVE_GROUP, l, leave(l, g, a));
        now("A has gone", ApiKeys.HEARTBEAT, h, beat(g, a, 3));
        now("A has gone", ApiKeys.SYNC_GROUP, s, sync(s, g, a, 3));
        now("A is not known any more", ApiKeys.JOIN_GROUP, v, join(g, a, "range"));
        now("nobody is left", ApiKeys.DESCRIBE_GROUPS, d, describe(g));
        now("an empty group's", ApiKeys.OFFSET_COMMIT, c, commit(g, on(c, "t", at(0, 8, ""))));
        now("what was subscribed", ApiKeys.OFFSET_DELETE, 0, new OffsetDeleteRequestData().setGroupId(g).setTopics(offsetTopics("t", 0, 1)));
        now("empty group", ApiKeys.DELETE_GROUPS, Math.min(v, 2), new DeleteGroupsRequestData().setGroupsNames(List.of(g, "nobody", g)));
        now("deleted", ApiKeys.DESCRIBE_GROUPS, d, describe(g));
    }

    static OffsetDeleteRequestData.OffsetDeleteRequestTopicCollection offsetTopics(String name, int... partitions) {
        List<OffsetDeleteRequestData.OffsetDeleteRequestPartition> list = new ArrayList<>();
        for (int p : partitions) list.add(new OffsetDeleteRequestData.OffsetDeleteRequestPartition().setPartitionIndex(p));
        OffsetDeleteRequestData.OffsetDeleteRequestTopicCollection all = new OffsetDeleteRequestData.OffsetDeleteRequestTopicCollection();
        all.add(new OffsetDeleteRequestData.OffsetDeleteRequestTopic().setName(name).setPartitions(list));
        return all;
    }

    static JoinGroupRequestData asInstance(JoinGroupRequestData r, String instance) { return r.setGroupInstanceId(instance); }

    /** Static members (KIP-345). */
    static void instances(int v) throws Exception {
        String g = "static" + v;
        JsonNode j = ask(ApiKeys.JOIN_GROUP, v, asInstance(join(g, "", "range"), "one"));
        String a = j.get("memberId").asText();
        members.put(a, "ONE");
        tell("ONE", ApiKeys.JOIN_GROUP, v, j);
        now("ONE", ApiKeys.SYNC_GROUP, 5, sync(5, g, a, 1, a, "mine").setGroupInstanceId("one"));
        now("no id of its own", ApiKeys.HEARTBEAT, 4, beat(g, "x", 1).setGroupInstanceId("one"));
        now("no such instance", ApiKeys.HEARTBEAT, 4, beat(g, a, 1).setGroupInstanceId("two"));
        now("without the instance", ApiKeys.HEARTBEAT, 4, beat(g, a, 1));
        j = ask(ApiKeys.JOIN_GROUP, v, asInstance(join(g, "", "range"), "one"));
        String b = j.get("memberId").asText();
        members.put(b, "ONE'");
        tell("ONE comes back", ApiKeys.JOIN_GROUP, v, j);
        now("ONE has come back", ApiKeys.DESCRIBE_GROUPS, 6, describe(g));
        now("ONE's old id", ApiKeys.HEARTBEAT, 4, beat(g, a, 1).setGroupInstanceId("one"));
        now("ONE's old id", ApiKeys.SYNC_GROUP, 5, sync(5, g, a, 1).setGroupInstanceId("one"));
        now("ONE's old id", ApiKeys.JOIN_GROUP, v, asInstance(join(g, a, "range"), "one"));
        now("ONE's old id", ApiKeys.OFFSET_COMMIT, 9, commit(g, on(9, "t", at(0, 8, ""))).setGroupInstanceId("one").setMemberId(a).setGenerationIdOrMemberEpoch(1));
        now("ONE's old id", ApiKeys.LEAVE_GROUP, 4, new LeaveGroupRequestData().setGroupId(g).setMembers(List.of(new LeaveGroupRequestData.MemberIdentity().setMemberId(a).setGroupInstanceId("one"))));
        now("ONE", ApiKeys.HEARTBEAT, 4, beat(g, b, 1).setGroupInstanceId("one"));
        now("ONE again", ApiKeys.SYNC_GROUP, 5, sync(5, g, b, 1).setGroupInstanceId("one"));
        /* another instance, while ONE waits: a rebalance, in which ONE comes back once more */
        Later two = new Later("TWO", ApiKeys.JOIN_GROUP, v, asInstance(join(g, "", "range", "roundrobin"), "two"));
        now("ONE, TWO is there", ApiKeys.HEARTBEAT, 4, beat(g, b, 1).setGroupInstanceId("one"));
        j = ask(ApiKeys.JOIN_GROUP, v, asInstance(join(g, "", "range"), "one"));
        members.put(j.get("memberId").asText(), "ONE''");
        members.put(two.quiet().get("memberId").asText(), "TWO");
        tell("ONE comes back, TWO is there", ApiKeys.JOIN_GROUP, v, j);
        two.wait_();
        now("ONE and TWO", ApiKeys.DESCRIBE_GROUPS, 6, describe(g));
        now("by an administrator", ApiKeys.LEAVE_GROUP, 5, new LeaveGroupRequestData().setGroupId(g).setMembers(List.of(
            new LeaveGroupRequestData.MemberIdentity().setMemberId("").setGroupInstanceId("one").setReason("because"),
            new LeaveGroupRequestData.MemberIdentity().setMemberId("").setGroupInstanceId("three"),
            new LeaveGroupRequestData.MemberIdentity().setMemberId(""),
            new LeaveGroupRequestData.MemberIdentity().setMemberId("").setGroupInstanceId("two"))));
        now("nobody is left", ApiKeys.DESCRIBE_GROUPS, 6, describe(g));
    }

    static void refusals() throws Exception {
        show("no group", ApiKeys.JOIN_GROUP, 0, 9, v -> join("", "", "range"));
        show("session too short", ApiKeys.JOIN_GROUP, 0, 9, v -> join("r", "", "range").setSessionTimeoutMs(10));
        show("session too long", ApiKeys.JOIN_GROUP, 0, 9, v -> join("r", "", "range").setSessionTimeoutMs(Integer.MAX_VALUE));
        show("unknown member of no group", ApiKeys.JOIN_GROUP, 0, 9, v -> join("r", "m", "range"));
        show("no protocols", ApiKeys.JOIN_GROUP, 0, 9, v -> join("r1", ""));
        show("no type", ApiKeys.JOIN_GROUP, 0, 9, v -> join("r2", "", "range").setProtocolType(""));
        show("no group", ApiKeys.SYNC_GROUP, 0, 5, v -> sync(v, "", "m", 1));
        show("unknown group", ApiKeys.SYNC_GROUP, 0, 5, v -> sync(v, "nobody", "m", 1));
        show("group without members", ApiKeys.SYNC_GROUP, 0, 5, v -> sync(v, "g", "m", 1));
        show("no group", ApiKeys.HEARTBEAT, 0, 4, v -> beat("", "m", 1));
        show("unknown group", ApiKeys.HEARTBEAT, 0, 4, v -> beat("nobody", "m", 1));
        show("group without members", ApiKeys.HEARTBEAT, 0, 4, v -> beat("g", "m", 1));
        show("no group", ApiKeys.LEAVE_GROUP, 0, 5, v -> leave(v, "", "m"));
        show("unknown group", ApiKeys.LEAVE_GROUP, 0, 5, v -> leave(v, "nobody", "m"));
        show("group without members", ApiKeys.LEAVE_GROUP, 0, 5, v -> leave(v, "g", "m"));
        show("nobody", ApiKeys.LEAVE_GROUP, 3, 5, v -> leave(v, "g"));
        show("nobody of no group", ApiKeys.LEAVE_GROUP, 3, 5, v -> leave(v, "nobody"));
        show("no group", ApiKeys.DESCRIBE_GROUPS, 0, 6, v -> describe(""));
        show("unknown group", ApiKeys.DESCRIBE_GROUPS, 0, 6, v -> describe("nobody"));
        show("simple group", ApiKeys.DESCRIBE_GROUPS, 0, 6, v -> describe("g"));
        show("several groups", ApiKeys.DESCRIBE_GROUPS, 0, 6, v -> describe("g", "nobody", "g"));
        show("no groups", ApiKeys.DESCRIBE_GROUPS, 0, 6, v -> describe());
        show("operations", ApiKeys.DESCRIBE_GROUPS, 3, 6, v -> describe("g", "nobody", "").setIncludeAuthorizedOperations(true));
        show("no group", ApiKeys.DELETE_GROUPS, 0, 2, v -> new DeleteGroupsRequestData().setGroupsNames(List.of("")));
        show("no groups", ApiKeys.DELETE_GROUPS, 0, 2, v -> new DeleteGroupsRequestData());
        show("unknown groups", ApiKeys.DELETE_GROUPS, 0, 2, v -> new DeleteGroupsRequestData().setGroupsNames(List.of("nobody", "none", "nobody")));
        show("no group", ApiKeys.OFFSET_DELETE, 0, 0, v -> new OffsetDeleteRequestData().setGroupId("").setTopics(offsetTopics("t", 0)));
        show("unknown group", ApiKeys.OFFSET_DELETE, 0, 0, v -> new OffsetDeleteRequestData().setGroupId("nobody").setTopics(offsetTopics("t", 0)));
        show("unknown group and topic", ApiKeys.OFFSET_DELETE, 0, 0, v -> new OffsetDeleteRequestData().setGroupId("nobody").setTopics(offsetTopics("nope", 0)));
        show("unknown topic", ApiKeys.OFFSET_DELETE, 0, 0, v -> new OffsetDeleteRequestData().setGroupId("g").setTopics(offsetTopics("nope", 0)));
        show("unknown partition", ApiKeys.OFFSET_DELETE, 0, 0, v -> new OffsetDeleteRequestData().setGroupId("g").setTopics(offsetTopics("t", 0, 9)));
        String worker = ask(ApiKeys.JOIN_GROUP, 3, join("connect", "", "range").setProtocolType("connect")).get("memberId").asText();
        show("a group of another type", ApiKeys.OFFSET_DELETE, 0, 0, v -> new OffsetDeleteRequestData().setGroupId("connect").setTopics(offsetTopics("t", 0)));
        ask(ApiKeys.LEAVE_GROUP, 3, leave(3, "connect", worker));
        ask(ApiKeys.DELETE_GROUPS, 1, new DeleteGroupsRequestData().setGroupsNames(List.of("connect")));
        show("no topics", ApiKeys.OFFSET_DELETE, 0, 0, v -> new OffsetDeleteRequestData().setGroupId("g"));
        fetchCase("after a deletion", 8, v -> fetch(v, "g", "t", List.of(0, 1)));
        show("all", ApiKeys.LIST_GROUPS, 0, 5, v -> new ListGroupsRequestData());
        for (String state : new String[] {"Empty", "empty", "Stable", "Nonsense", ""})
            show("state '" + state + "'", ApiKeys.LIST_GROUPS, 4, 5, v -> new ListGroupsRequestData().setStatesFilter(List.of(state)));
        show("two states", ApiKeys.LIST_GROUPS, 4, 5, v -> new ListGroupsRequestData().setStatesFilter(List.of("Stable", "Empty")));
        for (String type : new String[] {"classic", "Classic", "consumer", "share", "nonsense"})
            show("type '" + type + "'", ApiKeys.LIST_GROUPS, 5, 5, v -> new ListGroupsRequestData().setTypesFilter(List.of(type)));
    }

    /** What does not fit into one batch of the topic of groups; all that is shown are the codes. */
    static void tooLarge() throws Exception {
        JsonNode a = ask(ApiKeys.OFFSET_COMMIT, 9, commit("notes", on(9, "t", Collections.nCopies(300, at(0, 1, "x".repeat(4096))).toArray(new OffsetCommitRequestPartition[0]))));
        Set<JsonNode> codes = new HashSet<>(a.findValues("errorCode"));
        System.out.println("OffsetCommit 9-9 larger than a batch: {\"errorCode\":" + (codes.size() == 1 ? codes.iterator().next() : codes) + "}");
        String id = ask(ApiKeys.JOIN_GROUP, 3, join("large", "", "range")).get("memberId").asText();
        a = ask(ApiKeys.SYNC_GROUP, 3, sync(3, "large", id, 1, id, "x".repeat(1500000)));
        System.out.println("SyncGroup 3-3 larger than a batch: {\"errorCode\":" + a.get("errorCode") + "}");
        ask(ApiKeys.LEAVE_GROUP, 3, leave(3, "large", id));
    }

    static void times() throws Exception {
        /* group.max.size is 4 */
        List<Later> all = new ArrayList<>();
        for (int i = 0; i < 4; i++) all.add(new Later("member", ApiKeys.JOIN_GROUP, 3, join("full", "", "range").setSessionTimeoutMs(1000)));
        now("one too many", ApiKeys.JOIN_GROUP, 3, join("full", "", "range"));
        int n = 0;
        for (Later l : all) n += l.quiet().get("errorCode").asInt() == 0 ? 1 : 0;
        System.out.println("JoinGroup 3-3 as many as may: {\"joined\":" + n + "}");
        now("one too many, later", ApiKeys.JOIN_GROUP, 3, join("full", "", "range"));
        Thread.sleep(2500); /* nobody asks for an assignment, nobody beats */
        now("all have timed out", ApiKeys.DESCRIBE_GROUPS, 6, describe("full"));
        /* who does not ask for its assignment goes, when the time of the rebalance is over */
        JsonNode j = ask(ApiKeys.JOIN_GROUP, 3, join("slow", "", "range").setRebalanceTimeoutMs(1000));
        members.put(j.get("memberId").asText(), "SLOW");
        now("before its time is over", ApiKeys.DESCRIBE_GROUPS, 6, describe("slow"));
        Thread.sleep(2000);
        now("its time is over", ApiKeys.DESCRIBE_GROUPS, 6, describe("slow"));
        now("its time is over", ApiKeys.HEARTBEAT, 4, beat("slow", j.get("memberId").asText(), 1));
        /* a rebalance ends without who does not come back */
        j = ask(ApiKeys.JOIN_GROUP, 3, join("gone", "", "range").setRebalanceTimeoutMs(1000));
        String a = j.get("memberId").asText();
        members.put(a, "GONE");
        ask(ApiKeys.SYNC_GROUP, 3, sync(3, "gone", a, 1, a, "mine"));
        Later b = new Later("without GONE", ApiKeys.JOIN_GROUP, 3, join("gone", "", "range").setRebalanceTimeoutMs(1000));
        members.put(b.quiet().get("memberId").asText(), "STAYS");
        b.wait_();
        now("GONE", ApiKeys.HEARTBEAT, 3, beat("gone", a, 1));
        now("without GONE", ApiKeys.DESCRIBE_GROUPS, 6, describe("gone"));
        /* an id that was given out and not used is forgotten */
        j = ask(ApiKeys.JOIN_GROUP, 5, join("given", "", "range").setSessionTimeoutMs(500));
        members.put(j.get("memberId").asText(), "GIVEN");
        Thread.sleep(1200);
        now("too late", ApiKeys.JOIN_GROUP, 5, join("given", j.get("memberId").asText(), "range"));
        now("given", ApiKeys.DESCRIBE_GROUPS, 6, describe("given"));
        /* the protocol that most want, of those that all have */
        Later x = new Later("X", ApiKeys.JOIN_GROUP, 3, join("vote", "", "p1", "p2", "p3"));
        Later y = new Later("Y", ApiKeys.JOIN_GROUP, 3, join("vote", "", "p3", "p2"));
        Later z = new Later("Z", ApiKeys.JOIN_GROUP, 3, join("vote", "", "p3", "p2", "p1"));
        int i = 0;
        for (Later l : List.of(x, y, z)) members.put(l.quiet().get("memberId").asText(), "XYZ".substring(i, ++i));
        x.wait_();
        y.wait_();
        z.wait_();
    }

    /* ---- what is stored ---- */

    /** The bytes of every record of the topic of groups, with the times of commits and of groups' states made plain. */
    static void stored() throws Exception {
        for (int p = 0; p < 50; p++) {
            FetchRequestData r = new FetchRequestData().setMaxWaitMs(10).setMinBytes(0).setMaxBytes(10000000).setTopics(List.of(new FetchTopic()
                .setTopic("__consumer_offsets").setPartitions(List.of(new FetchPartition().setPartition(p).setPartitionMaxBytes(10000000)))));
            FetchResponseData a = new FetchResponseData(new ByteBufferAccessor(exchange(ApiKeys.FETCH, (short) 11, body(r, (short) 11))), (short) 11);
            int n = 0;
            for (RecordBatch batch : ((MemoryRecords) a.responses().get(0).partitions().get(0).records()).batches())
                for (org.apache.kafka.common.record.internal.Record one : batch) {
                    String key = hex(one.key()), value = one.value() == null ? "none" : hex(plainTimes(one.key(), one.value()));
                    for (var e : ids.entrySet()) { /* a topic's id in a tag */
                        ByteBuffer id = ByteBuffer.allocate(16).putLong(e.getValue().getMostSignificantBits()).putLong(e.getValue().getLeastSignificantBits()).flip();
                        value = value.replace(hex(id), "(id of " + e.getKey() + ")");
                    }
                    for (var e : members.entrySet()) value = value.replace(hex(ByteBuffer.wrap(e.getKey().getBytes())), "(" + e.getValue() + ")");
                    if (key.startsWith("0002") && Set.of("life0", "life4", "static9", "slow").stream().noneMatch(k -> key.endsWith(hex(ByteBuffer.wrap(k.getBytes()))))) continue;
                    if (value.length() > 100000 || key.contains(hex(ByteBuffer.wrap("notes".getBytes())))) continue; /* larger than a batch */
                    if (value.contains("(A)") && value.contains("(B)")) continue; /* in the order of a hash table */
                    if (!value.equals(last.put(key, value))) /* what is the same again need not be shown */
                        System.out.println("Fetch 11-11 record " + n++ + " of partition " + p + ": {\"key\":\"" + key + "\",\"value\":\"" + value + "\"}");
                }
        }
    }

    static final Map<String, String> last = new HashMap<>();

    static String hex(ByteBuffer b) {
        byte[] bytes = new byte[b.remaining()];
        b.duplicate().get(bytes);
        return HexFormat.of().formatHex(bytes);
    }

    /** Eight bytes that are a time of today are made FF, whatever their place. */
    static ByteBuffer plainTimes(ByteBuffer key, ByteBuffer value) {
        byte[] bytes = new byte[value.remaining()];
        value.duplicate().get(bytes);
        ByteBuffer b = ByteBuffer.wrap(bytes);
        long now = System.currentTimeMillis();
        for (int i = 0; i + 8 <= bytes.length; i++)
            if (Math.abs(b.getLong(i) - now) < 86400000) Arrays.fill(bytes, i, i + 8, (byte) 0xff);
        return b;
    }

    public static void main(String[] args) throws Exception {
        begin(args);
        UNORDERED.addAll(List.of("partitions", "groups", "members", "results"));
        prepare();
        findCases();
        offsetCases();
        refusals();
        for (int v = 0; v <= 9; v++) life(v);
        for (int v = 5; v <= 9; v++) instances(v);
        tooLarge();
        times();
        stored();
    }
}
