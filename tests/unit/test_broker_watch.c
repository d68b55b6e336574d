/* Watches of partitions, with one shard and with three: each fires once, when what its holder was told is no longer so,
 * whatever happens at the same time; and a fetch of nothing that waits for them. */
#include "broker_world.h"

#include "base/rng.h"

enum { TOPICS = 2, PARTITIONS = 4, WATCHES = TOPICS * PARTITIONS, ROUNDS = 400 };

static world w;
static uint64_t seed = 1;

static void open_one(void) { world_new(&w, 1); }
static void open_three(void) { world_new(&w, 3); }
static void close_all(void) { world_free(&w); }

/* One holder, on a shard of its own choice. What is below belongs to that shard's thread. */
typedef struct holder {
    cnk_watcher watcher;
    cnk_watch watches[WATCHES];
    unsigned fired[WATCHES], offs;
    bool off_wanted[WATCHES];
    cnk_fetch *hurry; /* at the first news */
} holder;

static holder h;
static const char *const names[TOPICS] = {"t", "u"};

static void news(cnk_watcher *watcher) {
    for (cnk_watch *watch; (watch = cnk_watch_next(watcher)) != NULL;) h.fired[watch - h.watches]++;
    if (h.hurry) cnk_broker_fetch_hurry(h.hurry);
    h.hurry = NULL;
}

static void off(cnk_watch *watch) {
    ck_assert(h.off_wanted[watch - h.watches]);
    h.off_wanted[watch - h.watches] = false;
    h.offs++;
}

typedef struct step { /* something that is done on the holder's shard */
    enum { OPEN, ARM, DISARM, LOOK, CLOSE } what;
    int watch;
    int64_t high_watermark, log_start;
    bool said; /* what arming and disarming say; LOOK: it is armed */
    unsigned fired;
} step;

static int step_start(call *c) {
    step *s = c->op;
    cnk_watch *watch = &h.watches[s->watch];
    if (s->what == OPEN) {
        memset(&h, 0, sizeof h);
        cnk_watcher_init(&h.watcher, c->shard, news, off);
    } else if (s->what == ARM) {
        s->said = cnk_watch_arm(&h.watcher, watch, text(names[s->watch / PARTITIONS]), NULL, s->watch % PARTITIONS,
                                s->high_watermark, s->log_start);
    } else if (s->what == DISARM) {
        s->said = cnk_watch_disarm(watch);
        h.off_wanted[s->watch] |= !s->said;
    } else if (s->what == LOOK) {
        s->said = watch->state == CNK_WATCH_ARMED;
    } else {
        cnk_watcher_close(&h.watcher);
    }
    s->fired = h.fired[s->watch];
    return CNK_DONE;
}

static step on_holder(size_t shard, step s) {
    call c;
    call_begin(&w, shard, &c, step_start, &s);
    call_wait(&c);
    return s;
}

/* Until the watch has fired as often, or is off. */
static void wait_fired(size_t shard, int watch, unsigned times) {
    while (on_holder(shard, (step){.what = LOOK, .watch = watch}).fired < times) usleep(1000);
}
static void wait_off(size_t shard, int watch) {
    while (!on_holder(shard, (step){.what = DISARM, .watch = watch}).said) usleep(1000);
}

static step arm(size_t shard, int watch, int64_t high_watermark) {
    return on_holder(shard, (step){.what = ARM, .watch = watch, .high_watermark = high_watermark});
}

START_TEST(test_fires_once) {
    ck_assert_int_eq(create(&w, "t", PARTITIONS), 0);
    for (size_t shard = 0; shard < w.shard_count; shard++) {
        on_holder(shard, (step){.what = OPEN});
        for (int p = 0; p < PARTITIONS; p++) {
            const int64_t end = fetch(&w, "t", p, 0).high_watermark;
            ck_assert(arm(shard, p, end).said);
            ck_assert_int_eq(produce(&w, "t", p, 2), 0);
            wait_fired(shard, p, 1);
            ck_assert_int_eq(produce(&w, "t", p, 2), 0);
            ck_assert(arm(shard, p, end + 2).said); /* too late already */
            wait_fired(shard, p, 2);
            ck_assert(arm(shard, p, end + 4).said);
            for (int other = 0; other < PARTITIONS; other++)
                if (other != p) ck_assert_int_eq(produce(&w, "t", other, 1), 0);
            const step s = on_holder(shard, (step){.what = LOOK, .watch = p});
            ck_assert(s.said);
            ck_assert_uint_eq(s.fired, 2);
        }
        ck_assert(!arm(shard, PARTITIONS, 0).said); /* no such topic */
        for (int p = 0; p < PARTITIONS; p++) wait_off(shard, p);
        on_holder(shard, (step){.what = CLOSE});
    }
    on_holder(0, (step){.what = OPEN});
    ck_assert(arm(0, 1, fetch(&w, "t", 1, 0).high_watermark).said);
    ck_assert_int_eq(delete_one(&w, "t"), 0);
    wait_fired(0, 1, 1);
    on_holder(0, (step){.what = CLOSE});
}
END_TEST

static int hurried_start(call *c) {
    cnk_fetch *op = c->op;
    const int rc = fetch_start(c);
    h.hurry = op;
    return rc;
}

/* A fetch that asks for nothing, and waits for news. */
START_TEST(test_fetch_waits_for_news) {
    ck_assert_int_eq(create(&w, "t", PARTITIONS), 0);
    for (size_t shard = 0; shard < w.shard_count; shard++) {
        call c, e;
        cnk_fetch op = {.max_wait_ms = 600000, .min_bytes = 1, .bytes_max = 1000, .watching = true};
        on_holder(shard, (step){.what = OPEN});
        for (int p = 0; p < PARTITIONS; p++) ck_assert(arm(shard, p, fetch(&w, "t", p, 0).high_watermark).said);
        call_begin(&w, shard, &c, hurried_start, &op);
        for (int p = 0; p < PARTITIONS; p++) ck_assert_int_eq(produce(&w, "t", p, 1), 0);
        ck_assert_int_eq(call_wait(&c), 0);
        call_begin(&w, shard, &e, fetch_end_start, &op);
        call_wait(&e);
        for (int p = 0; p < PARTITIONS; p++) wait_fired(shard, p, 1);
        on_holder(shard, (step){.what = CLOSE});
    }
}
END_TEST

typedef struct producer_thread { /* a message to shard 0 or 1 at a time, on and on */
    call call;
    cnk_produce op;
    cnk_produce_part part;
    cnk_writer batch;
    bool waits;
} producer_thread;

static void produce_begin(cnk_rng *rng, producer_thread *t) {
    make_batch(&t->batch, 1, 1700000000000, no_producer, 10);
    t->part = (cnk_produce_part){.topic = text(names[cnk_rng_below(rng, TOPICS)]),
                                 .partition = (int32_t)cnk_rng_below(rng, PARTITIONS),
                                 .data = t->batch.data, .len = (uint32_t)t->batch.len};
    t->op = (cnk_produce){.acks = -1, .timeout_ms = 60000, .version = 11, .parts = &t->part, .part_count = 1};
    call_begin(&w, cnk_rng_below(rng, w.shard_count), &t->call, produce_start, &t->op);
    t->waits = true;
}

static void produce_end(producer_thread *t) {
    if (t->waits) ck_assert_int_eq(call_wait(&t->call), 0);
    if (t->waits) cnk_writer_free(&t->batch);
    t->waits = false;
}

/* Arming, disarming, producing, topics that go and come: at the end each watch that is armed still says the truth. */
START_TEST(test_random) {
    cnk_rng rng;
    cnk_rng_seed(&rng, seed);
    for (int t = 0; t < TOPICS; t++) ck_assert_int_eq(create(&w, names[t], PARTITIONS), 0);
    const size_t shard = w.shard_count - 1;
    on_holder(shard, (step){.what = OPEN});
    producer_thread producers[3] = {{.waits = false}};
    for (int round = 0; round < ROUNDS; round++) {
        producer_thread *t = &producers[cnk_rng_below(&rng, 3)];
        produce_end(t);
        produce_begin(&rng, t);
        const int watch = (int)cnk_rng_below(&rng, WATCHES);
        const fetched now = fetch(&w, names[watch / PARTITIONS], watch % PARTITIONS, 0);
        if (cnk_rng_chance(&rng, 1, 3)) {
            on_holder(shard, (step){.what = DISARM, .watch = watch});
        } else if (cnk_rng_chance(&rng, 1, 60)) {
            for (int i = 0; i < 3; i++) produce_end(&producers[i]);
            ck_assert_int_eq(delete_one(&w, names[1]), 0);
            ck_assert_int_eq(create(&w, names[1], PARTITIONS), 0);
        } else {
            wait_off(shard, watch);
            arm(shard, watch, now.high_watermark);
        }
    }
    for (int i = 0; i < 3; i++) produce_end(&producers[i]);
    for (int watch = 0; watch < WATCHES; watch++) {
        const step s = on_holder(shard, (step){.what = LOOK, .watch = watch});
        const int64_t end = fetch(&w, names[watch / PARTITIONS], watch % PARTITIONS, 0).high_watermark;
        while (s.said && h.watches[watch].high_watermark != end &&
               on_holder(shard, (step){.what = LOOK, .watch = watch}).said)
            usleep(1000); /* its message is on the way */
        wait_off(shard, watch);
    }
    on_holder(shard, (step){.what = CLOSE});
}
END_TEST

int main(void) {
    if (getenv("CHRONIK_TEST_SEED")) seed = strtoull(getenv("CHRONIK_TEST_SEED"), NULL, 10);
    Suite *suite = suite_create("broker_watch");
    static void (*const opens[])(void) = {open_one, open_three};
    static const char *const cases[] = {"one shard", "three shards"};
    for (int i = 0; i < 2; i++) {
        TCase *t = tcase_create(cases[i]);
        tcase_set_timeout(t, 120);
        tcase_add_checked_fixture(t, opens[i], close_all);
        tcase_add_test(t, test_fires_once);
        tcase_add_test(t, test_fetch_waits_for_news);
        tcase_add_test(t, test_random);
        suite_add_tcase(suite, t);
    }
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    const int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed ? 1 : 0;
}
