/* Records how Apache Kafka 3.9, the last release with message formats 0 and 1, judges and converts them: makes message
 * sets with Kafka's own client classes, damages some, gives each to what a broker's produce path runs (the checks of its
 * log, LogValidator), and makes sets of batches as its fetch path does. Prints tests/unit/data/kafka_message_sets.txt:
 *
 *   up name compacted append_time now before after max_bytes error record set-in-hex batch-in-hex
 *   down name format from_offset batch-in-hex set-in-hex
 *
 *   java -cp "$JARS_OF_3_9" tests/oracle/MessageSets.java > tests/unit/data/kafka_message_sets.txt */
import java.io.*;
import java.nio.ByteBuffer;
import java.util.*;
import java.util.function.Consumer;
import java.util.zip.*;
import org.apache.kafka.common.TopicPartition;
import org.apache.kafka.common.compress.Compression;
import org.apache.kafka.common.header.Header;
import org.apache.kafka.common.header.internals.RecordHeader;
import org.apache.kafka.common.protocol.Errors;
import org.apache.kafka.common.record.*;
import org.apache.kafka.common.utils.*;
import org.apache.kafka.server.common.*;
import org.apache.kafka.storage.internals.log.*;

public class MessageSets {
    static final long NOW = 1700000000000L;
    static final int MAX = 1048588;

    record Rules(boolean compacted, boolean appendTime, long before, long after, int max) {
        static Rules usual() { return new Rules(false, false, Long.MAX_VALUE, 3600000, MAX); }
        Rules compact() { return new Rules(true, appendTime, before, after, max); }
        Rules append() { return new Rules(compacted, true, before, after, max); }
        Rules within(long b, long a) { return new Rules(compacted, appendTime, b, a, max); }
        Rules max(int m) { return new Rules(compacted, appendTime, before, after, m); }
    }

    static SimpleRecord rec(int i, boolean keyed) {
        byte[] key = !keyed && i % 3 == 0 ? null : ("key-" + i).getBytes();
        byte[] value = i % 7 == 6 ? null : ("value-" + i + "-").repeat(i % 3).getBytes();
        return new SimpleRecord(i % 5 == 4 ? -1 : NOW - 1000 + (i * 37 % 100), key, value, i % 2 == 0 ? new Header[0] : new Header[] {new RecordHeader("h", ("x" + i).getBytes())});
    }

    static byte[] set(int magic, CompressionType codec, TimestampType type, long base, int n, boolean keyed) {
        MemoryRecordsBuilder b = MemoryRecords.builder(ByteBuffer.allocate(4096), (byte) magic, Compression.of(codec).build(), type, base, NOW);
        for (int i = 0; i < n; i++) {
            SimpleRecord r = rec(i, keyed);
            if (magic == 2) b.append(r);
            else b.append(r.timestamp(), r.key(), r.value());
        }
        return bytes(b.build());
    }

    static byte[] set(int magic, CompressionType codec, int n, boolean keyed) { return set(magic, codec, TimestampType.CREATE_TIME, 0, n, keyed); }

    static byte[] bytes(MemoryRecords r) {
        ByteBuffer b = r.buffer().duplicate();
        byte[] out = new byte[b.remaining()];
        b.get(out);
        return out;
    }

    static byte[] change(byte[] set, Consumer<ByteBuffer> how) {
        byte[] copy = set.clone();
        how.accept(ByteBuffer.wrap(copy));
        return copy;
    }

    static byte[] message(int magic, int attributes, byte[] key, byte[] value) {
        ByteBuffer b = ByteBuffer.allocate(12 + 22 + (key == null ? 0 : key.length) + (value == null ? 0 : value.length) - (magic == 0 ? 8 : 0));
        b.putLong(0).putInt(b.capacity() - 12).putInt(0).put((byte) magic).put((byte) attributes);
        if (magic > 0) b.putLong(NOW);
        b.putInt(key == null ? -1 : key.length).put(key == null ? new byte[0] : key);
        b.putInt(value == null ? -1 : value.length).put(value == null ? new byte[0] : value);
        return sealed(b.array());
    }

    static byte[] sealed(byte[] one) {
        CRC32 crc = new CRC32();
        crc.update(one, 16, one.length - 16);
        ByteBuffer.wrap(one).putInt(12, (int) crc.getValue());
        return one;
    }

    static byte[] wrap(int magic, long offset, byte[]... inner) throws IOException {
        ByteArrayOutputStream out = new ByteArrayOutputStream();
        try (GZIPOutputStream z = new GZIPOutputStream(out)) { z.write(join(inner)); }
        return change(message(magic, 1, null, out.toByteArray()), b -> b.putLong(0, offset));
    }

    static byte[] at(long offset, byte[] message) { return change(message, b -> b.putLong(0, offset)); }

    static byte[] join(byte[]... parts) {
        ByteArrayOutputStream all = new ByteArrayOutputStream();
        for (byte[] p : parts) all.writeBytes(p);
        return all.toByteArray();
    }

    static String hex(byte[] b) { return b.length == 0 ? "-" : HexFormat.of().formatHex(b); }

    static String answer(byte[] data, Rules r) {
        try {
            MemoryRecords records = MemoryRecords.readableRecords(ByteBuffer.wrap(data.clone()));
            CompressionType source = CompressionType.NONE;
            for (MutableRecordBatch b : records.batches()) { /* as UnifiedLog.analyzeAndValidateRecords */
                if (b.sizeInBytes() > r.max) return Errors.MESSAGE_TOO_LARGE + " -1 DATA -";
                if (!b.isValid()) return Errors.CORRUPT_MESSAGE + " -1 DATA -";
                if (b.compressionType() != CompressionType.NONE) source = b.compressionType();
            }
            LogValidator.ValidationResult done = new LogValidator(records, new TopicPartition("t", 0), TIME, source, Compression.of(source).build(), r.compacted,
                RecordBatch.CURRENT_MAGIC_VALUE, r.appendTime ? TimestampType.LOG_APPEND_TIME : TimestampType.CREATE_TIME,
                r.before, r.after, -1, AppendOrigin.CLIENT, MetadataVersion.latestProduction())
                .validateMessagesAndAssignOffsets(PrimitiveRef.ofLong(0), metrics, BufferSupplier.NO_CACHING);
            return "NONE -1 DATA " + hex(bytes(done.validatedRecords));
        } catch (RecordValidationException e) {
            return Errors.forException(e.invalidException()) + " " + e.recordErrors().get(0).batchIndex + " DATA -";
        } catch (Throwable e) {
            return Errors.forException(e) + " -1 DATA -";
        }
    }

    static final LogValidator.MetricsRecorder metrics = new LogValidator.MetricsRecorder() {
        public void recordInvalidMagic() {}
        public void recordInvalidOffset() {}
        public void recordInvalidSequence() {}
        public void recordInvalidChecksums() {}
        public void recordNoKeyCompactedTopic() {}
    };

    static final Time TIME = new MockTime();

    static class MockTime implements Time {
        public long milliseconds() { return NOW; }
        public long nanoseconds() { return 0; }
        public void sleep(long ms) {}
        public void waitObject(Object o, java.util.function.Supplier<Boolean> c, long ms) {}
        public org.apache.kafka.common.utils.Timer timer(long ms) { return null; }
    }

    static void up(String name, byte[] data, Rules r) {
        System.out.println(String.join(" ", "up", name, r.compacted ? "1" : "0", r.appendTime ? "1" : "0", "" + NOW, "" + r.before, "" + r.after, "" + r.max,
            answer(data, r).replace("DATA", hex(data))));
    }

    static void down(String name, byte[] batch, int format, long from) {
        MemoryRecords records = MemoryRecords.readableRecords(ByteBuffer.wrap(batch));
        String made = hex(bytes((MemoryRecords) records.downConvert((byte) format, from, TIME).records()));
        System.out.println(String.join(" ", "down", name, "" + format, "" + from, hex(batch), made));
    }

    public static void main(String[] args) throws Exception {
        Rules usual = Rules.usual();
        CompressionType[] codecs = {CompressionType.NONE, CompressionType.GZIP, CompressionType.SNAPPY, CompressionType.LZ4};
        for (int m = 0; m <= 1; m++) {
            for (CompressionType codec : codecs) {
                String n = "-" + m + "-" + codec.name;
                byte[] ten = set(m, codec, 7, false), keyed = set(m, codec, 7, true);
                up("good" + n, ten, usual);
                up("one" + n, set(m, codec, 1, false), usual);
                up("keyless" + n, ten, usual.compact());
                up("keyed" + n, keyed, usual.compact());
                up("stamped" + n, set(m, codec, 3, false), usual.append());
                up("too-old" + n, ten, usual.within(950, 3600000));
                up("too-old-and-keyless" + n, ten, usual.compact().within(950, 3600000));
                up("just-old-enough" + n, ten, usual.within(1000, 3600000));
                up("too-new" + n, ten, usual.within(Long.MAX_VALUE, -2000));
                up("at-limit" + n, keyed, usual.max(codec == CompressionType.NONE ? 1000 : keyed.length));
                up("over-limit" + n, keyed, usual.max(codec == CompressionType.NONE ? 40 : keyed.length - 1));
                up("crc" + n, change(ten, b -> b.put(20, (byte) (b.get(20) ^ 1))), usual);
                up("cut" + n, Arrays.copyOf(ten, ten.length - 1), usual);
                up("twice" + n, join(ten, ten), usual);
                up("size-13" + n, change(ten, b -> b.putInt(8, 13)), usual);
                up("offset" + n, at(5, ten), usual);
                up("append-time" + n, set(m, codec, TimestampType.LOG_APPEND_TIME, 0, 3, true), usual);
                up("append-time-stamped" + n, set(m, codec, TimestampType.LOG_APPEND_TIME, 0, 3, true), usual.append());
                for (TimestampType type : new TimestampType[] {TimestampType.CREATE_TIME, TimestampType.LOG_APPEND_TIME})
                    for (long from : codec == CompressionType.NONE ? new long[] {0, 77, 80, 83, 90} : new long[] {80})
                        down((type == TimestampType.CREATE_TIME ? "created" : "stamped") + n, set(2, codec, type, 77, 10, false), m, from);
            }
            byte[] one = message(m, 0, "k".getBytes(), "v".getBytes()), other = message(1 - m, 0, "k".getBytes(), "v".getBytes());
            String n = "-" + m;
            up("mixed" + n, join(one, other), usual);
            up("mixed-2" + n, join(one, set(2, CompressionType.NONE, 1, true)), usual);
            up("magic-3" + n, change(one, b -> b.put(16, (byte) 3)), usual);
            up("codec-4" + n, message(m, 4, null, new byte[] {1}), usual);
            up("wrapper-null" + n, message(m, 1, null, null), usual);
            up("wrapper-empty" + n, wrap(m, 0), usual);
            up("wrapper-cut" + n, wrap(m, 0, Arrays.copyOf(one, 20)), usual);
            up("wrapper-one-and-cut" + n, wrap(m, 0, one, Arrays.copyOf(one, 20)), usual);
            up("wrapper-size-13" + n, wrap(m, 0, change(one, b -> b.putInt(8, 13))), usual);
            up("wrapper-nested" + n, wrap(m, 0, wrap(m, 0, one)), usual);
            up("wrapper-other" + n, wrap(m, 1, one, at(1, other)), usual);
            up("wrapper-crc" + n, wrap(m, 1, one, change(at(1, one), b -> b.put(12, (byte) (b.get(12) ^ 1)))), usual);
            up("wrapper-keyless-second" + n, wrap(m, 1, one, at(1, message(m, 0, null, "v".getBytes()))), usual.compact());
            up("wrapper-offsets-0-of-0-0" + n, wrap(m, 0, one, one), usual);
            up("wrapper-offsets-9-of-8-9" + n, wrap(m, 9, at(8, one), at(9, one)), usual);
            up("wrapper-offsets-0-of-8-9" + n, wrap(m, 0, at(8, one), at(9, one)), usual);
            up("wrapper-offsets-1-of-8-9" + n, wrap(m, 1, at(8, one), at(9, one)), usual);
            up("wrapper-stamped" + n, sealed(change(wrap(m, 1, one, at(1, one)), b -> {
                b.put(17, (byte) 9);
                if (m(b) == 1) b.putLong(18, NOW - 500);
            })), usual);
            up("wrapper-stamped-too-old" + n, sealed(change(wrap(m, 1, one, at(1, one)), b -> b.put(17, (byte) 9))), usual.within(Long.MAX_VALUE, -1));
            up("wrapper-stamped-append" + n, sealed(change(wrap(m, 1, one, at(1, one)), b -> b.put(17, (byte) 9))), usual.append());
            up("trailing" + n, sealed(change(message(m, 0, null, "value".getBytes()), b -> b.putInt(m(b) == 0 ? 22 : 30, 2))), usual);
            up("value-minus-5" + n, sealed(change(message(m, 0, null, "value".getBytes()), b -> b.putInt(m(b) == 0 ? 22 : 30, -5))), usual);
            byte[] control = change(set(2, CompressionType.NONE, 1, true), b -> b.putShort(21, (short) 0x20));
            down("control" + n, join(control, set(2, CompressionType.NONE, TimestampType.CREATE_TIME, 5, 1, true)), m, 0);
        }
    }

    static int m(ByteBuffer b) { return b.get(16); }
}
