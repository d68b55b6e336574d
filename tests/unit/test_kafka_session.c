/* Fetch sessions (KIP-227), on a fake broker: against a model, at their limits, and with memory failing. */
#include <check.h>

#include "kafka/session.h"
#include "kafka_client.h"
#include "kafka_fake_broker.h"

enum { PARTS = 5, MINUTE_S = 60, END = 1000 /* an offset at which all has been read */ };
static const uint64_t SECOND = 1000000000;

static cnk_kafka *kafka;
static client c;
static uint64_t seed = 1;

static void open_with(uint32_t slots) {
    cnk_kafka_options options = CNK_KAFKA_OPTIONS_INIT;
    options.session_slots = slots;
    options.session_seed = seed;
    fake_reset();
    for (int p = 0; p < 3; p++) fake.logs[0][p].empty = true;
    ck_assert_int_eq(cnk_kafka_new((cnk_shard *)&fake, &options, &kafka), 0);
    client_open(&c, kafka);
}

static void close_all(void) {
    client_close(&c);
    while (fake.waiting_count > 0) fake_complete(0);
    ck_assert_uint_eq(cnk_kafka_conn_count(kafka), 0);
    ck_assert_uint_eq(fake.fetches_open, 0);
    if (!cnk_kafka_quiesce(kafka)) {
        fake_watches_off();
        ck_assert(cnk_kafka_quiesce(kafka));
    }
    cnk_kafka_free(kafka); /* and asserts that no session's bytes are left */
}

/* ---- a request -------------------------------------------------------------------------------------------------- */

/* Partitions of topic "a" (3 to 4 do not exist), as bits. */
typedef struct ask {
    int32_t id, epoch;
    unsigned want, forget;
    int64_t offset;
} ask;

typedef struct ask_memory {
    cnk_fetch_request m;
    cnk_fetch_request_fetch_topic topic;
    cnk_fetch_request_fetch_partition parts[PARTS];
    cnk_fetch_request_forgotten_topic forgotten;
    int32_t forget[PARTS];
} ask_memory;

static cnk_fetch_request *request(ask_memory *f, int version, ask a) {
    cnk_kafka_defaults(cnk_fetch_request_message.root, &f->m);
    memset(&f->topic, 0, sizeof f->topic);
    memset(&f->forgotten, 0, sizeof f->forgotten);
    f->topic.topic = f->forgotten.topic = version < 13 ? CNK_KAFKA_STRING("a") : (cnk_kafka_string){"", 0};
    if (version >= 13) f->topic.topic_id = f->forgotten.topic_id = fake.topics[0].id;
    f->topic.partitions.items = f->parts;
    f->forgotten.partitions.items = f->forget;
    for (int32_t p = 0; p < PARTS; p++) {
        if (a.want >> p & 1)
            f->parts[f->topic.partitions.count++] = (cnk_fetch_request_fetch_partition){
                .partition = p, .current_leader_epoch = -1, .fetch_offset = a.offset, .last_fetched_epoch = -1,
                .log_start_offset = -1, .partition_max_bytes = 1000, .high_watermark = INT64_MAX};
        if (a.forget >> p & 1) f->forget[f->forgotten.partitions.count++] = p;
    }
    f->m.topics.items = &f->topic;
    f->m.topics.count = a.want != 0;
    f->m.forgotten_topics_data.items = &f->forgotten;
    f->m.forgotten_topics_data.count = a.forget != 0;
    f->m.session_id = a.id;
    f->m.session_epoch = a.epoch;
    return &f->m;
}

typedef struct told {
    int16_t error;
    int32_t id;
    unsigned parts; /* that the answer speaks of */
    int32_t order[PARTS];
    size_t count;
} told;

static told told_of(const cnk_fetch_response *out) {
    told t = {.error = out->error_code, .id = out->session_id};
    for (int32_t i = 0; i < out->responses.count; i++)
        for (int32_t n = 0; n < out->responses.items[i].partitions.count; n++) {
            const int32_t p = out->responses.items[i].partitions.items[n].partition_index;
            ck_assert(!(t.parts >> p & 1));
            t.parts |= 1u << p;
            t.order[t.count++] = p;
        }
    return t;
}

static told fetch(int version, ask a) {
    ask_memory f;
    cnk_fetch_response out;
    fake_news();
    fake.fetch_parts = 0;
    ck_assert(client_call(&c, CNK_KAFKA_API_FETCH, version, request(&f, version, a), &out));
    const told t = told_of(&out);
    cnk_arena_reset(&c.arena);
    return t;
}

static int32_t begin(int version, unsigned want) {
    const told t = fetch(version, (ask){.want = want, .offset = END});
    ck_assert_int_eq(t.error, 0);
    ck_assert_uint_eq(t.parts, want);
    return t.id;
}

/* ---- what is told ------------------------------------------------------------------------------------------------ */

START_TEST(tells_what_changed) {
    open_with(12);
    for (int version = 7; version <= 18; version++) {
        const int32_t id = begin(version, 7);
        ck_assert_int_gt(id, 0);
        told t = fetch(version, (ask){.id = id, .epoch = 1});
        ck_assert_int_eq(t.error, 0);
        ck_assert_int_eq(t.id, id);
        ck_assert_uint_eq(t.parts, 0);
        fake.logs[0][1].high_watermark++;
        ck_assert_uint_eq(fetch(version, (ask){.id = id, .epoch = 2}).parts, 2);
        fake.logs[0][2].log_start++;
        ck_assert_uint_eq(fetch(version, (ask){.id = id, .epoch = 3}).parts, 4);
        fake.logs[0][0].error = CHRONIK_ESTORAGE;
        ck_assert_uint_eq(fetch(version, (ask){.id = id, .epoch = 4}).parts, 1);
        ck_assert_uint_eq(fake.fetch_parts, 1); /* nothing else was looked at */
        ck_assert_uint_eq(fetch(version, (ask){.id = id, .epoch = 5}).parts, 1);
        fake.logs[0][0].error = 0; /* told again, though its watermark is the old one */
        ck_assert_uint_eq(fetch(version, (ask){.id = id, .epoch = 6}).parts, 1);
        ck_assert_uint_eq(fetch(version, (ask){.id = id, .epoch = 7}).parts, 0);
        ck_assert_uint_eq(fetch(version, (ask){.id = id, .epoch = 8, .want = 8}).parts, 8); /* it does not exist */
        ck_assert_uint_eq(fetch(version, (ask){.id = id, .epoch = 9, .forget = 8}).parts, 0);
    }
    close_all();
}
END_TEST

/* Whoever got data goes to the end of the line. */
START_TEST(serves_in_turn) {
    open_with(10);
    const int32_t id = fetch(12, (ask){.want = 7}).id; /* none has been read */
    fake.logs[0][0].empty = false;
    ck_assert_uint_eq(fetch(12, (ask){.id = id, .epoch = 1}).parts, 1);
    for (int p = 0; p < 3; p++) fake.logs[0][p].empty = false;
    told t = fetch(12, (ask){.id = id, .epoch = 2});
    ck_assert_uint_eq(t.count, 3);
    ck_assert_int_eq(t.order[0], 1);
    ck_assert_int_eq(t.order[1], 2);
    ck_assert_int_eq(t.order[2], 0);
    close_all();
}
END_TEST

START_TEST(refuses_what_does_not_fit) {
    open_with(10);
    const int32_t id = begin(12, 1);
    ck_assert_int_eq(fetch(12, (ask){.id = id, .epoch = 2}).error, CNK_KAFKA_INVALID_FETCH_SESSION_EPOCH);
    ck_assert_int_eq(fetch(13, (ask){.id = id, .epoch = 1}).error, CNK_KAFKA_FETCH_SESSION_TOPIC_ID_ERROR);
    ck_assert_int_eq(fetch(12, (ask){.id = id + 1, .epoch = 1}).error, CNK_KAFKA_FETCH_SESSION_ID_NOT_FOUND);
    ck_assert_int_eq(fetch(12, (ask){.id = id, .epoch = -2}).error, CNK_KAFKA_INVALID_FETCH_SESSION_EPOCH);
    told t = fetch(12, (ask){.id = id, .epoch = 1});
    ck_assert_int_eq(t.error, 0);
    ck_assert_int_eq(t.id, id);
    cnk_kafka_session_find(kafka, id)->epoch = INT32_MAX;
    ck_assert_int_eq(fetch(12, (ask){.id = id, .epoch = INT32_MAX}).error, 0);
    ck_assert_int_eq(fetch(12, (ask){.id = id, .epoch = 1}).error, 0);
    t = fetch(12, (ask){.id = id, .epoch = 2, .forget = 1}); /* nothing is left of it */
    ck_assert_int_eq(t.error, 0);
    ck_assert_int_eq(t.id, 0);
    ck_assert_int_eq(fetch(12, (ask){.id = id, .epoch = 3}).error, CNK_KAFKA_FETCH_SESSION_ID_NOT_FOUND);
    const int32_t other = begin(17, 3);
    ck_assert_int_eq(fetch(12, (ask){.id = other, .epoch = 1}).error, CNK_KAFKA_FETCH_SESSION_TOPIC_ID_ERROR);
    t = fetch(17, (ask){.id = other, .epoch = -1, .want = 1}); /* ends it, and makes none */
    ck_assert_int_eq(t.id, 0);
    ck_assert_uint_eq(t.parts, 1);
    ck_assert_int_eq(fetch(17, (ask){.id = other, .epoch = 1}).error, CNK_KAFKA_FETCH_SESSION_ID_NOT_FOUND);
    close_all();
}
END_TEST

/* Two connections use one session at a time: the first is told at once that it is no longer its own; what was forgotten
 * meanwhile stays readable until it has been answered. */
START_TEST(one_fetch_at_a_time) {
    open_with(10);
    client other;
    ask_memory f;
    cnk_reader body;
    cnk_fetch_response out;
    client_open(&other, kafka);
    const int32_t id = begin(12, 7);
    fake.wait = true;
    client_send(&c, CNK_KAFKA_API_FETCH, 12, 1, request(&f, 12, (ask){.id = id, .epoch = 1}));
    client_send(&other, CNK_KAFKA_API_FETCH, 12, 2, request(&f, 12, (ask){.id = id, .epoch = 2, .forget = 3}));
    ck_assert_uint_eq(fake.waiting_count, 1);
    client_drain(&c, SIZE_MAX);
    ck_assert_int_eq(client_next(&c, &body), 1);
    ck_assert(client_decode(&c, CNK_KAFKA_API_FETCH, 12, &body, &out));
    ck_assert_int_eq(out.error_code, CNK_KAFKA_INVALID_FETCH_SESSION_EPOCH);
    ck_assert_int_eq(out.responses.count, 0);
    fake_complete(0);
    client_drain(&other, SIZE_MAX);
    ck_assert_int_eq(client_next(&other, &body), 2);
    ck_assert(client_decode(&other, CNK_KAFKA_API_FETCH, 12, &body, &out));
    ck_assert_int_eq(out.error_code, 0);
    /* Ended while a fetch is under way. */
    client_send(&c, CNK_KAFKA_API_FETCH, 12, 3, request(&f, 12, (ask){.id = id, .epoch = 3}));
    fake.wait = false;
    client_send(&other, CNK_KAFKA_API_FETCH, 12, 4, request(&f, 12, (ask){.id = id, .epoch = -1, .want = 1}));
    ck_assert_ptr_null(cnk_kafka_session_find(kafka, id));
    fake_complete(0);
    client_drain(&c, SIZE_MAX);
    ck_assert_int_eq(client_next(&c, &body), 3);
    client_close(&other);
    close_all();
}
END_TEST

/* A fetch that waits is begun anew with what becomes ready meanwhile, until it has enough. */
START_TEST(waits_for_all) {
    open_with(10);
    ask_memory f;
    cnk_reader body;
    cnk_fetch_response out;
    const int32_t id = begin(12, 7);
    request(&f, 12, (ask){.id = id, .epoch = 1});
    f.m.max_wait_ms = 1000;
    f.m.min_bytes = 100;
    fake.wait = true;
    fake.fetch_parts = 0;
    client_send(&c, CNK_KAFKA_API_FETCH, 12, 1, &f.m);
    ck_assert_uint_eq(fake.waiting_count, 1);
    ck_assert_uint_eq(fake.fetch_parts, 0);
    fake.logs[0][1].high_watermark++;
    fake_news(); /* not enough: it is asked for, and waited for */
    ck_assert_uint_eq(fake.fetch_parts, 1);
    ck_assert_uint_eq(fake.waiting_count, 1);
    fake.logs[0][0].empty = fake.logs[0][2].empty = false;
    fake.logs[0][0].high_watermark++;
    fake.logs[0][2].high_watermark++;
    fake_news();
    ck_assert_uint_eq(fake.waiting_count, 1);
    fake_complete(0);
    client_drain(&c, SIZE_MAX);
    ck_assert_int_eq(client_next(&c, &body), 1);
    ck_assert(client_decode(&c, CNK_KAFKA_API_FETCH, 12, &body, &out));
    const told t = told_of(&out);
    ck_assert_uint_eq(t.parts, 7);
    /* Its time is over: what there is, and no more. */
    for (int p = 0; p < 3; p++) fake.logs[0][p].empty = true;
    request(&f, 12, (ask){.id = id, .epoch = 2, .want = 7, .offset = END});
    f.m.max_wait_ms = 1000;
    f.m.min_bytes = 100;
    client_send(&c, CNK_KAFKA_API_FETCH, 12, 2, &f.m);
    fake.now_ns += 2 * SECOND;
    fake.logs[0][1].high_watermark++;
    fake_complete(0);
    client_drain(&c, SIZE_MAX);
    ck_assert_int_eq(client_next(&c, &body), 2);
    ck_assert_uint_eq(fake.waiting_count, 0);
    close_all();
}
END_TEST

/* Watches that are taken off late: of forgotten partitions, of sessions that end. */
START_TEST(watches_come_off_late) {
    open_with(10);
    const int32_t id = begin(12, 7), other = begin(13, 7);
    fake.watch_late = true;
    ck_assert_uint_eq(fetch(12, (ask){.id = id, .epoch = 1, .forget = 1}).parts, 0);
    ck_assert_uint_eq(fetch(12, (ask){.id = id, .epoch = 2, .want = 1, .offset = END}).parts, 1);
    fake_watches_off();
    ck_assert_uint_eq(fetch(12, (ask){.id = id, .epoch = 3}).parts, 0);
    ck_assert_int_eq(fetch(13, (ask){.id = other, .epoch = -1}).error, 0);
    ck_assert_ptr_null(cnk_kafka_session_find(kafka, other));
    close_all();
}
END_TEST

/* ---- limits ------------------------------------------------------------------------------------------------------ */

START_TEST(idle_ones_make_room) {
    open_with(0);
    ck_assert_int_eq(begin(12, 1), 0);
    close_all();
    open_with(2);
    const int32_t a = begin(12, 1), b = begin(12, 1);
    ck_assert(a > 0 && b > 0 && a != b);
    ck_assert_int_eq(begin(12, 1), 0);
    fake_advance(2 * MINUTE_S * SECOND);
    ck_assert_int_eq(fetch(12, (ask){.id = a, .epoch = 1}).error, 0); /* not idle any more */
    const int32_t d = begin(12, 1);
    ck_assert_int_gt(d, 0);
    ck_assert_int_eq(fetch(12, (ask){.id = b, .epoch = 1}).error, CNK_KAFKA_FETCH_SESSION_ID_NOT_FOUND);
    ck_assert_int_eq(fetch(12, (ask){.id = a, .epoch = 2}).error, 0);
    ck_assert_int_eq(begin(12, 1), 0);
    close_all();
}
END_TEST

/* One topic of many partitions, by steps: over the shard's limit the session ends, and all its memory is given back. */
START_TEST(bytes_are_limited) {
    enum { STEP = 5000 };
    open_with(10);
    cnk_fetch_request_fetch_partition *parts = calloc(STEP, sizeof *parts);
    cnk_fetch_request_fetch_topic topic = {.topic = CNK_KAFKA_STRING("nope"), .partitions = {parts, STEP}};
    cnk_fetch_request in;
    cnk_fetch_response out;
    ck_assert_ptr_nonnull(parts);
    cnk_kafka_defaults(cnk_fetch_request_message.root, &in);
    in.topics.items = &topic;
    in.topics.count = 1;
    in.session_epoch = 0;
    size_t steps = 0;
    for (;; steps++) {
        for (int32_t i = 0; i < STEP; i++)
            parts[i] = (cnk_fetch_request_fetch_partition){.partition = (int32_t)steps * STEP + i, .current_leader_epoch = -1,
                                                           .last_fetched_epoch = -1, .high_watermark = INT64_MAX};
        ck_assert(client_call(&c, CNK_KAFKA_API_FETCH, 12, &in, &out));
        cnk_arena_reset(&c.arena);
        c.in_len = c.in_at = 0;
        ck_assert_uint_le(cnk_counter_get(&kafka->sessions.bytes), CNK_KAFKA_SESSION_BYTES_MAX);
        if (out.error_code) break;
        ck_assert_int_gt(out.session_id, 0);
        in.session_id = out.session_id;
        in.session_epoch++;
    }
    ck_assert_int_eq(out.error_code, CNK_KAFKA_FETCH_SESSION_ID_NOT_FOUND);
    ck_assert_uint_gt(steps, 5);
    ck_assert_uint_eq(cnk_counter_get(&kafka->sessions.bytes), 0);
    free(parts);
    close_all();
}
END_TEST

/* ---- against a model --------------------------------------------------------------------------------------------- */

typedef struct model {
    int32_t id, epoch;
    bool by_id;
    unsigned parts;
    int64_t high_watermark[PARTS], log_start[PARTS];
} model;

static unsigned model_told(model *m) {
    unsigned parts = 0;
    for (int p = 0; p < PARTS; p++) {
        if (!(m->parts >> p & 1)) continue;
        const bool error = p >= 3 || fake.logs[0][p].error;
        const int64_t high = error ? -1 : fake.logs[0][p].high_watermark, low = error ? -1 : fake.logs[0][p].log_start;
        if (error || !fake.logs[0][p].empty || high != m->high_watermark[p] || low != m->log_start[p]) parts |= 1u << p;
        m->high_watermark[p] = high;
        m->log_start[p] = low;
    }
    return parts;
}

static void logs_change(cnk_rng *rng) {
    for (int p = 0; p < 3; p++) {
        if (cnk_rng_chance(rng, 1, 4)) fake.logs[0][p].high_watermark++;
        if (cnk_rng_chance(rng, 1, 10)) fake.logs[0][p].log_start++;
        fake.logs[0][p].error = cnk_rng_chance(rng, 1, 8) ? CHRONIK_ESTORAGE : 0;
        fake.logs[0][p].empty = cnk_rng_chance(rng, 3, 4);
    }
}

static void model_step(cnk_rng *rng, model *m) {
    ask a = {.id = m->id, .epoch = m->epoch, .want = (unsigned)cnk_rng_below(rng, 32), .offset = cnk_rng_chance(rng, 3, 4) ? END : 0};
    const int version = m->by_id ? 17 : 12;
    int16_t want_error = 0;
    if (m->id == 0 || cnk_rng_chance(rng, 1, 20)) { /* anew */
        a.epoch = 0;
        m->parts = a.want;
        memset(m->high_watermark, -1, sizeof m->high_watermark);
        memset(m->log_start, -1, sizeof m->log_start);
    } else if (cnk_rng_chance(rng, 1, 20)) {
        a.epoch += 1 + (int32_t)cnk_rng_below(rng, 3);
        want_error = CNK_KAFKA_INVALID_FETCH_SESSION_EPOCH;
    } else {
        a.want &= (unsigned)cnk_rng_below(rng, 32);
        a.forget = (unsigned)cnk_rng_below(rng, 32) & (unsigned)cnk_rng_below(rng, 32);
        for (int p = 0; p < PARTS; p++)
            if (!(m->parts >> p & 1)) m->high_watermark[p] = m->log_start[p] = -1;
        for (int p = 0; p < PARTS; p++)
            if (a.forget >> p & 1) m->high_watermark[p] = m->log_start[p] = -1;
        m->parts = (m->parts | a.want) & ~a.forget;
    }
    const told t = fetch(version, a);
    ck_assert_int_eq(t.error, want_error);
    if (want_error) return;
    if (a.epoch == 0) {
        (void)model_told(m);
        ck_assert_uint_eq(t.parts, a.want);
        ck_assert_int_gt(t.id, 0);
        m->id = t.id;
        m->epoch = 1;
    } else if (m->parts == 0) { /* it has ended: what the request names is answered all the same, as Kafka does */
        ck_assert_int_eq(t.id, 0);
        ck_assert_uint_eq(t.parts, a.want);
        m->id = 0;
    } else {
        ck_assert_uint_eq(t.parts, model_told(m));
        ck_assert_int_eq(t.id, m->id);
        m->epoch++;
    }
}

START_TEST(against_a_model) {
    for (uint64_t run = 0; run < 60; run++) {
        cnk_rng rng;
        model models[3] = {{0}, {0}, {.by_id = true}};
        cnk_rng_seed(&rng, seed * 1000003u + run);
        open_with(10);
        fake.watch_late = run % 2 == 0;
        for (int step = 0; step < 300; step++) {
            if (cnk_rng_chance(&rng, 1, 3)) fake_watches_off();
            logs_change(&rng);
            model_step(&rng, &models[cnk_rng_below(&rng, 3)]);
        }
        close_all();
    }
}
END_TEST

#ifdef CNK_TEST_HOOKS
/* As far as it is taken: without memory the socket is tried again later. */
static void feed(const cnk_writer *w) {
    size_t fed = 0;
    for (int tries = 0; tries < 5 && fed < w->len; tries++) fed += client_feed(&c, w->data + fed, w->len - fed, 0);
}

/* Each allocation fails in turn: answered, or closed, or told to begin anew; nothing is left. */
START_TEST(memory_fails) {
    enum { ENOUGH = 150 };
    for (long at = 0; at <= ENOUGH; at++) {
        open_with(10);
        const int32_t id = begin(12, 3);
        ask_memory f;
        cnk_writer w[2];
        client_frame(&w[0], CNK_KAFKA_API_FETCH, 12, 1, request(&f, 12, (ask){.id = id, .epoch = 1, .want = 28, .forget = 1}));
        client_frame(&w[1], CNK_KAFKA_API_FETCH, 13, 2, request(&f, 13, (ask){.want = 31}));
        const long before = cnk_mem_count();
        cnk_mem_fail_at(at);
        feed(&w[0]);
        feed(&w[1]);
        cnk_mem_fail_at(-1);
        if (at == ENOUGH) ck_assert_int_lt(cnk_mem_count() - before, at);
        client_drain(&c, SIZE_MAX);
        for (int i = 0; i < 2; i++) cnk_writer_free(&w[i]);
        close_all();
    }
}
END_TEST
#endif

int main(void) {
    if (getenv("CHRONIK_TEST_SEED")) seed = strtoull(getenv("CHRONIK_TEST_SEED"), NULL, 10);
    Suite *s = suite_create("kafka_session");
    TCase *t = tcase_create("all");
    tcase_set_timeout(t, 300);
    tcase_add_test(t, tells_what_changed);
    tcase_add_test(t, serves_in_turn);
    tcase_add_test(t, refuses_what_does_not_fit);
    tcase_add_test(t, one_fetch_at_a_time);
    tcase_add_test(t, waits_for_all);
    tcase_add_test(t, watches_come_off_late);
    tcase_add_test(t, idle_ones_make_room);
    tcase_add_test(t, bytes_are_limited);
    tcase_add_test(t, against_a_model);
#ifdef CNK_TEST_HOOKS
    tcase_add_test(t, memory_fails);
#endif
    suite_add_tcase(s, t);
    SRunner *r = srunner_create(s);
    srunner_run_all(r, CK_NORMAL);
    const int failed = srunner_ntests_failed(r);
    srunner_free(r);
    return failed ? 1 : 0;
}
