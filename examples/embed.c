/* A broker inside a program, with threads of its own: makes a topic, appends two records, reads them back, stops.
 *
 *     cc embed.c $(pkg-config --cflags --libs chronik) && ./a.out DIRECTORY
 *
 * Kafka clients may connect meanwhile, at the address that it prints. */
#include <stdio.h>
#include <string.h>

#include <chronik/node.h>

static int fail(const char *what, const chronik_error *err) {
    fprintf(stderr, "%s: %s\n", what, err->text);
    return 1;
}

static int use(chronik_node *node) {
    chronik_error err = CHRONIK_ERROR_INIT;
    int rc = chronik_topic_create_sync(node, "greetings", NULL, &err);
    if (rc && rc != CHRONIK_ETOPICEXISTS) return fail("create", &err);

    chronik_header header = {"language", 8, "en", 2};
    chronik_record records[2] = {CHRONIK_RECORD_INIT, CHRONIK_RECORD_INIT};
    records[0].value = "hello", records[0].value_len = 5;
    records[1].key = "k", records[1].key_len = 1;
    records[1].value = "world", records[1].value_len = 5;
    records[1].headers = &header, records[1].header_count = 1;
    int64_t first;
    if (chronik_produce_sync(node, "greetings", 0, records, 2, &err, &first)) return fail("produce", &err);
    printf("appended and synced at offset %lld\n", (long long)first);

    chronik_event *event;
    if (chronik_fetch_sync(node, "greetings", 0, first, NULL, &err, &event)) return fail("fetch", &err);
    chronik_record r = CHRONIK_RECORD_INIT;
    while (chronik_event_record(event, &r) == 1) {
        printf("%lld: %.*s", (long long)r.offset, (int)r.value_len, (const char *)r.value);
        for (size_t i = 0; i < r.header_count; i++)
            printf(" (%.*s: %.*s)", (int)r.headers[i].name_len, r.headers[i].name, (int)r.headers[i].value_len,
                   (const char *)r.headers[i].value);
        putchar('\n');
    }
    chronik_event_free(event);
    return 0;
}

int main(int argc, char **argv) {
    chronik_config *config;
    chronik_queue *queue = NULL;
    chronik_node *node = NULL;
    chronik_error err = CHRONIK_ERROR_INIT;
    int code = 1;
    if (chronik_config_new(&config)) return 1;
    if (chronik_config_set(config, "data.dir", argc > 1 ? argv[1] : "./data", &err) ||
        chronik_config_set(config, "bind", "127.0.0.1", &err) || chronik_config_set(config, "kafka.port", "0", &err) ||
        chronik_config_set(config, "http.enable", "false", &err) || chronik_queue_new(&err, &queue) ||
        chronik_node_new(config, queue, &err, &node) || chronik_node_start(node, &err) ||
        chronik_node_wait_ready(node, -1, &err)) {
        fail("start", &err);
    } else {
        printf("serving at %s\n", chronik_node_address(node, "kafka"));
        code = use(node);
        chronik_node_stop(node, 5000);
        if (chronik_node_wait_stopped(node, -1)) code = 1;
    }
    chronik_node_free(node);
    chronik_queue_free(queue);
    chronik_config_free(config);
    if (!code) puts("done");
    return code;
}
