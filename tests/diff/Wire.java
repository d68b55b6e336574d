/* What the programs of this directory share: the wire, and how an answer is shown. It holds nothing that Kafka 3.9 and
 * 4.3 have under different names, so that it compiles against the jars of both.
 *
 * What is different each time is given a name: topic ids, the cluster's id, the port, producer ids, the partition's own
 * leader epoch (E), offsets of successful appends (but for the idempotence cases). Not shown: throttling, features,
 * texts of errors, and the log's start beside an error of Produce. */
import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.node.*;
import java.io.*;
import java.net.Socket;
import java.nio.ByteBuffer;
import java.util.*;
import org.apache.kafka.common.Uuid;
import org.apache.kafka.common.message.*;
import org.apache.kafka.common.protocol.*;

class Wire {
    static final Uuid UNKNOWN = new Uuid(0x1234567890L, 0x987654321L);
    static final long TIME = 1700000000000L;
    static String host;
    static int port, correlation, epoch, session;
    static Map<String, Uuid> ids = new HashMap<>();

    /* ---- the wire ---- */

    static byte[] body(Message m, short version) {
        ObjectSerializationCache cache = new ObjectSerializationCache();
        ByteBuffer b = ByteBuffer.allocate(m.size(cache, version));
        m.write(new ByteBufferAccessor(b), cache, version);
        return b.array();
    }

    /** The answer's body after its header; null: the connection was closed; empty: nothing came, and it is open. */
    static ByteBuffer exchange(ApiKeys api, short version, byte[] request) throws IOException {
        try (Socket s = new Socket(host, port)) {
            s.setSoTimeout(3000);
            byte[] header = body(new RequestHeaderData().setRequestApiKey(api.id).setRequestApiVersion(version)
                .setCorrelationId(++correlation).setClientId("diff"), api.requestHeaderVersion(version));
            DataOutputStream out = new DataOutputStream(s.getOutputStream());
            out.writeInt(header.length + request.length);
            out.write(header);
            out.write(request);
            out.flush();
            DataInputStream in = new DataInputStream(s.getInputStream());
            byte[] answer;
            try {
                answer = new byte[in.readInt()];
                in.readFully(answer);
            } catch (java.net.SocketTimeoutException e) {
                return ByteBuffer.allocate(0);
            } catch (IOException e) {
                return null;
            }
            ByteBuffer b = ByteBuffer.wrap(answer);
            ResponseHeaderData h = new ResponseHeaderData(new ByteBufferAccessor(b), api.responseHeaderVersion(version));
            if (h.correlationId() != correlation) throw new IOException("another request's answer");
            return b;
        }
    }

    static JsonNode json(ApiKeys api, short version, ByteBuffer answer) throws Exception {
        String name = "org.apache.kafka.common.message." + api.name + "ResponseData";
        Class<?> type = Class.forName(name);
        Message m = (Message) type.getDeclaredConstructor().newInstance();
        m.read(new ByteBufferAccessor(answer), version);
        if (answer.hasRemaining()) throw new IOException(answer.remaining() + " bytes are left");
        JsonNode shown = (JsonNode) Class.forName(name + "JsonConverter").getMethod("write", type, short.class, boolean.class)
            .invoke(null, m, version, false);
        more.accept(m, shown);
        return shown;
    }

    /** What a program shows besides. */
    static java.util.function.BiConsumer<Message, JsonNode> more = (m, shown) -> { };

    static Object call(ApiKeys api, int version, Message request) throws Exception {
        ByteBuffer b = exchange(api, (short) version, body(request, (short) version));
        return b == null ? "closed" : b.remaining() == 0 ? "none" : json(api, (short) version, b);
    }

    /* ---- what is shown ---- */

    static String id(String text) {
        if (text.equals(Uuid.ZERO_UUID.toString())) return "none";
        for (var e : ids.entrySet()) if (e.getValue().toString().equals(text)) return "id of " + e.getKey();
        return text.equals(UNKNOWN.toString()) ? "unknown" : "new";
    }

    static JsonNode plain(String key, JsonNode n) {
        if (n instanceof ObjectNode o) {
            ObjectNode out = JsonNodeFactory.instance.objectNode();
            List<String> names = new ArrayList<>();
            o.fieldNames().forEachRemaining(names::add);
            for (String name : names) {
                if (HIDDEN.contains(name) || name.toLowerCase().contains("features")) continue;
                if (name.equals("logStartOffset") && o.has("baseOffset") && o.get("errorCode").asInt() != 0) continue;
                boolean quorum = o.has("currentVoters") && (name.equals("leaderEpoch") || name.equals("highWatermark"));
                out.set(name, quorum ? o.get(name).asLong() > 0 ? new TextNode("some") : o.get(name) : plain(name, o.get(name)));
            }
            return out;
        }
        if (n instanceof ArrayNode a) {
            ArrayNode out = JsonNodeFactory.instance.arrayNode();
            List<JsonNode> items = new ArrayList<>();
            for (JsonNode item : a) items.add(plain(key, item));
            if (UNORDERED.contains(key)) items.sort(Comparator.comparing(JsonNode::toString));
            items.forEach(out::add);
            return out;
        }
        String t = n.asText();
        if (key.equals("topicId")) return new TextNode(id(t));
        if (key.equals("sessionId") && n.asInt() != 0) return new TextNode(n.asInt() == session ? "the session" : "new");
        if (key.equals("logDir")) return new TextNode("dir");
        if (SIZES.contains(key)) return n.asLong() > 0 ? new TextNode("some") : n;
        if (key.equals("replicaDirectoryId")) return new TextNode(t.equals(Uuid.ZERO_UUID.toString()) ? "none" : "an id");
        if (key.equals("clusterId")) return new TextNode("cluster");
        if (key.equals("port") && n.asInt() == port) return new TextNode("port");
        if (key.equals("leaderEpoch") && n.asInt() == epoch) return new TextNode("E");
        if (key.equals("producerId") && n.asLong() >= 0) return new TextNode("pid");
        if (key.equals("logAppendTimeMs") && n.asLong() > TIME) return new TextNode("time");
        if (key.equals("baseOffset") && !exactOffsets && n.asLong() >= 0) return new TextNode("offset");
        return n;
    }

    /** Kafka answers these in the order of its hash tables. */
    static final Set<String> UNORDERED = new HashSet<>(Set.of("topics", "responses", "results", "partitionResponses", "apiKeys", "configs", "configResources", "partitionResult", "activeProducers", "replicaElectionResults"));

    /** How much of something there is differs; that there is some does not. */
    static final Set<String> SIZES = Set.of("partitionSize", "totalBytes", "usableBytes", "logEndOffset", "lastFetchTimestamp", "lastCaughtUpTimestamp");

    static final Set<String> HIDDEN = Set.of("throttleTimeMs", "errorMessage", "batchIndexErrorMessage");
    static boolean exactOffsets;

    interface Build { Message of(int version) throws Exception; }

    static void show(String name, ApiKeys api, int from, int to, Build build) throws Exception {
        String last = null;
        int first = from;
        for (int v = from; v <= to + 1; v++) {
            String line = null;
            if (v <= to) {
                Object answer;
                try {
                    answer = call(api, v, build.of(v));
                } catch (org.apache.kafka.common.errors.UnsupportedVersionException e) {
                    answer = "not sayable";
                }
                line = answer instanceof JsonNode n ? plain("", n).toString() : answer.toString();
            }
            if (last != null && !last.equals(line)) System.out.println(api.name + " " + first + "-" + (v - 1) + " " + name + ": " + last);
            if (!Objects.equals(last, line)) first = v;
            last = line;
        }
    }

    /** Where the broker is, from the program's argument HOST:PORT. */
    static void begin(String[] args) {
        host = args[0].substring(0, args[0].lastIndexOf(':'));
        port = Integer.parseInt(args[0].substring(args[0].lastIndexOf(':') + 1));
    }
}
