/* A whole node, in this process, with each allocation failed in turn: while it starts on data, while clients connect, ask
 * for everything that is offered, produce and fetch, and while it stops.
 *
 * Each turn ends with an answer, an error or a closed connection; the next request is served as if nothing had been. What was
 * acknowledged is there, at its offset, also after a new start. Where the failure meets the write-ahead log's own threads the
 * node may be fenced, as after a failed write: then a new start must mend it. */
#include <arpa/inet.h>
#include <check.h>
#include <errno.h>
#include <poll.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "../oracle/random_message.h"
#include "base/bytes.h"
#include "base/mem.h"
#include "codec/codec.h"
#include "kafka/internal.h"
#include "node_host.h"
#include "record/message_set.h"
#include "record/record.h"

#if defined CNK_TEST_HOOKS && !defined __SANITIZE_THREAD__ /* which makes hundreds of starts take minutes */

enum { ACKED_MAX = 20000, ANSWER_MAX = 4 << 20, QUIET_TURNS = 3, TURNS_MAX = 400, PATIENCE_MS = 20000 };

static host node;
static int client = -1;
static int fences;

/* What was acknowledged: the number in the record at each offset of each topic; 0: nothing. */
typedef struct kept {
    const char *topic;
    int32_t acked[ACKED_MAX];
} kept;
static kept logs[] = {{.topic = "plain"}, {.topic = "packed"}};
static int32_t numbers;

/* ---- the node ----------------------------------------------------------------------------------------------------- */

static chronik_config *config_here(void) {
    char dir[128];
    snprintf(dir, sizeof dir, "%s/data", root);
    chronik_config *c = config_in(dir, "group.initial.rebalance.delay.ms", "0");
    ck_assert_int_eq(chronik_config_set(c, "offsets.topic.num.partitions", "1", &err), 0);
    ck_assert_int_eq(chronik_config_set(c, "log.level", "error", &err), 0);
    return c;
}

static void up(void) {
    node = host_with(config_here());
    host_up(&node);
}

static void hang_up(void) {
    if (client >= 0) close(client);
    client = -1;
}

static void down(void) {
    hang_up();
    host_end(&node);
}

static bool is_fenced(void) {
    chronik_event *e;
    bool fenced = false;
    while (chronik_queue_poll(node.queue, 0, &e) == 1) {
        fenced |= chronik_event_type(e) == CHRONIK_EVENT_FENCED;
        chronik_event_free(e);
    }
    return fenced;
}

/* ---- the client ----------------------------------------------------------------------------------------------------- */

static void dial(void) {
    struct sockaddr_in sa = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    const char *address = chronik_node_address(node.node, "kafka");
    if (client >= 0) return;
    client = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    sa.sin_port = htons((uint16_t)atoi(strrchr(address, ':') + 1));
    ck_assert_int_eq(connect(client, (struct sockaddr *)&sa, sizeof sa), 0);
}

/* -1: the connection was closed; 0: nothing came in time. */
static int receive(uint8_t *to, size_t len, int timeout_ms) {
    for (size_t have = 0; have < len;) {
        struct pollfd p = {client, POLLIN, 0};
        if (poll(&p, 1, timeout_ms) == 0) return 0;
        ssize_t n = recv(client, to + have, len - have, 0);
        if (n <= 0) return -1;
        have += (size_t)n;
    }
    return 1;
}

static uint8_t request[65536], answer[ANSWER_MAX];
static size_t request_len;

/* Sends what is in `request`; the length of the answer behind its correlation id, or -1: there is none. */
static int ask(int timeout_ms) {
    dial();
    ssize_t sent = send(client, request, request_len, MSG_NOSIGNAL);
    int rc = sent == (ssize_t)request_len ? receive(answer, 4, timeout_ms) : -1;
    size_t len = rc == 1 ? cnk_load_be32(answer) : 0;
    ck_assert_uint_le(len, sizeof answer);
    if (rc == 1) rc = receive(answer, len, PATIENCE_MS);
    ck_assert(rc != 0 || timeout_ms < PATIENCE_MS); /* silence is what must not be */
    if (rc != 1) {
        hang_up();
        return -1;
    }
    memmove(answer, answer + 4, len - 4);
    return (int)len - 4;
}

static void frame_begin(cnk_writer *w, int key, int version) {
    cnk_writer_fixed(w, request, sizeof request); /* no allocation */
    cnk_write_be32(w, 0);
    cnk_write_be16(w, (uint16_t)key);
    cnk_write_be16(w, (uint16_t)version);
    cnk_write_be32(w, 1);
    cnk_write_be16(w, 0);
}
static void frame_end(cnk_writer *w) {
    ck_assert_int_eq(w->error, 0);
    request_len = w->len;
    cnk_store_be32(request, (uint32_t)(request_len - 4));
}
static void put_text(cnk_writer *w, const char *s) {
    cnk_write_be16(w, (uint16_t)strlen(s));
    cnk_write_bytes(w, s, strlen(s));
}

/* One record with the next number, of more bytes than compression can hide, as a batch or a message set. */
static void records_of(cnk_writer *out, int32_t number, unsigned codec, bool old) {
    cnk_batch_builder b;
    char value[300];
    memset(value, 'm', sizeof value);
    snprintf(value, sizeof value, "%d", number);
    cnk_record_spec r = {.timestamp = 1700000000000, .key = "k", .key_len = 1, .value = value, .value_len = sizeof value};
    cnk_batch batch;
    cnk_writer_growing(out, 0);
    cnk_batch_builder_init(&b, codec, CNK_CODEC_LEVEL_DEFAULT, 0);
    ck_assert_int_eq(cnk_batch_builder_add(&b, &r), 0);
    ck_assert_int_eq(cnk_batch_builder_finish(&b, out), 0);
    cnk_batch_builder_free(&b);
    if (!old) return;
    cnk_writer set;
    cnk_writer_growing(&set, 0);
    ck_assert_int_eq(cnk_batch_parse(out->data, out->len, &batch), 0);
    ck_assert_int_eq(cnk_message_set_from_batch(&batch, 1, 0, 1 << 20, &set), 0);
    cnk_writer_free(out);
    *out = set;
}

static void produce_frame(const char *topic, int version, int32_t number, unsigned codec) {
    cnk_writer w, data;
    records_of(&data, number, codec, version < 3);
    frame_begin(&w, CNK_KAFKA_API_PRODUCE, version);
    if (version >= 3) cnk_write_be16(&w, 0xffff);
    cnk_write_be16(&w, 0xffff);
    cnk_write_be32(&w, PATIENCE_MS);
    cnk_write_be32(&w, 1);
    put_text(&w, topic);
    cnk_write_be32(&w, 1);
    cnk_write_be32(&w, 0);
    cnk_write_be32(&w, (uint32_t)data.len);
    cnk_write_bytes(&w, data.data, data.len);
    frame_end(&w);
    cnk_writer_free(&data);
}

static void fetch_frame(const char *topic, int version, int64_t offset) {
    cnk_writer w;
    frame_begin(&w, CNK_KAFKA_API_FETCH, version);
    cnk_write_be32(&w, UINT32_MAX);
    cnk_write_be32(&w, 0);
    cnk_write_be32(&w, 1);
    if (version >= 3) cnk_write_be32(&w, 1 << 20);
    if (version >= 4) cnk_write_u8(&w, 0);
    if (version >= 7) cnk_write_be64(&w, 0); /* a new session */
    cnk_write_be32(&w, 1);
    put_text(&w, topic);
    cnk_write_be32(&w, 1);
    cnk_write_be32(&w, 0);
    cnk_write_be64(&w, (uint64_t)offset);
    if (version >= 5) cnk_write_be64(&w, UINT64_MAX);
    cnk_write_be32(&w, 1 << 20);
    if (version >= 7) cnk_write_be32(&w, 0);
    frame_end(&w);
}

static kept *log_of(const char *topic) { return strcmp(topic, logs[0].topic) == 0 ? &logs[0] : &logs[1]; }

/* The answer to what produce_frame made: notes what was acknowledged. The error, or -1 where there is no answer. */
static int produced(const char *topic, int32_t number, int len) {
    size_t at = 4 + 2 + strlen(topic) + 8;
    if (len < 0) return -1;
    ck_assert_int_ge(len, (int)at + 10);
    int error = (int16_t)cnk_load_be16(answer + at);
    if (error == 0) {
        int64_t offset = (int64_t)cnk_load_be64(answer + at + 2);
        ck_assert(offset >= 0 && offset < ACKED_MAX);
        ck_assert_int_eq(log_of(topic)->acked[offset], 0);
        log_of(topic)->acked[offset] = number;
    }
    return error;
}

static int produce_one(const char *topic, int version, unsigned codec) {
    int32_t number = ++numbers;
    produce_frame(topic, version, number, codec);
    return produced(topic, number, ask(PATIENCE_MS));
}

/* ---- what must hold --------------------------------------------------------------------------------------------------- */

static int64_t check_batch(const kept *k, const uint8_t *data, size_t len, int64_t next) {
    cnk_batch batch;
    cnk_records records;
    cnk_record r;
    ck_assert_int_eq(cnk_batch_parse(data, len, &batch), 0);
    ck_assert_int_eq(batch.base_offset, next);
    ck_assert_int_eq(cnk_records_open(&batch, 1 << 20, &records), 0);
    for (; cnk_records_next(&records, &r) == 1; next++)
        if (next < ACKED_MAX && k->acked[next] != 0) ck_assert_int_eq(atoi((const char *)r.value), k->acked[next]);
    cnk_records_close(&records);
    return next;
}

/* Every record that was acknowledged is there, and is itself. */
static void check_log(const kept *k) {
    int64_t next = 0, end = 1;
    while (next < end) {
        fetch_frame(k->topic, 4, next);
        int len = ask(PATIENCE_MS);
        size_t at = 8 + 2 + strlen(k->topic) + 8;
        ck_assert_int_ge(len, (int)at + 26);
        ck_assert_int_eq(cnk_load_be16(answer + at), 0);
        end = (int64_t)cnk_load_be64(answer + at + 2);
        for (at += 26; at + 12 <= (size_t)len;) {
            size_t bytes = 12 + cnk_load_be32(answer + at + 8);
            ck_assert_uint_le(at + bytes, (size_t)len);
            next = check_batch(k, answer + at, bytes, next);
            at += bytes;
        }
    }
    for (int64_t i = end; i < ACKED_MAX; i++) ck_assert_int_eq(k->acked[i], 0);
}

static void check_logs(void) {
    for (size_t i = 0; i < 2; i++) check_log(&logs[i]);
}

/* After a failure: served as ever, at once or, where the node was fenced, after a new start. */
static void serves(void) {
    if (produce_one("plain", 7, CNK_CODEC_NONE) == 0) return;
    if (!is_fenced()) { /* the failure may still have been under way */
        ck_assert_int_eq(produce_one("plain", 7, CNK_CODEC_NONE), 0);
        return;
    }
    fences++;
    down();
    up();
    check_logs();
    ck_assert_int_eq(produce_one("plain", 7, CNK_CODEC_NONE), 0);
}

static void create_topic(const char *name, const char *codec) {
    cnk_writer w;
    frame_begin(&w, CNK_KAFKA_API_CREATE_TOPICS, 2);
    cnk_write_be32(&w, 1);
    put_text(&w, name);
    cnk_write_be32(&w, 1);
    cnk_write_be16(&w, 1);
    cnk_write_be32(&w, 0);
    cnk_write_be32(&w, 1);
    put_text(&w, "compression.type");
    put_text(&w, codec);
    cnk_write_be32(&w, PATIENCE_MS);
    cnk_write_u8(&w, 0);
    frame_end(&w);
}

static void make_commit(int i) {
    cnk_writer w;
    (void)i;
    frame_begin(&w, CNK_KAFKA_API_OFFSET_COMMIT, 2);
    put_text(&w, "group");
    cnk_write_be32(&w, UINT32_MAX);
    put_text(&w, "");
    cnk_write_be64(&w, UINT64_MAX);
    cnk_write_be32(&w, 1);
    put_text(&w, "plain");
    cnk_write_be32(&w, 1);
    cnk_write_be32(&w, 0);
    cnk_write_be64(&w, (uint64_t)i);
    put_text(&w, "meta");
    frame_end(&w);
}

/* The coordinator's topic is made when somebody asks for it, and loaded: commits until one gets through. */
static void group_up(void) {
    cnk_writer w;
    for (int i = 0, error = -1; error != 0; i++) {
        ck_assert_int_lt(i, 1000);
        frame_begin(&w, CNK_KAFKA_API_FIND_COORDINATOR, 1);
        put_text(&w, "group");
        cnk_write_u8(&w, 0);
        frame_end(&w);
        ck_assert_int_gt(ask(PATIENCE_MS), 0);
        make_commit(i);
        ck_assert_int_eq(ask(PATIENCE_MS), 4 + 2 + 5 + 4 + 4 + 2);
        error = cnk_load_be16(answer + 19);
        if (error != 0) nanosleep(&(struct timespec){0, 5000000}, NULL);
    }
}

static void setup(void) {
    root_make();
    memset(logs[0].acked, 0, sizeof logs[0].acked);
    memset(logs[1].acked, 0, sizeof logs[1].acked);
    numbers = fences = 0;
    up();
    create_topic("plain", "producer");
    ck_assert_int_gt(ask(PATIENCE_MS), 0);
    create_topic("packed", "lz4");
    ck_assert_int_gt(ask(PATIENCE_MS), 0);
    for (int i = 0; i < 20; i++) {
        ck_assert_int_eq(produce_one("plain", 7, CNK_CODEC_NONE), 0);
        ck_assert_int_eq(produce_one("packed", 7, CNK_CODEC_GZIP), 0);
    }
    group_up();
}

static void teardown(void) {
    down();
    up();
    check_logs();
    down();
    root_remove();
}

/* ---- turns ------------------------------------------------------------------------------------------------------------ */

/* One turn of what is in `request`; true: an allocation has failed. */
static bool turn(long n, int timeout_ms, int *ret_len) {
    long before = cnk_mem_count();
    cnk_mem_fail_at(n);
    *ret_len = ask(timeout_ms);
    cnk_mem_fail_at(-1);
    return cnk_mem_count() - before > n;
}

/* Every allocation of a request that `make` makes anew each time; gives their number. */
static int every_turn(void (*make)(int i), bool connected, void (*seen)(int i, int len)) {
    int failures = 0, quiet = 0;
    for (int n = 0; quiet < QUIET_TURNS && n < TURNS_MAX; n++) {
        int len;
        make(n);
        if (connected) dial();
        else hang_up();
        bool failed = turn(n, PATIENCE_MS, &len);
        if (seen) seen(n, len);
        if (!failed) {
            quiet++;
            ck_assert_int_gt(len, 0);
            continue;
        }
        quiet = 0;
        failures++;
        serves();
        group_up(); /* a coordinator that lacked memory is loaded anew */
    }
    return failures;
}

static void make_versions(int i) {
    cnk_writer w;
    (void)i;
    frame_begin(&w, CNK_KAFKA_API_API_VERSIONS, 0);
    frame_end(&w);
}
static int32_t sent_number;
static void make_produce(int i) { (void)i; produce_frame("plain", 7, sent_number = ++numbers, CNK_CODEC_NONE); }
static void make_packed(int i) { (void)i; produce_frame("packed", 7, sent_number = ++numbers, CNK_CODEC_GZIP); }
static void make_old(int i) { (void)i; produce_frame("plain", 2, sent_number = ++numbers, CNK_CODEC_GZIP); }
static void seen_plain(int i, int len) { (void)i; (void)produced("plain", sent_number, len); }
static void seen_packed(int i, int len) { (void)i; (void)produced("packed", sent_number, len); }
static void make_fetch(int i) { fetch_frame("plain", 4, i % 20); }
static void make_fetch_session(int i) { fetch_frame("plain", 7, i % 20); }
static void make_fetch_old(int i) { fetch_frame("packed", 2, i % 20); }
static void make_topic(int i) {
    char name[32];
    snprintf(name, sizeof name, "more-%d-%d", numbers, i);
    create_topic(name, "zstd");
}
static void make_join(int i) {
    cnk_writer w;
    char group[32];
    snprintf(group, sizeof group, "group-%d", i);
    frame_begin(&w, CNK_KAFKA_API_JOIN_GROUP, 1);
    put_text(&w, group);
    cnk_write_be32(&w, 6000);
    cnk_write_be32(&w, 6000);
    put_text(&w, "");
    put_text(&w, "consumer");
    cnk_write_be32(&w, 1);
    put_text(&w, "range");
    cnk_write_be32(&w, 3);
    cnk_write_bytes(&w, "abc", 3);
    frame_end(&w);
}
START_TEST(each_allocation_of_a_request_may_fail) {
    static const struct {
        const char *what;
        void (*make)(int i);
        void (*seen)(int i, int len);
        bool connected;
        int least;
    } kinds[] = {
        {"connecting", make_versions, NULL, false, 3},  {"ApiVersions", make_versions, NULL, true, 0},
        {"Produce", make_produce, seen_plain, true, 0}, {"Produce, recompressed", make_packed, seen_packed, true, 2},
        {"Produce 2", make_old, seen_plain, true, 2},   {"Fetch", make_fetch, NULL, true, 2},
        {"Fetch, session", make_fetch_session, NULL, true, 3},
        {"Fetch 2", make_fetch_old, NULL, true, 4},     {"CreateTopics", make_topic, NULL, true, 10},
        {"JoinGroup", make_join, NULL, true, 5},        {"OffsetCommit", make_commit, NULL, true, 2}};
    for (size_t k = 0; k < sizeof kinds / sizeof *kinds; k++) {
        int failures = every_turn(kinds[k].make, kinds[k].connected, kinds[k].seen);
        ck_assert_msg(failures >= kinds[k].least, "%s: %d allocations", kinds[k].what, failures);
    }
    check_logs();
}
END_TEST

/* Random requests of every API and version: whatever their answer, it comes, or the connection is closed. */
START_TEST(each_allocation_of_every_api_may_fail) {
    static const int16_t not_these[] = {CNK_KAFKA_API_PRODUCE, CNK_KAFKA_API_FETCH, CNK_KAFKA_API_JOIN_GROUP,
                                        CNK_KAFKA_API_SYNC_GROUP}; /* may be answered late or never */
    int failures = 0;
    cnk_rng rng;
    cnk_rng_seed(&rng, 7);
    for (size_t a = 0; a < cnk_kafka_api_count; a++) {
        const cnk_kafka_api *api = &cnk_kafka_apis[a];
        bool skip = false;
        for (size_t i = 0; i < sizeof not_these / sizeof *not_these; i++) skip |= api->key == not_these[i];
        for (int v = api->version_min; v <= api->version_max && !skip; v++) {
            cnk_arena arena;
            cnk_writer w;
            uint64_t value[64];
            cnk_arena_init(&arena, 4096, 0);
            random_struct(&rng, &arena, api->request->root, v, (uint8_t *)value);
            frame_begin(&w, api->key, v);
            if (v >= api->request->flexible_min) cnk_write_uvarint(&w, 0);
            if (cnk_kafka_encode(api->request, v, value, &w) == 0) {
                frame_end(&w);
                size_t len = request_len;
                uint8_t *copy = cnk_memdup(request, len);
                for (int n = 0, quiet = 0; quiet < QUIET_TURNS && n < TURNS_MAX; n++) {
                    int got;
                    memcpy(request, copy, request_len = len);
                    dial();
                    bool failed = turn(n, PATIENCE_MS, &got);
                    quiet = failed ? 0 : quiet + 1;
                    failures += failed;
                    if (!failed) continue;
                    serves();
                    group_up();
                }
                cnk_free(copy);
            }
            cnk_arena_free(&arena);
        }
    }
    ck_assert_int_gt(failures, 60);
    check_logs();
}
END_TEST

/* On data: what cannot start says so, and changes nothing. */
START_TEST(each_allocation_of_a_start_on_data_may_fail) {
    int refused = 0, quiet = 0;
    down();
    for (long n = 0; quiet < QUIET_TURNS && n < 5000; n += n < 200 ? 1 : 5) {
        node = host_with(config_here());
        long before = cnk_mem_count();
        cnk_mem_fail_at(n);
        memset(&err, 0, sizeof err);
        int rc = chronik_node_start(node.node, &err);
        if (!rc) rc = chronik_node_wait_ready(node.node, PATIENCE_MS, &err);
        cnk_mem_fail_at(-1);
        quiet = cnk_mem_count() - before > n ? 0 : quiet + 1;
        ck_assert_msg(rc == 0 || (rc == CHRONIK_ENOMEM && err.text[0]), "allocation %ld: %d: %s", n, rc, err.text);
        refused += rc != 0;
        if (rc == 0) serves();
        hang_up();
        chronik_node_free(node.node);
        chronik_queue_free(node.queue);
        chronik_config_free(node.config);
    }
    ck_assert_int_gt(refused, 50);
    up();
    check_logs();
}
END_TEST

START_TEST(each_allocation_of_a_stop_may_fail) {
    int failures = 0, quiet = 0;
    for (long n = 0; quiet < QUIET_TURNS && n < TURNS_MAX; n++) {
        for (int i = 0; i < 3; i++) ck_assert_int_eq(produce_one(i % 2 ? "packed" : "plain", 7, CNK_CODEC_NONE), 0);
        long before = cnk_mem_count();
        cnk_mem_fail_at(n);
        chronik_node_stop(node.node, 5000);
        int rc = chronik_node_wait_stopped(node.node, PATIENCE_MS);
        cnk_mem_fail_at(-1);
        bool failed = cnk_mem_count() - before > n;
        ck_assert_msg(rc == 0 || failed, "allocation %ld: %d", n, rc);
        ck_assert_int_ne(rc, CHRONIK_ETIMEDOUT);
        failures += failed;
        quiet = failed ? 0 : quiet + 1;
        hang_up();
        chronik_node_free(node.node);
        chronik_queue_free(node.queue);
        chronik_config_free(node.config);
        up();
    }
    (void)failures; /* may be none */
    check_logs();
}
END_TEST

#endif

int main(void) {
#if defined CNK_TEST_HOOKS && !defined __SANITIZE_THREAD__
    Suite *s = suite_create("node_memory");
    TCase *t = tcase_create("memory");
    tcase_add_checked_fixture(t, setup, teardown);
    tcase_add_test(t, each_allocation_of_a_request_may_fail);
    tcase_add_test(t, each_allocation_of_every_api_may_fail);
    tcase_add_test(t, each_allocation_of_a_start_on_data_may_fail);
    tcase_add_test(t, each_allocation_of_a_stop_may_fail);
    tcase_set_timeout(t, 300);
    suite_add_tcase(s, t);
    SRunner *r = srunner_create(s);
    srunner_run_all(r, CK_ENV);
    int failed = srunner_ntests_failed(r);
    srunner_free(r);
    return failed != 0;
#else
    puts("no allocation is made to fail in this build, or it would take minutes");
    return 77;
#endif
}
