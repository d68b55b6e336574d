/* The metadata's image and state machine: commands, snapshots, sharing between versions, damaged bytes, failing memory,
 * the table of topic options. */
#include <check.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "base/rng.h"
#include "meta/internal.h"

static const char *broker_retention;

static const char *broker_value(void *arg, const char *name) {
    (void)arg;
    return strcmp(name, "log.retention.ms") == 0 ? broker_retention : NULL;
}
static void published(void *arg, cnk_meta_image *image) { (void)arg, (void)image; }
static const cnk_meta_options options = {broker_value, published, NULL};

static cnk_meta *new_meta(void) {
    cnk_meta *m = NULL;
    ck_assert_int_eq(cnk_meta_new(&options, &m), 0);
    return m;
}

static cnk_uuid id_of(unsigned n) {
    cnk_uuid id = {{0}};
    for (size_t i = 0; i < 16; i++) id.bytes[i] = (uint8_t)(n * 2654435761u >> (i % 4 * 8)) ^ (uint8_t)(i * 17);
    return id;
}

static void add_topic(cnk_meta_command *c, const cnk_meta_image *head, uint64_t *next, const char *name, unsigned id,
                      int32_t partitions, const cnk_meta_config *configs, size_t config_count) {
    int32_t nodes[64];
    uint8_t counts[64];
    for (int i = 0; i < 64; i++) {
        nodes[i] = 5;
        counts[i] = 1;
    }
    cnk_meta_topic_spec spec = {.name = name,
                                .name_len = strlen(name),
                                .id = id_of(id),
                                .partition_count = partitions,
                                .replicas = nodes,
                                .replica_counts = counts,
                                .configs = configs,
                                .config_count = config_count};
    cnk_meta_command_topic(c, head, next, &spec);
}

static int apply(cnk_meta *m, uint64_t index, cnk_meta_command *c) {
    ck_assert_int_eq(c->bytes.error, 0);
    int rc = cnk_meta_apply(m, NULL, index, c->bytes.data, c->bytes.len);
    cnk_meta_command_free(c);
    return rc;
}

static cnk_writer snapshot_of(const cnk_meta_image *image) {
    cnk_writer w;
    cnk_writer_growing(&w, 0);
    cnk_meta_image_write(image, &w);
    ck_assert_int_eq(w.error, 0);
    return w;
}

static void check_image(const cnk_meta_image *image) {
    size_t partitions = 0;
    for (size_t i = 0; i < image->topic_count; i++) {
        const cnk_meta_topic *t = image->by_name[i];
        ck_assert(i == 0 || strcmp(image->by_name[i - 1]->name, t->name) < 0);
        ck_assert(i == 0 || memcmp(image->by_id[i - 1]->id.bytes, image->by_id[i]->id.bytes, 16) < 0);
        ck_assert_ptr_eq(cnk_meta_topic_any(image, t->name, t->name_len), t);
        ck_assert_ptr_eq(cnk_meta_topic_any_by_id(image, &t->id), t);
        ck_assert_ptr_eq(cnk_meta_topic_by_id(image, &t->id), t->online ? t : NULL);
        ck_assert_ptr_eq(cnk_meta_topic_collision(image, t->name, t->name_len), t);
        ck_assert_int_le(t->partition_count, t->partition_total);
        ck_assert(t->online || t->partition_count == t->partition_total);
        for (int32_t p = 0; p < t->partition_total; p++) {
            ck_assert_uint_lt(t->partitions[p].stream, image->next_stream);
            ck_assert_int_eq(t->partitions[p].state == CNK_PARTITION_ONLINE, t->online && p < t->partition_count);
            for (int32_t q = 0; q < p; q++) ck_assert_ptr_ne(t->partitions[p].leader, t->partitions[q].leader);
        }
        partitions += (size_t)t->partition_total;
    }
    ck_assert_uint_eq(partitions, image->partition_count);
}

START_TEST(test_random_history) {
    enum { TOPICS = 40, KEPT = 8 };
    cnk_rng rng;
    cnk_meta *m = new_meta(), *copy = new_meta();
    unsigned made[TOPICS] = {0}, next_id = 1; /* the id of each topic that is there */
    bool online[TOPICS] = {false};
    int32_t visible[TOPICS] = {0}, total[TOPICS] = {0};
    int64_t retention[TOPICS] = {0};
    cnk_meta_image *kept[KEPT] = {NULL};
    cnk_writer kept_bytes[KEPT] = {{0}};
    uint64_t streams_seen = CNK_META_STREAM;
    cnk_rng_seed(&rng, 77 + (uint64_t)_i);
    for (uint64_t index = 1; index < 600; index++) {
        cnk_meta_command c;
        uint64_t next = 0;
        char name[16];
        unsigned t = (unsigned)cnk_rng_below(&rng, TOPICS);
        cnk_uuid id = id_of(made[t]);
        snprintf(name, sizeof name, "t%u", t);
        cnk_meta_command_init(&c);
        if (!made[t]) {
            char value[16] = "1000";
            cnk_meta_config config = {(char *)(uintptr_t) "retention.ms", value};
            made[t] = next_id++;
            online[t] = false;
            visible[t] = total[t] = 1 + (int32_t)(t % 5);
            retention[t] = t % 2 ? 1000 : 604800000;
            add_topic(&c, cnk_meta_image_head(m), &next, name, made[t], 1 + (int32_t)(t % 5), &config, t % 2);
        } else if (!online[t]) {
            cnk_meta_command_online(&c, &id);
            online[t] = true;
        } else if (cnk_rng_chance(&rng, 1, 3)) {
            char value[16];
            cnk_meta_config config = {(char *)(uintptr_t) "retention.ms", value};
            snprintf(value, sizeof value, "%u", (unsigned)index);
            if (cnk_rng_chance(&rng, 1, 2)) {
                const bool set = cnk_rng_chance(&rng, 1, 2);
                cnk_meta_command_configs(&c, &id, &config, set);
                retention[t] = set ? (int64_t)index : 604800000;
            } else {
                cnk_meta_command_partitions(&c, cnk_meta_image_head(m), &next, &id, 1 + (int32_t)(index % 3), 5);
                total[t] += 1 + (int32_t)(index % 3);
            }
            if (cnk_rng_chance(&rng, 1, 3)) {
                cnk_meta_command_online(&c, &id);
                visible[t] = total[t];
            }
        } else if (cnk_rng_chance(&rng, 1, 2)) {
            cnk_meta_command_delete(&c, &id, (uint32_t)index);
            made[t] = 0;
        } else {
            cnk_meta_command_producer_block(&c, cnk_meta_image_now(m)->next_producer_id + CNK_META_PRODUCER_BLOCK);
        }
        ck_assert_int_eq(apply(m, index, &c), 0);
        const cnk_meta_image *now = cnk_meta_image_now(m);
        ck_assert_uint_eq(now->version, index);
        check_image(now);
        ck_assert_uint_ge(now->next_stream, streams_seen + 1);
        for (unsigned k = 0; k < TOPICS; k++) {
            snprintf(name, sizeof name, "t%u", k);
            const cnk_meta_topic *found = cnk_meta_topic_any(now, name, strlen(name));
            ck_assert(!found == !made[k]);
            if (!found) continue;
            ck_assert(found->online == online[k]);
            ck_assert_int_eq(found->partition_count, visible[k]);
            ck_assert_int_eq(found->partition_total, total[k]);
            ck_assert_int_eq(found->settings.retention_ms, retention[k]);
            if (made[k] == next_id - 1 && !online[k] && k == t) { /* just made: its streams are new (R15) */
                ck_assert_uint_gt(found->partitions[0].stream, streams_seen);
            }
        }
        streams_seen = now->next_stream - 1;
        size_t slot = (size_t)cnk_rng_below(&rng, KEPT); /* an image that somebody holds never changes */
        if (kept[slot]) {
            cnk_writer again = snapshot_of(kept[slot]);
            ck_assert_uint_eq(again.len, kept_bytes[slot].len);
            ck_assert_int_eq(memcmp(again.data, kept_bytes[slot].data, again.len), 0);
            cnk_writer_free(&again);
            cnk_writer_free(&kept_bytes[slot]);
            cnk_meta_image_unref(kept[slot]);
        }
        kept[slot] = cnk_meta_image_ref(cnk_meta_image_now(m));
        kept_bytes[slot] = snapshot_of(now);
        if (index % 20 == 0) { /* snapshot and restore: the same state */
            cnk_writer a = snapshot_of(now), b;
            ck_assert_int_eq(cnk_meta_restore(copy, a.data, a.len, index), 0);
            check_image(cnk_meta_image_now(copy));
            ck_assert_uint_eq(cnk_meta_image_now(copy)->version, index);
            b = snapshot_of(cnk_meta_image_now(copy));
            ck_assert_uint_eq(a.len, b.len);
            ck_assert_int_eq(memcmp(a.data, b.data, a.len), 0);
            ck_assert_int_eq(cnk_meta_image_now(copy)->next_producer_id, now->next_producer_id);
            ck_assert_uint_eq(cnk_meta_image_now(copy)->epoch_floor, now->epoch_floor);
            ck_assert_uint_eq(cnk_meta_image_now(copy)->next_stream, now->next_stream);
            cnk_writer_free(&a);
            cnk_writer_free(&b);
        }
    }
    for (size_t i = 0; i < KEPT; i++) {
        cnk_meta_image_unref(kept[i]);
        cnk_writer_free(&kept_bytes[i]);
    }
    cnk_meta_free(m);
    cnk_meta_free(copy);
}
END_TEST

START_TEST(test_leaders_outlive_versions) {
    cnk_meta *m = new_meta();
    cnk_meta_command c;
    uint64_t next = 0;
    cnk_uuid id = id_of(1);
    cnk_meta_command_init(&c);
    add_topic(&c, cnk_meta_image_head(m), &next, "t", 1, 2, NULL, 0);
    ck_assert_int_eq(apply(m, 1, &c), 0);
    const cnk_meta_topic *t = cnk_meta_topic_any(cnk_meta_image_now(m), "t", 1);
    ck_assert_int_eq(atomic_load(&t->partitions[1].leader->node), -1);
    ck_assert_int_eq(atomic_load(&t->partitions[1].leader->epoch), -1);
    atomic_store(&t->partitions[1].leader->node, 5);
    cnk_meta_command_init(&c);
    cnk_meta_command_online(&c, &id);
    ck_assert_int_eq(apply(m, 2, &c), 0);
    t = cnk_meta_topic_by_name(cnk_meta_image_now(m), "t", 1);
    ck_assert_int_eq(atomic_load(&t->partitions[1].leader->node), 5);
    /* More partitions, twice: what is known of the earlier ones stays, also once nobody holds the older versions. */
    for (int32_t n = 2; n < 4; n++) {
        next = 0;
        cnk_meta_command_init(&c);
        cnk_meta_command_partitions(&c, cnk_meta_image_head(m), &next, &id, 1, 5);
        ck_assert_int_eq(apply(m, (uint64_t)n * 2, &c), 0);
        t = cnk_meta_topic_by_name(cnk_meta_image_now(m), "t", 1);
        ck_assert_int_eq(t->partition_count, n);
        ck_assert_int_eq(t->partition_total, n + 1);
        ck_assert_int_eq(t->leaders->led, n);
        ck_assert_int_eq(atomic_load(&t->partitions[n].leader->node), -1);
        atomic_store(&t->partitions[n].leader->node, 10 + n);
        cnk_meta_command_init(&c);
        cnk_meta_command_online(&c, &id);
        ck_assert_int_eq(apply(m, (uint64_t)n * 2 + 1, &c), 0);
        t = cnk_meta_topic_by_name(cnk_meta_image_now(m), "t", 1);
        ck_assert_int_eq(t->partition_count, n + 1);
        ck_assert_int_eq(atomic_load(&t->partitions[1].leader->node), 5);
        ck_assert_int_eq(atomic_load(&t->partitions[n].leader->node), 10 + n);
    }
    /* What does not fit is refused: no such topic, one that is not online, none, too many. */
    const cnk_uuid nobody = id_of(99);
    next = 0;
    cnk_meta_command_init(&c);
    cnk_meta_command_partitions(&c, cnk_meta_image_head(m), &next, &nobody, 1, 5);
    ck_assert_int_eq(apply(m, 20, &c), CHRONIK_ECORRUPT);
    cnk_meta_command_init(&c);
    cnk_meta_command_partitions(&c, cnk_meta_image_head(m), &next, &id, CNK_TOPIC_PARTITIONS_MAX, 5);
    ck_assert_int_eq(apply(m, 20, &c), CHRONIK_ECORRUPT);
    cnk_meta_command_init(&c);
    cnk_meta_command_partitions(&c, cnk_meta_image_head(m), &next, &id, 0, 5);
    ck_assert_int_eq(apply(m, 20, &c), CHRONIK_ECORRUPT);
    cnk_meta_command_init(&c);
    cnk_meta_command_configs(&c, &nobody, NULL, 0);
    ck_assert_int_eq(apply(m, 20, &c), CHRONIK_ECORRUPT);
    cnk_meta_free(m);
}
END_TEST

START_TEST(test_names) {
    char longest[CNK_TOPIC_NAME_MAX + 2];
    memset(longest, 'a', sizeof longest);
    const char *good[] = {"a", "A-Z_0.9", "...", "__consumer_offsets"},
               *bad[] = {"", ".", "..", "a b", "a/b", "\xc3\xa4", "a\n"};
    for (size_t i = 0; i < sizeof good / sizeof *good; i++)
        ck_assert_int_eq(cnk_topic_name_check(good[i], strlen(good[i]), NULL), 0);
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        ck_assert_int_eq(cnk_topic_name_check(bad[i], strlen(bad[i]), NULL), CHRONIK_EINVALIDTOPIC);
    ck_assert_int_eq(cnk_topic_name_check(longest, CNK_TOPIC_NAME_MAX, NULL), 0);
    ck_assert_int_eq(cnk_topic_name_check(longest, CNK_TOPIC_NAME_MAX + 1, NULL), CHRONIK_EINVALIDTOPIC);
    ck_assert_int_eq(cnk_topic_name_check("a\0b", 3, NULL), CHRONIK_EINVALIDTOPIC);
    cnk_meta *m = new_meta();
    cnk_meta_command c;
    uint64_t next = 0;
    cnk_meta_command_init(&c);
    add_topic(&c, cnk_meta_image_head(m), &next, "a.b_c", 1, 1, NULL, 0);
    ck_assert_int_eq(apply(m, 1, &c), 0);
    const cnk_meta_image *now = cnk_meta_image_now(m);
    ck_assert_ptr_nonnull(cnk_meta_topic_collision(now, "a_b.c", 5));
    ck_assert_ptr_nonnull(cnk_meta_topic_collision(now, "a.b_c", 5));
    ck_assert_ptr_null(cnk_meta_topic_collision(now, "a-b_c", 5));
    ck_assert_ptr_null(cnk_meta_topic_collision(now, "a.b_", 4));
    cnk_meta_free(m);
}
END_TEST

static cnk_meta_command sample(const cnk_meta *m) {
    cnk_meta_command c;
    uint64_t next = 0;
    cnk_uuid id = id_of(1);
    char value[] = "compact";
    cnk_meta_config config = {(char *)(uintptr_t) "cleanup.policy", value};
    cnk_meta_command_init(&c);
    cnk_meta_command_cluster(&c, &id);
    add_topic(&c, cnk_meta_image_head(m), &next, "one", 1, 3, &config, 1);
    add_topic(&c, cnk_meta_image_head(m), &next, "two", 2, 1, NULL, 0);
    cnk_meta_command_online(&c, &id);
    cnk_meta_command_producer_block(&c, 1000);
    id = id_of(2);
    cnk_meta_command_delete(&c, &id, 9);
    ck_assert_int_eq(c.bytes.error, 0);
    return c;
}

START_TEST(test_damaged_commands) {
    cnk_meta *empty = new_meta();
    cnk_meta_command c = sample(empty);
    for (size_t cut = 0; cut < c.bytes.len; cut++) {
        cnk_meta *m = new_meta();
        uint8_t *copy = malloc(cut + 1);
        memcpy(copy, c.bytes.data, cut);
        int rc = cnk_meta_apply(m, NULL, 1, copy, cut);
        if (rc != 0) /* all or nothing */
            ck_assert_uint_eq(cnk_meta_image_now(m)->topic_count, 0);
        else
            check_image(cnk_meta_image_now(m));
        free(copy);
        cnk_meta_free(m);
    }
    for (size_t bit = 0; bit < c.bytes.len * 8; bit++) {
        cnk_meta *m = new_meta();
        uint8_t *copy = malloc(c.bytes.len);
        memcpy(copy, c.bytes.data, c.bytes.len);
        copy[bit / 8] ^= (uint8_t)(1u << bit % 8);
        if (cnk_meta_apply(m, NULL, 1, copy, c.bytes.len) == 0)
            check_image(cnk_meta_image_now(m));
        else
            ck_assert_uint_eq(cnk_meta_image_now(m)->version, 0);
        free(copy);
        cnk_meta_free(m);
    }
    cnk_meta_command_free(&c);
    cnk_meta_free(empty);
}
END_TEST

/* R16: what a later version writes is skipped where it may be, and refused where it must be understood. */
START_TEST(test_unknown_records) {
    cnk_meta *m = new_meta();
    static const uint8_t may_skip[] = {1, 0x77, 0x80, 1, 0, 2, 0, 0, 0, 9, 9};
    static const uint8_t must_know[] = {1, 0x77, 0x00, 1, 0, 2, 0, 0, 0, 9, 9};
    static const uint8_t newer[] = {1, 6, 0, 2, 0, 8, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0};
    static const uint8_t longer[] = {1, 6, 0, 1, 0, 9, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 5};
    ck_assert_int_eq(cnk_meta_apply(m, NULL, 1, may_skip, sizeof may_skip), 0);
    ck_assert_int_eq(cnk_meta_apply(m, NULL, 2, must_know, sizeof must_know), CHRONIK_EUNSUPPORTED);
    ck_assert_int_eq(cnk_meta_apply(m, NULL, 3, newer, sizeof newer), CHRONIK_EUNSUPPORTED);
    ck_assert_int_eq(cnk_meta_apply(m, NULL, 4, longer, sizeof longer), 0);
    ck_assert_int_eq(cnk_meta_image_now(m)->next_producer_id, 1);
    cnk_meta_free(m);
}
END_TEST

/* An option, good values, bad values. */
START_TEST(test_options) {
    static const struct {
        const char *name, *value;
        bool good;
    } cases[] = {{"cleanup.policy", "compact", true},
                 {"cleanup.policy", "compact,delete", true},
                 {"cleanup.policy", "compact, delete", true},
                 {"cleanup.policy", "shred", false},
                 {"compression.type", "zstd", true},
                 {"compression.type", "none", false},
                 {"retention.ms", "-1", true},
                 {"retention.ms", "-2", false},
                 {"retention.ms", "9223372036854775807", true},
                 {"retention.ms", "9223372036854775808", false},
                 {"retention.ms", "", false},
                 {"retention.ms", "1x", false},
                 {"retention.ms", " 1", false},
                 {"max.message.bytes", "2147483647", true},
                 {"max.message.bytes", "2147483648", false},
                 {"max.message.bytes", "-1", false},
                 {"min.insync.replicas", "0", false},
                 {"min.cleanable.dirty.ratio", "0.25", true},
                 {"min.cleanable.dirty.ratio", "1.5", false},
                 {"min.cleanable.dirty.ratio", "nan", false},
                 {"preallocate", "TRUE", true},
                 {"preallocate", "yes", false},
                 {"segment.bytes", "1048575", false},
                 {"message.timestamp.type", "LogAppendTime", true},
                 {"message.timestamp.type", "logappendtime", false},
                 {"searchable", "true", true},
                 {"compression.gzip.level", "0", false},
                 {"compression.gzip.level", "9", true}};
    for (size_t i = 1; i < cnk_topic_option_count(); i++)
        ck_assert_int_lt(strcmp(cnk_topic_option_at(i - 1)->name, cnk_topic_option_at(i)->name), 0);
    for (size_t i = 0; i < cnk_topic_option_count(); i++) { /* each default is a value that would be taken */
        const cnk_topic_option *o = cnk_topic_option_at(i);
        ck_assert_ptr_eq(cnk_topic_option_find(o->name, strlen(o->name)), o);
        ck_assert_msg(cnk_topic_option_check(o, o->default_value, strlen(o->default_value), NULL) == 0, "%s", o->name);
    }
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        chronik_error err = CHRONIK_ERROR_INIT;
        const cnk_topic_option *o = cnk_topic_option_find(cases[i].name, strlen(cases[i].name));
        ck_assert_ptr_nonnull(o);
        int rc = cnk_topic_option_check(o, cases[i].value, strlen(cases[i].value), &err);
        ck_assert_msg(rc == (cases[i].good ? 0 : CHRONIK_EINVALIDCONFIG), "%s=%s", cases[i].name, cases[i].value);
        if (rc != 0) ck_assert_ptr_nonnull(strstr(err.text, cases[i].name));
    }
    ck_assert_ptr_null(cnk_topic_option_find("retention.m", 11));
}
END_TEST

START_TEST(test_settings_come_from_topic_broker_default) {
    cnk_meta *m = new_meta();
    cnk_meta_command c;
    uint64_t next = 0;
    char value[] = "5";
    cnk_meta_config own = {(char *)(uintptr_t) "retention.ms", value};
    broker_retention = "777";
    cnk_meta_command_init(&c);
    add_topic(&c, cnk_meta_image_head(m), &next, "own", 1, 1, &own, 1);
    add_topic(&c, cnk_meta_image_head(m), &next, "none", 2, 1, NULL, 0);
    ck_assert_int_eq(apply(m, 1, &c), 0);
    ck_assert_int_eq(cnk_meta_topic_any(cnk_meta_image_now(m), "own", 3)->settings.retention_ms, 5);
    ck_assert_int_eq(cnk_meta_topic_any(cnk_meta_image_now(m), "none", 4)->settings.retention_ms, 777);
    broker_retention = NULL;
    const cnk_topic_settings *s = &cnk_meta_topic_any(cnk_meta_image_now(m), "none", 4)->settings;
    ck_assert_uint_eq(s->max_message_bytes, 1048588);
    ck_assert_int_eq(s->timestamp_after_max_ms, 3600000);
    ck_assert_int_eq(s->timestamp_before_max_ms, INT64_MAX);
    ck_assert(s->delete_ && !s->compact && !s->append_time);
    ck_assert_uint_eq(s->codec, 0xff);
    cnk_meta_free(m);
}
END_TEST

#ifdef CNK_TEST_HOOKS
START_TEST(test_each_allocation_fails) {
    cnk_meta *m = new_meta();
    cnk_meta_command c = sample(m);
    int failures = 0;
    for (long n = 0;; n++) { /* applying: all or nothing */
        cnk_mem_fail_at(n);
        int rc = cnk_meta_apply(m, NULL, 1, c.bytes.data, c.bytes.len);
        cnk_mem_fail_at(-1);
        if (rc == 0) break;
        ck_assert_int_eq(rc, CHRONIK_ENOMEM);
        ck_assert_uint_eq(cnk_meta_image_now(m)->topic_count, 0);
        ck_assert_uint_eq(cnk_meta_image_now(m)->version, 0);
        failures++;
    }
    ck_assert_int_gt(failures, 10);
    cnk_writer s = snapshot_of(cnk_meta_image_now(m));
    failures = 0;
    for (long n = 0;; n++) {
        cnk_meta *other = NULL;
        cnk_mem_fail_at(n);
        int rc = cnk_meta_new(&options, &other);
        if (rc == 0) rc = cnk_meta_restore(other, s.data, s.len, 7);
        cnk_mem_fail_at(-1);
        cnk_meta_free(other);
        if (rc == 0) break;
        ck_assert_int_eq(rc, CHRONIK_ENOMEM);
        failures++;
    }
    ck_assert_int_gt(failures, 8);
    for (long n = 0;; n++) { /* writing a command */
        cnk_meta_command d;
        uint64_t next = 0;
        cnk_mem_fail_at(n);
        cnk_meta_command_init(&d);
        add_topic(&d, cnk_meta_image_head(m), &next, "x", 4, 60, NULL, 0);
        cnk_mem_fail_at(-1);
        int rc = d.bytes.error;
        cnk_meta_command_free(&d);
        if (rc == 0) break;
        ck_assert_int_eq(rc, CHRONIK_ENOMEM);
    }
    cnk_writer_free(&s);
    cnk_meta_command_free(&c);
    cnk_meta_free(m);
}
END_TEST
#endif

static Suite *suite(void) {
    Suite *s = suite_create("meta");
    TCase *tc = tcase_create("meta");
    tcase_set_timeout(tc, 0);
    tcase_add_loop_test(tc, test_random_history, 0, 5);
    tcase_add_test(tc, test_leaders_outlive_versions);
    tcase_add_test(tc, test_names);
    tcase_add_test(tc, test_damaged_commands);
    tcase_add_test(tc, test_unknown_records);
    tcase_add_test(tc, test_options);
    tcase_add_test(tc, test_settings_come_from_topic_broker_default);
#ifdef CNK_TEST_HOOKS
    tcase_add_test(tc, test_each_allocation_fails);
#endif
    suite_add_tcase(s, tc);
    return s;
}

int main(void) {
    SRunner *runner = srunner_create(suite());
    srunner_run_all(runner, CK_NORMAL);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed ? 1 : 0;
}
