// Kafka Streams' word count, and what feeds and watches it.
//
//   Streams count BROKER STATE     the application: words of topic `lines` are counted into topic `counts`, at least once
//   Streams drive BROKER           reads commands, answers each with a line:
//       topics                     makes the topics
//       say WORD LINES             sends that many lines; line i holds WORD and WORDj, j = i mod 10, in partition i mod 4
//       go on WORD                 sends such lines, a few thousand in a second, until
//       stop                       ends it, and tells how many there were
//       begun WORD                 waits until WORD is counted
//       behind                     whether something is not yet committed
//       done                       waits until all that was sent is counted, and that is committed
//       purged                     waits until the application has deleted what it had between its halves
//       counts                     the counts: WORD=N…
import java.time.Duration;
import java.util.*;
import java.util.concurrent.*;
import org.apache.kafka.clients.admin.*;
import org.apache.kafka.clients.consumer.*;
import org.apache.kafka.clients.producer.*;
import org.apache.kafka.common.TopicPartition;
import org.apache.kafka.common.serialization.*;
import org.apache.kafka.streams.*;
import org.apache.kafka.streams.kstream.*;
import org.apache.kafka.streams.state.Stores;

public class Streams {
    static final String APP = "word-count", LINES = "lines", COUNTS = "counts", BETWEEN = APP + "-words-repartition";
    static String broker;
    static Admin admin;
    static volatile boolean going;
    static CompletableFuture<Integer> gone;

    public static void main(String[] args) throws Exception {
        broker = args[1];
        if (args[0].equals("count")) count(args[2]);
        else drive();
    }

    static void count(String state) {
        Properties p = new Properties();
        p.putAll(Map.of("application.id", APP, "bootstrap.servers", broker, "state.dir", state, "num.stream.threads", "2",
            "commit.interval.ms", "500", "session.timeout.ms", "6000", "heartbeat.interval.ms", "1000", "replication.factor", "1",
            "repartition.purge.interval.ms", "500"));
        p.put("default.key.serde", Serdes.StringSerde.class);
        p.put("default.value.serde", Serdes.StringSerde.class);
        StreamsBuilder b = new StreamsBuilder();
        b.<String, String>stream(LINES).flatMapValues(line -> Arrays.asList(line.split(" ")))
            .groupBy((key, word) -> word, Grouped.as("words"))
            .count(Materialized.<String, Long>as(Stores.inMemoryKeyValueStore("store")).withValueSerde(Serdes.Long()))
            .toStream().to(COUNTS, Produced.with(Serdes.String(), Serdes.Long()));
        KafkaStreams streams = new KafkaStreams(b.build(), p);
        streams.setUncaughtExceptionHandler(e -> {
            e.printStackTrace();
            return org.apache.kafka.streams.errors.StreamsUncaughtExceptionHandler.StreamThreadExceptionResponse.REPLACE_THREAD;
        });
        streams.start();
    }

    static void drive() throws Exception {
        admin = Admin.create(Map.of("bootstrap.servers", broker));
        Scanner in = new Scanner(System.in);
        while (in.hasNextLine()) {
            String[] words = in.nextLine().split(" ");
            switch (words[0]) {
            case "topics" -> {
                admin.createTopics(List.of(new NewTopic(LINES, 4, (short) 1), new NewTopic(COUNTS, 2, (short) 1))).all().get();
                System.out.println("ok");
            }
            case "say" -> {
                going = false;
                System.out.println(say(words[1], Integer.parseInt(words[2])));
            }
            case "go" -> {
                going = true;
                gone = CompletableFuture.supplyAsync(() -> say(words[2], Integer.MAX_VALUE));
                System.out.println("ok");
            }
            case "stop" -> {
                going = false;
                System.out.println(gone.get());
            }
            case "begun" -> {
                while (!counts().containsKey(words[1])) Thread.sleep(50);
                System.out.println("ok");
            }
            case "behind" -> System.out.println(behind());
            case "done" -> {
                while (behind()) Thread.sleep(100);
                System.out.println("ok");
            }
            case "purged" -> {
                while (offsets(BETWEEN, OffsetSpec.earliest()).values().stream().noneMatch(start -> start > 0)) Thread.sleep(100);
                System.out.println("ok");
            }
            case "counts" -> {
                StringBuilder out = new StringBuilder();
                counts().forEach((word, n) -> out.append(word).append('=').append(n).append(' '));
                System.out.println(out);
            }
            }
            System.out.flush();
        }
    }

    static int say(String word, int lines) {
        int i = 0;
        try (KafkaProducer<String, String> p = new KafkaProducer<>(Map.of("bootstrap.servers", broker), new StringSerializer(), new StringSerializer())) {
            boolean paced = going;
            for (; i < lines && paced == going; i++) {
                p.send(new ProducerRecord<>(LINES, i % 4, null, word + " " + word + i % 10));
                if (paced && i % 4 == 0) Thread.sleep(1);
            }
        } catch (InterruptedException e) {
            throw new RuntimeException(e);
        }
        return i;
    }

    /** What is sent between the two halves of the application is on the broker before lines are committed: lines first. */
    static boolean behind() throws Exception {
        return behind(LINES) || behind(BETWEEN);
    }

    static boolean behind(String topic) throws Exception {
        Map<TopicPartition, OffsetAndMetadata> committed = admin.listConsumerGroupOffsets(APP).partitionsToOffsetAndMetadata().get();
        Map<TopicPartition, Long> ends = offsets(topic, OffsetSpec.latest());
        return ends.isEmpty() || ends.entrySet().stream().anyMatch(end -> {
            OffsetAndMetadata at = committed.get(end.getKey());
            return end.getValue() > (at == null ? 0 : at.offset());
        });
    }

    /** None where the topic has not been made yet. */
    static Map<TopicPartition, Long> offsets(String topic, OffsetSpec which) throws Exception {
        Map<TopicPartition, OffsetSpec> ask = new HashMap<>();
        Map<TopicPartition, Long> found = new HashMap<>();
        try {
            admin.describeTopics(List.of(topic)).allTopicNames().get().get(topic).partitions()
                .forEach(p -> ask.put(new TopicPartition(topic, p.partition()), which));
        } catch (ExecutionException e) {
            return found;
        }
        admin.listOffsets(ask).all().get().forEach((part, at) -> found.put(part, at.offset()));
        return found;
    }

    static Map<String, Long> counts() {
        Map<String, Long> found = new TreeMap<>();
        try (KafkaConsumer<String, Long> c = new KafkaConsumer<>(Map.of("bootstrap.servers", broker), new StringDeserializer(), new LongDeserializer())) {
            List<TopicPartition> parts = List.of(new TopicPartition(COUNTS, 0), new TopicPartition(COUNTS, 1));
            c.assign(parts);
            c.seekToBeginning(parts);
            Map<TopicPartition, Long> ends = c.endOffsets(parts);
            while (parts.stream().anyMatch(p -> c.position(p) < ends.get(p)))
                c.poll(Duration.ofMillis(100)).forEach(r -> found.put(r.key(), r.value()));
        }
        return found;
    }
}
