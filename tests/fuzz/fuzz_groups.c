/* What a coordinator of groups makes of the records in its log, whatever they are: pieces of u8 key length, u16 value length
 * (65535: none), key, value. Then it begins to serve, a topic is deleted, which makes it look into members' subscriptions, and
 * what it would save can be loaded. */
#include <stdlib.h>
#include <string.h>

#include "base/assert.h"
#include "codec/codec.h"
#include "coord/groups.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum { RECORDS_MAX = 256 };

static uint64_t now_ns(void *loop) { (void)loop; return 1000000000; }
static int64_t wall_ms(void *loop) { (void)loop; return 1700000000000; }
static void timer_set(void *loop, chronik_timer *timer, uint64_t at_ns) { (void)loop, (void)timer, (void)at_ns; }
static const chronik_loop_ops loop_ops = {
    .size = sizeof loop_ops, .now_ns = now_ns, .wall_ms = wall_ms, .timer_set = timer_set};
static const chronik_loop loop = {&loop_ops, NULL};

static cnk_coord_shard shard_new(void) {
    return (cnk_coord_shard){.loop = &loop, .settings = CNK_COORD_SETTINGS_INIT, .timer_at = UINT64_MAX};
}

static void out_begin(cnk_coord_out *out) {
    *out = (cnk_coord_out){.now_ns = 1000000000, .now_ms = 1700000000000};
    cnk_batch_builder_init(&out->records, CNK_CODEC_NONE, CNK_CODEC_LEVEL_DEFAULT, CNK_COORD_BATCH_BYTES_MAX);
    cnk_list_init(&out->answered);
}

/* Each record in memory of its exact size, for the sanitizer. */
static void apply(void *machine, const uint8_t *key, size_t key_len, const uint8_t *value, size_t value_len, int64_t offset) {
    uint8_t *k = malloc(key_len ? key_len : 1), *v = malloc(value_len ? value_len : 1);
    CNK_ASSERT(k && v);
    memcpy(k, key, key_len);
    if (value) memcpy(v, value, value_len);
    cnk_record r = {.offset = offset,
                    .timestamp = 1600000000000,
                    .key = k,
                    .key_len = (int32_t)key_len,
                    .value = value ? v : NULL,
                    .value_len = value ? (int32_t)value_len : -1};
    int rc = cnk_groups_machine.apply(machine, &r);
    CNK_ASSERT(rc == 0 || rc == CHRONIK_ECORRUPT || rc == CHRONIK_ENOMEM);
    free(k);
    free(v);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    cnk_coord_shard shard = shard_new();
    cnk_coord_out out;
    cnk_writer saved;
    void *machine;
    const cnk_uuid none = {{0}};
    CNK_ASSERT(cnk_groups_machine.new_(&shard, NULL, &machine) == 0);
    for (int64_t n = 0; size >= 3 && n < RECORDS_MAX; n++) {
        size_t key_len = data[0], value_len = cnk_load_be16(data + 1);
        bool tombstone = value_len == 65535;
        data += 3, size -= 3;
        if (tombstone) value_len = 0;
        if (key_len > size) key_len = size;
        if (value_len > size - key_len) value_len = size - key_len;
        apply(machine, data, key_len, tombstone ? NULL : data + key_len, value_len, n);
        data += key_len + value_len, size -= key_len + value_len;
    }
    out_begin(&out);
    CNK_ASSERT(cnk_groups_machine.loaded(machine, &out) == 0 && cnk_list_empty(&out.answered));
    cnk_batch_builder_free(&out.records);
    cnk_writer_growing(&saved, 0);
    CNK_ASSERT(cnk_groups_machine.save(machine, &saved) == 0);
    cnk_writer_free(&saved);
    out_begin(&out);
    CNK_ASSERT(cnk_groups_machine.topic_deleted(machine, (cnk_text){"topic", 5}, &none, &out) == 0);
    const cnk_groups *groups = machine;
    CNK_LIST_EACH(it, &groups->order)
    (void)cnk_group_subscribed(CNK_CONTAINER(it, cnk_group, node), (cnk_text){"topic", 5});
    cnk_batch_builder_free(&out.records);
    cnk_groups_machine.free(machine);
    return 0;
}
