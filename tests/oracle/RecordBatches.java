/* Records how Apache Kafka answers to record data: makes batches with Kafka's own client classes, damages some, gives
 * each to the code that a broker's produce path runs (ProduceRequest.validateRecords, the checks of its log, LogValidator),
 * and prints the lines of tests/unit/data/kafka_batches.txt:
 *
 *   name version compacted append_time now before after max_bytes error record bytes-in-hex
 *
 * Run with Kafka 4.3's kafka-clients, kafka-storage, kafka-server-common and the compression jars on the class path:
 *   java -cp "$JARS" tests/oracle/RecordBatches.java > tests/unit/data/kafka_batches.txt */
import java.nio.ByteBuffer;
import java.nio.charset.StandardCharsets;
import java.util.HexFormat;
import java.util.function.Consumer;
import org.apache.kafka.common.TopicPartition;
import org.apache.kafka.common.compress.Compression;
import org.apache.kafka.common.header.Header;
import org.apache.kafka.common.header.internals.RecordHeader;
import org.apache.kafka.common.protocol.Errors;
import org.apache.kafka.common.record.TimestampType;
import org.apache.kafka.common.record.internal.*;
import org.apache.kafka.common.requests.ProduceRequest;
import org.apache.kafka.common.utils.*;
import org.apache.kafka.server.common.*;
import org.apache.kafka.storage.internals.log.*;

public class RecordBatches {
    static final long NOW = 1700000000000L;
    static final int MAX = 1048588;

    record Rules(int version, boolean compacted, boolean appendTime, long before, long after, int max) {
        static Rules usual() { return new Rules(13, false, false, Long.MAX_VALUE, 3600000, MAX); }
        Rules version(int v) { return new Rules(v, compacted, appendTime, before, after, max); }
        Rules compact() { return new Rules(version, true, appendTime, before, after, max); }
        Rules append() { return new Rules(version, compacted, true, before, after, max); }
        Rules within(long b, long a) { return new Rules(version, compacted, appendTime, b, a, max); }
        Rules max(int m) { return new Rules(version, compacted, appendTime, before, after, m); }
    }

    /* The i-th record; test_record.c knows the same rule. */
    static SimpleRecord rec(int i, boolean keyed) {
        byte[] key = !keyed && i % 3 == 0 ? null : ("key-" + i).getBytes(StandardCharsets.UTF_8);
        byte[] value = i % 7 == 6 ? null : ("value-" + i + "-").repeat(i % 5 * 4).getBytes(StandardCharsets.UTF_8);
        Header[] headers = new Header[i % 4];
        for (int h = 0; h < headers.length; h++)
            headers[h] = new RecordHeader("h" + h, h == 2 ? null : ("x" + i).getBytes(StandardCharsets.UTF_8));
        return new SimpleRecord(NOW - 1000 + (i * 37 % 100), key, value, headers);
    }

    static byte[] batch(Compression c, int n, boolean keyed, long pid) {
        SimpleRecord[] records = new SimpleRecord[n];
        for (int i = 0; i < n; i++) records[i] = rec(i, keyed);
        return bytes(pid < 0 ? MemoryRecords.withRecords(c, records)
            : MemoryRecords.withIdempotentRecords(c, pid, (short) 3, 40, records));
    }

    static byte[] bytes(MemoryRecords r) {
        ByteBuffer b = r.buffer().duplicate();
        byte[] out = new byte[b.remaining()];
        b.get(out);
        return out;
    }

    static byte[] change(byte[] batch, boolean crc, Consumer<ByteBuffer> how) {
        byte[] copy = batch.clone();
        ByteBuffer b = ByteBuffer.wrap(copy);
        how.accept(b);
        if (crc) b.putInt(17, (int) Crc32C.compute(copy, 21, copy.length - 21));
        return copy;
    }

    static byte[] join(byte[] a, byte[] b) {
        byte[] out = java.util.Arrays.copyOf(a, a.length + b.length);
        System.arraycopy(b, 0, out, a.length, b.length);
        return out;
    }

    static String answer(byte[] data, Rules r) {
        try {
            MemoryRecords records = MemoryRecords.readableRecords(ByteBuffer.wrap(data.clone())); /* it is assigned offsets in place */
            ProduceRequest.validateRecords((short) r.version, records);
            for (MutableRecordBatch b : records.batches()) { /* as UnifiedLog.analyzeAndValidateRecords */
                if (b.baseOffset() != 0) return Errors.INVALID_RECORD + " -1";
                if (b.sizeInBytes() > r.max) return Errors.MESSAGE_TOO_LARGE + " -1";
                if (!b.isValid()) return Errors.CORRUPT_MESSAGE + " -1";
            }
            CompressionType source = records.batches().iterator().next().compressionType();
            new LogValidator(records, new TopicPartition("t", 0), TIME, source, Compression.of(source).build(), r.compacted,
                RecordBatch.CURRENT_MAGIC_VALUE, r.appendTime ? TimestampType.LOG_APPEND_TIME : TimestampType.CREATE_TIME,
                r.before, r.after, 0, AppendOrigin.CLIENT)
                .validateMessagesAndAssignOffsets(PrimitiveRef.ofLong(0), metrics, BufferSupplier.NO_CACHING);
            return "NONE -1";
        } catch (RecordValidationException e) {
            return Errors.forException(e.invalidException()) + " " + e.recordErrors().get(0).batchIndex;
        } catch (Throwable e) {
            return Errors.forException(e) + " -1";
        }
    }

    static final LogValidator.MetricsRecorder metrics = new LogValidator.MetricsRecorder() {
        public void recordInvalidMagic() {}
        public void recordInvalidOffset() {}
        public void recordInvalidSequence() {}
        public void recordInvalidChecksums() {}
        public void recordNoKeyCompactedTopic() {}
    };

    /* Kafka's Time is an interface with more methods than are asked here. */
    static final Time TIME = (Time) java.lang.reflect.Proxy.newProxyInstance(Time.class.getClassLoader(), new Class<?>[] {Time.class},
        (self, method, arguments) -> switch (method.getName()) {
            case "milliseconds" -> NOW;
            case "nanoseconds", "hiResClockMs" -> 0L;
            default -> throw new UnsupportedOperationException(method.getName());
        });

    static void tell(String name, byte[] data, Rules r) {
        System.out.println(String.join(" ", name, "" + r.version, r.compacted ? "1" : "0", r.appendTime ? "1" : "0", "" + NOW,
            "" + r.before, "" + r.after, "" + r.max, answer(data, r), data.length == 0 ? "-" : HexFormat.of().formatHex(data)));
    }

    public static void main(String[] args) {
        Rules usual = Rules.usual();
        Compression[] codecs = {Compression.NONE, Compression.gzip().build(), Compression.snappy().build(),
            Compression.lz4().build(), Compression.zstd().build()};
        String[] names = {"none", "gzip", "snappy", "lz4", "zstd"};
        for (int c = 0; c < 5; c++) {
            String n = names[c];
            byte[] ten = batch(codecs[c], 10, false, -1), keyed = batch(codecs[c], 10, true, 77);
            tell("good-" + n + "-10", ten, usual);
            tell("good-" + n + "-1", batch(codecs[c], 1, false, -1), usual);
            tell("good-" + n + "-200", batch(codecs[c], 200, true, 12345), usual.compact());
            tell("keyless-" + n, ten, usual.compact());
            tell("append-topic-" + n, ten, usual.append());
            tell("version6-" + n, ten, usual.version(6));
            tell("version7-" + n, ten, usual.version(7));
            tell("at-limit-" + n, ten, usual.max(ten.length));
            tell("over-limit-" + n, ten, usual.max(ten.length - 1));
            tell("too-old-" + n, ten, usual.within(950, 3600000));
            tell("just-old-enough-" + n, ten, usual.within(1000, 3600000));
            tell("untimely-and-keyless-" + n, ten, usual.within(950, 3600000).compact());
            tell("crc-" + n, change(ten, false, b -> b.put(60 + 3, (byte) ~b.get(63))), usual);
            tell("crc-attributes-" + n, change(ten, false, b -> b.put(21, (byte) 1)), usual);
            tell("no-crc-before-21-" + n, change(ten, false, b -> b.putInt(12, 99)), usual);
            tell("base-offset-" + n, change(ten, true, b -> b.putLong(0, 5)), usual);
            tell("base-offset-and-large-" + n, change(ten, true, b -> b.putLong(0, 5)), usual.max(100));
            tell("large-and-crc-" + n, change(ten, false, b -> b.putInt(17, 1)), usual.max(100));
            tell("control-" + n, change(ten, true, b -> b.put(22, (byte) (b.get(22) | 0x20))), usual);
            tell("count-0-" + n, change(ten, true, b -> b.putInt(57, 0)), usual);
            tell("count-9-" + n, change(ten, true, b -> b.putInt(57, 9)), usual);
            tell("count-11-" + n, change(ten, true, b -> b.putInt(57, 11)), usual);
            tell("count-negative-" + n, change(ten, true, b -> b.putInt(57, -1)), usual);
            tell("delta-8-" + n, change(ten, true, b -> b.putInt(23, 8)), usual);
            tell("delta-negative-" + n, change(ten, true, b -> b.putInt(23, -2)), usual);
            tell("both-9-" + n, change(ten, true, b -> { b.putInt(57, 9); b.putInt(23, 8); }), usual.within(5000, 5000));
            tell("both-11-" + n, change(ten, true, b -> { b.putInt(57, 11); b.putInt(23, 10); }), usual.within(5000, 5000));
            tell("sequence-" + n, change(keyed, true, b -> b.putInt(53, -1)), usual);
            tell("epoch-" + n, change(keyed, true, b -> b.putShort(51, (short) -1)), usual);
            tell("append-bit-" + n, change(ten, true, b -> b.put(22, (byte) (b.get(22) | 8))), usual);
            tell("append-bit-append-topic-" + n, change(ten, true, b -> b.put(22, (byte) (b.get(22) | 8))), usual.append());
            tell("max-timestamp-lies-" + n, change(ten, true, b -> b.putLong(35, NOW)), usual);
            tell("max-timestamp-far-" + n, change(ten, true, b -> b.putLong(35, NOW + 100000000)), usual);
            tell("future-" + n, change(ten, true, b -> { b.putLong(27, NOW + 4000000); b.putLong(35, NOW + 4000099); }), usual);
            tell("future-append-topic-" + n, change(ten, true, b -> { b.putLong(27, NOW + 4000000); b.putLong(35, NOW + 4000099); }),
                usual.append());
            tell("codec-5-" + n, change(ten, true, b -> b.put(22, (byte) 5)), usual);
            tell("codec-7-" + n, change(ten, true, b -> b.put(22, (byte) 7)), usual);
            tell("garbage-" + n, change(ten, true, b -> { for (int i = 61; i < ten.length; i++) b.put(i, (byte) (i * 31)); }),
                usual.within(5000, 5000));
            tell("cut-records-" + n, change(java.util.Arrays.copyOf(ten, ten.length - 6), true, b -> b.putInt(8, ten.length - 18)),
                usual.within(5000, 5000));
            tell("transactional-" + n, change(keyed, true, b -> b.put(22, (byte) (b.get(22) | 16))), usual);
        }
        byte[] ten = batch(Compression.NONE, 10, false, -1);
        tell("empty", new byte[0], usual);
        tell("eleven-bytes", java.util.Arrays.copyOf(ten, 11), usual);
        tell("sixteen-bytes", java.util.Arrays.copyOf(ten, 16), usual);
        tell("header-only", java.util.Arrays.copyOf(ten, 61), usual);
        tell("cut", java.util.Arrays.copyOf(ten, ten.length - 1), usual);
        tell("two", join(ten, ten), usual);
        tell("one-and-a-half", join(ten, java.util.Arrays.copyOf(ten, 70)), usual);
        tell("trailing-11", join(ten, new byte[11]), usual);
        tell("trailing-zeros", join(ten, new byte[100]), usual);
        tell("trailing-magic", join(ten, change(ten, false, b -> b.put(16, (byte) 9))), usual);
        tell("magic-0", change(ten, true, b -> b.put(16, (byte) 0)), usual);
        tell("magic-1", change(ten, true, b -> b.put(16, (byte) 1)), usual);
        tell("magic-3", change(ten, true, b -> b.put(16, (byte) 3)), usual);
        tell("magic-negative", change(ten, true, b -> b.put(16, (byte) -1)), usual);
        tell("length-13", change(ten, true, b -> b.putInt(8, 13)), usual);
        tell("length-14", change(ten, true, b -> b.putInt(8, 14)), usual);
        tell("length-48", change(ten, true, b -> b.putInt(8, 48)), usual);
        tell("length-negative", change(ten, true, b -> b.putInt(8, -1)), usual);
        tell("length-more", change(ten, true, b -> b.putInt(8, ten.length)), usual);
        byte[] one = bytes(MemoryRecords.withRecords(Compression.NONE, new SimpleRecord(NOW, null, "v".getBytes())));
        /* 61: length 14 = 7, 62 attributes, 63 timestamp, 64 offset, 65 key length, 66 value length, 67 value, 68 headers */
        tell("one", one, usual);
        tell("record-length-short", change(one, true, b -> b.put(61, (byte) 12)), usual);
        tell("record-length-long", change(one, true, b -> b.put(61, (byte) 16)), usual);
        tell("record-length-negative", change(one, true, b -> b.put(61, (byte) 1)), usual);
        tell("record-attributes", change(one, true, b -> b.put(62, (byte) 0x7f)), usual);
        tell("record-offset-1", change(one, true, b -> b.put(64, (byte) 2)), usual);
        tell("record-offset-negative", change(one, true, b -> b.put(64, (byte) 1)), usual);
        tell("record-key-minus-2", change(one, true, b -> b.put(65, (byte) 3)), usual);
        tell("record-value-minus-2", change(one, true, b -> b.put(66, (byte) 3)), usual);
        tell("record-value-long", change(one, true, b -> b.put(66, (byte) 4)), usual);
        tell("record-value-short", change(one, true, b -> b.put(66, (byte) 0)), usual);
        tell("record-headers-1", change(one, true, b -> b.put(68, (byte) 2)), usual);
        tell("record-headers-negative", change(one, true, b -> b.put(68, (byte) 1)), usual);
        byte[] none = bytes(MemoryRecords.withRecords(Compression.NONE, new SimpleRecord(-1, "k".getBytes(), "v".getBytes())));
        tell("no-timestamp", none, usual.within(10, 10));
        byte[] early = bytes(MemoryRecords.withRecords(Compression.NONE, new SimpleRecord(0, "k".getBytes(), "v".getBytes())));
        tell("timestamp-0", early, usual);
        tell("timestamp-0-limited", early, usual.within(10, 10));
    }
}
