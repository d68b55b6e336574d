// Runs the main methods of Apache Kafka's tools, one after the other, in this one JVM, and tells what they printed.
//
// Each line of standard input is a call, {"class", "args", "input"}; each line of standard output tells how it went,
// {"status", "out"}: out is what the tool wrote to both of its streams, in its order. A tool that exits stops there, as a
// process would: its thread is left where it stands, once its shutdown hooks have run.
//
// Two classes stand for no tool. `Join TOPIC GROUP CLIENT INSTANCE` starts a consumer that stays in the group, and returns
// when it has been given partitions; `Leave` ends all of these, the last one first.
import com.fasterxml.jackson.databind.*;
import java.io.*;
import java.lang.reflect.Field;
import java.lang.reflect.InvocationTargetException;
import java.time.Duration;
import java.util.*;
import java.util.concurrent.*;
import org.apache.kafka.clients.consumer.KafkaConsumer;
import org.apache.kafka.common.serialization.ByteArrayDeserializer;
import org.apache.kafka.common.utils.Exit;

public class Tools {
    static final long LIMIT_S = 60;
    static final ObjectMapper JSON = new ObjectMapper();
    static final ByteArrayOutputStream printed = new ByteArrayOutputStream();
    static final Deque<Member> members = new ArrayDeque<>();
    static volatile CompletableFuture<Integer> status;
    static volatile List<Runnable> hooks;
    static Map<Thread, Thread> jvmHooks;

    @SuppressWarnings({"removal", "unchecked"})
    public static void main(String[] argv) throws Exception {
        Field registered = Class.forName("java.lang.ApplicationShutdownHooks").getDeclaredField("hooks");
        registered.setAccessible(true);
        jvmHooks = (Map<Thread, Thread>) registered.get(null);
        jvmHooks.clear();
        try {
            System.setSecurityManager(new NoExit());
        } catch (UnsupportedOperationException e) {
            Runtime.getRuntime().halt(77);
        }
        PrintStream answers = System.out;
        PrintStream shared = new PrintStream(printed, true, "UTF-8");
        System.setOut(shared); // once: Scala keeps the stream that it finds first
        System.setErr(shared);
        Exit.setExitProcedure((code, message) -> exit(code));
        Exit.setHaltProcedure((code, message) -> exit(code));
        Exit.setShutdownHookAdder((name, hook) -> hooks.add(hook));
        BufferedReader calls = new BufferedReader(new InputStreamReader(System.in, "UTF-8"));
        for (String line; (line = calls.readLine()) != null; ) {
            JsonNode call = JSON.readTree(line);
            printed.reset();
            System.setIn(new ByteArrayInputStream(call.get("input").asText().getBytes("UTF-8")));
            int code = run(call.get("class").asText(), JSON.convertValue(call.get("args"), String[].class));
            shared.flush();
            answers.println(JSON.writeValueAsString(Map.of("status", code, "out", printed.toString("UTF-8"))));
            answers.flush();
        }
    }

    static int run(String name, String[] args) throws Exception {
        if (name.equals("Join")) return join(args);
        if (name.equals("Leave")) return leave();
        CompletableFuture<Integer> ended = status = new CompletableFuture<>();
        hooks = new CopyOnWriteArrayList<>();
        Thread tool = new Thread(() -> {
            int code = 0;
            try {
                Class.forName(name).getMethod("main", String[].class).invoke(null, (Object) args);
            } catch (InvocationTargetException e) {
                e.getCause().printStackTrace();
                code = 1;
            } catch (ReflectiveOperationException e) {
                e.printStackTrace();
                code = 1;
            }
            ended.complete(code);
        }, "tool");
        tool.setDaemon(true);
        tool.start();
        try {
            int code = ended.get(LIMIT_S, TimeUnit.SECONDS);
            hooks.addAll(jvmHooks.keySet());
            jvmHooks.clear();
            for (Runnable hook : hooks) hook.run();
            return code;
        } catch (TimeoutException e) {
            System.out.println("not done after " + LIMIT_S + " s");
            return 1;
        }
    }

    /** A few tools, and what parses their arguments, call System.exit. */
    @SuppressWarnings("removal")
    static class NoExit extends SecurityManager {
        @Override public void checkExit(int code) {
            exit(code);
        }

        @Override public void checkPermission(java.security.Permission any) {}

        @Override public void checkPermission(java.security.Permission any, Object context) {}
    }

    static void exit(int code) {
        status.complete(code);
        while (true) {
            try {
                Thread.sleep(Long.MAX_VALUE);
            } catch (InterruptedException e) {
                // nothing wakes it for good
            }
        }
    }

    static int join(String[] args) throws Exception {
        Map<String, Object> config = new HashMap<>(Map.of("bootstrap.servers", args[1], "group.id", args[3], "client.id", args[4], "heartbeat.interval.ms", 500,
            "key.deserializer", ByteArrayDeserializer.class, "value.deserializer", ByteArrayDeserializer.class));
        if (args.length > 5) config.put("group.instance.id", args[5]);
        KafkaConsumer<byte[], byte[]> consumer = new KafkaConsumer<>(config);
        consumer.subscribe(List.of(args[2]));
        Member member = new Member(consumer);
        member.setDaemon(true);
        member.start();
        members.push(member);
        return member.assigned.await(LIMIT_S, TimeUnit.SECONDS) ? 0 : 1;
    }

    static int leave() throws InterruptedException {
        for (Member member : members) {
            member.leaving = true;
            member.join();
        }
        members.clear();
        return 0;
    }

    static class Member extends Thread {
        final KafkaConsumer<?, ?> consumer;
        final CountDownLatch assigned = new CountDownLatch(1);
        volatile boolean leaving;

        Member(KafkaConsumer<?, ?> consumer) {
            this.consumer = consumer;
        }

        @Override public void run() {
            while (!leaving) {
                consumer.poll(Duration.ofMillis(100));
                if (!consumer.assignment().isEmpty()) assigned.countDown();
            }
            consumer.close();
        }
    }
}
