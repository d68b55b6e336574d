/* The message oracle: Kafka's own generated classes against the library's interpreter, every message and version that both
 * know, with random fields, both ways.
 *
 *   C random → Java decodes → Java encodes            the same bytes
 *   Java random (by Kafka's Schema) → Java decodes and encodes → C decodes and encodes   the same bytes
 *
 *   java -cp JARS Messages.java DRIVER SEED ROUNDS        DRIVER: build/…/oracle/prog_messages
 *
 * Ends with "N passed, M failed": one for each message and version. */
import java.io.*;
import java.nio.ByteBuffer;
import java.nio.charset.StandardCharsets;
import java.util.*;
import org.apache.kafka.common.Uuid;
import org.apache.kafka.common.protocol.*;
import org.apache.kafka.common.protocol.types.*;

public class Messages {
    static BufferedReader fromDriver;
    static BufferedWriter toDriver;
    static Random random;

    static String ask(String line) throws IOException {
        toDriver.write(line + "\n");
        toDriver.flush();
        String answer = fromDriver.readLine();
        if (answer == null) throw new IOException("the driver ended at: " + line);
        return answer;
    }

    static String hex(byte[] bytes) { return bytes.length == 0 ? "-" : HexFormat.of().formatHex(bytes); }

    static byte[] bytes(String hex) {
        if (hex.startsWith("error")) throw new IllegalStateException("the driver says " + hex);
        return hex.equals("-") ? new byte[0] : HexFormat.of().parseHex(hex);
    }

    /* ---- Java's side ---- */

    static Message read(Class<?> type, short version, byte[] from) throws Exception {
        Message m = (Message) type.getDeclaredConstructor().newInstance();
        ByteBuffer buffer = ByteBuffer.wrap(from);
        m.read(new ByteBufferAccessor(buffer), version);
        if (buffer.hasRemaining()) throw new IllegalStateException(buffer.remaining() + " bytes are left");
        return m;
    }

    static byte[] write(Message m, short version) {
        ObjectSerializationCache cache = new ObjectSerializationCache();
        ByteBuffer buffer = ByteBuffer.allocate(m.size(cache, version));
        m.write(new ByteBufferAccessor(buffer), cache, version);
        if (buffer.hasRemaining()) throw new IllegalStateException("Kafka's own size is wrong");
        return buffer.array();
    }

    /* ---- random values by Kafka's schema ---- */

    static Object field(Object o, String name) throws Exception {
        for (Class<?> c = o.getClass(); c != null; c = c.getSuperclass())
            for (java.lang.reflect.Field f : c.getDeclaredFields())
                if (f.getName().equals(name)) {
                    f.setAccessible(true);
                    return f.get(o);
                }
        throw new NoSuchFieldException(o.getClass() + "." + name);
    }

    static long number() {
        return switch (random.nextInt(4)) {
            case 0 -> 0;
            case 1 -> -1;
            case 2 -> random.nextInt(2001) - 1000;
            default -> random.nextLong();
        };
    }

    static String text() {
        String[] pieces = {"a", "topic", "-", "_", "x.y", "é", "日本", "🦀", " "};
        StringBuilder s = new StringBuilder();
        for (int n = random.nextInt(random.nextInt(30) == 0 ? 2000 : 6); n > 0; n--) s.append(pieces[random.nextInt(pieces.length)]);
        return s.toString();
    }

    static Object records() throws Exception {
        byte[] data = new byte[random.nextInt(80)];
        random.nextBytes(data);
        Class<?> type;
        try {
            type = Class.forName("org.apache.kafka.common.record.internal.MemoryRecords");
        } catch (ClassNotFoundException e) {
            type = Class.forName("org.apache.kafka.common.record.MemoryRecords");
        }
        return type.getMethod("readableRecords", ByteBuffer.class).invoke(null, ByteBuffer.wrap(data));
    }

    @SuppressWarnings("unchecked")
    static Object value(Type t) throws Exception {
        if (t.isNullable() && random.nextInt(4) == 0) return null;
        if (t instanceof Schema s) return struct(s);
        if (t.isArray()) {
            Object[] items = new Object[random.nextInt(4)];
            for (int i = 0; i < items.length; i++) items[i] = value(t.arrayElementType().get());
            return items;
        }
        if (t instanceof TaggedFields tagged) {
            TreeMap<Integer, Object> values = new TreeMap<>();
            for (var e : ((Map<Integer, Field>) field(tagged, "fields")).entrySet())
                if (random.nextBoolean()) values.put(e.getKey(), value(e.getValue().type));
            return values;
        }
        String name = t.toString();
        return switch (name) {
            case "BOOLEAN" -> random.nextBoolean();
            case "INT8" -> (byte) number();
            case "INT16" -> (short) number();
            case "UINT16" -> (int) number() & 0xffff;
            case "INT32" -> (int) number();
            case "UINT32" -> number() & 0xffffffffL;
            case "INT64" -> number();
            case "FLOAT64" -> (double) number();
            case "UUID" -> new Uuid(number(), number());
            case "STRING", "COMPACT_STRING", "NULLABLE_STRING", "COMPACT_NULLABLE_STRING" -> text();
            case "BYTES", "COMPACT_BYTES", "NULLABLE_BYTES", "COMPACT_NULLABLE_BYTES" ->
                ByteBuffer.wrap(text().getBytes(StandardCharsets.UTF_8));
            case "RECORDS", "COMPACT_RECORDS", "NULLABLE_RECORDS", "COMPACT_NULLABLE_RECORDS" -> records();
            default -> throw new IllegalStateException("the type " + name + " is unknown");
        };
    }

    static Struct struct(Schema schema) throws Exception {
        Struct s = new Struct(schema);
        for (BoundField f : schema.fields()) s.set(f, value(f.def.type));
        return s;
    }

    /* ---- */

    static void check(String name, Class<?> type, short version, Schema schema, int rounds) throws Exception {
        for (int i = 0; i < rounds; i++) {
            byte[] c = bytes(ask("random " + name + " " + version + " " + (random.nextInt() & 0x7fffffff)));
            same("C to Java", c, write(read(type, version, c), version), c);

            if (!nullableStructures && name.startsWith("DescribeTopicPartitions")) continue; /* its schema is not what its class writes */
            Struct s = struct(schema);
            ByteBuffer raw = ByteBuffer.allocate(s.sizeOf());
            s.writeTo(raw);
            byte[] java = write(read(type, version, raw.array()), version);
            same("Java to C", java, bytes(ask("recode " + name + " " + version + " " + hex(java))), java);
            same("Java's schema to C", java, bytes(ask("recode " + name + " " + version + " " + hex(raw.array()))), raw.array());
        }
    }

    /** Does this release's schema know that a structure may be null? */
    static final boolean nullableStructures = isThere("org.apache.kafka.common.protocol.types.NullableSchema");

    static boolean isThere(String type) {
        try {
            Class.forName(type);
            return true;
        } catch (ClassNotFoundException e) {
            return false;
        }
    }

    static void same(String what, byte[] want, byte[] got, byte[] from) {
        if (!Arrays.equals(want, got)) throw new IllegalStateException(what + ": from " + hex(from) + " " + hex(got) + ", not " + hex(want));
    }

    public static void main(String[] args) throws Exception {
        Process driver = new ProcessBuilder(args[0]).redirectError(ProcessBuilder.Redirect.INHERIT).start();
        fromDriver = new BufferedReader(new InputStreamReader(driver.getInputStream()));
        toDriver = new BufferedWriter(new OutputStreamWriter(driver.getOutputStream()));
        long seed = Long.parseLong(args[1]);
        int passed = 0, failed = 0;
        String[] list = ask("list").trim().split(" ");
        for (int i = 0; i < list.length; i += 3) {
            Class<?> type;
            try {
                type = Class.forName("org.apache.kafka.common.message." + list[i] + "Data");
            } catch (ClassNotFoundException e) {
                continue; /* a later release's */
            }
            Schema[] schemas = (Schema[]) type.getField("SCHEMAS").get(null);
            int newest = type.getField("HIGHEST_SUPPORTED_VERSION").getShort(null);
            for (int v = Integer.parseInt(list[i + 1]); v <= Integer.parseInt(list[i + 2]) && v <= newest; v++) {
                if (schemas[v] == null) continue; /* this release does not know it any more */
                random = new Random(seed * 1000003 + i * 100 + v);
                try {
                    check(list[i], type, (short) v, schemas[v], Integer.parseInt(args[2]));
                    passed++;
                } catch (Exception e) {
                    failed++;
                    System.out.println("FAIL " + list[i] + " version " + v + " seed " + seed + ": " + e);
                }
            }
        }
        toDriver.close();
        driver.waitFor();
        System.out.println(passed + " passed, " + failed + " failed");
        System.exit(failed == 0 ? 0 : 1);
    }
}
