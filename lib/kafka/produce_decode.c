/* Produce requests by hand: two walks over the headers, the first counts, so that each array is allocated once; record
 * data is skipped, never touched. */
#include <string.h>

#include "kafka/internal.h"

typedef struct walk {
    int version;
    bool flexible;
    cnk_arena *arena;
    cnk_kafka_produce_request *out; /* arrays are NULL on the first walk */
    bool out_of_memory;
} walk;

static cnk_kafka_string read_string(cnk_reader *r, bool flexible, bool nullable) {
    const int32_t len = cnk_kafka_read_length(r, flexible, true, 1);
    const uint8_t *p = len > 0 ? cnk_read_bytes(r, (size_t)len) : NULL;
    if (len < 0 && !nullable) cnk_reader_fail(r);
    return (cnk_kafka_string){(const char *)p, len};
}

/* The smallest partition is an index, an empty record set and, where flexible, no tags. */
static void walk_partitions(walk *k, cnk_reader *r, const cnk_kafka_produce_topic *topic) {
    const int32_t count = cnk_kafka_read_length(r, k->flexible, false, k->flexible ? 6 : 8);
    if (count < 0) cnk_reader_fail(r);
    for (int32_t i = 0; i < count && !r->error; i++) {
        const int32_t index = (int32_t)cnk_read_be32(r);
        const int32_t len = cnk_kafka_read_length(r, k->flexible, false, 1);
        const uint8_t *data = len >= 0 ? cnk_read_bytes(r, (size_t)len) : NULL;
        if (k->flexible) cnk_kafka_skip_tags(r);
        if (k->out->parts && !r->error) {
            cnk_produce_part *part = &k->out->parts[k->out->part_count];
            part->topic = cnk_kafka_text_of(topic->name);
            part->topic_id = topic->id;
            part->partition = index;
            part->data = data;
            part->len = data ? (uint32_t)len : 0;
        }
        if (++k->out->part_count > CNK_PRODUCE_PARTS_MAX) cnk_reader_fail(r);
    }
}

static void walk_topics(walk *k, cnk_reader *r) {
    const int32_t count = cnk_kafka_read_length(r, k->flexible, false, k->version >= 13 ? 18 : k->flexible ? 3 : 6);
    if (count < 0) cnk_reader_fail(r);
    for (int32_t i = 0; i < count && !r->error; i++) {
        cnk_kafka_produce_topic topic = {.name = CNK_KAFKA_STRING_NULL, .first = k->out->part_count};
        if (k->version >= 13) {
            const uint8_t *id = cnk_read_bytes(r, sizeof topic.id);
            if (id) memcpy(&topic.id, id, sizeof topic.id);
        } else {
            topic.name = read_string(r, k->flexible, false);
        }
        if (k->out->topics && topic.name.len > 0) {
            topic.name.data = cnk_arena_alloc(k->arena, (size_t)topic.name.len);
            if (!topic.name.data) {
                k->out_of_memory = true;
                return;
            }
            memcpy((char *)(uintptr_t)topic.name.data, r->p - topic.name.len, (size_t)topic.name.len);
        }
        walk_partitions(k, r, &topic);
        if (k->flexible) cnk_kafka_skip_tags(r);
        topic.count = k->out->part_count - topic.first;
        if (k->out->topics && !r->error) k->out->topics[k->out->topic_count] = topic;
        if (++k->out->topic_count > CNK_PRODUCE_PARTS_MAX) cnk_reader_fail(r);
    }
}

static void walk_request(walk *k, cnk_reader *r) {
    cnk_kafka_produce_request *out = k->out;
    out->topic_count = out->part_count = 0;
    out->transactional_id = k->version >= 3 ? read_string(r, k->flexible, true) : CNK_KAFKA_STRING_NULL;
    out->acks = (int16_t)cnk_read_be16(r);
    out->timeout_ms = (int32_t)cnk_read_be32(r);
    walk_topics(k, r);
    if (k->flexible) cnk_kafka_skip_tags(r);
}

static void *alloc(walk *k, size_t count, size_t size) { /* both are limited: no overflow */
    void *p = cnk_arena_alloc(k->arena, count * size);
    if (p) memset(p, 0, count * size);
    else k->out_of_memory = true;
    return p;
}

int cnk_kafka_produce_decode(cnk_reader *r, int version, cnk_arena *arena, cnk_kafka_produce_request *ret_request) {
    walk k = {version, version >= cnk_produce_request_message.flexible_min, arena, ret_request, false};
    cnk_reader first = *r;
    memset(ret_request, 0, sizeof *ret_request);
    walk_request(&k, &first);
    if (first.error) return first.error;
    ret_request->topics = alloc(&k, (size_t)ret_request->topic_count + 1, sizeof *ret_request->topics);
    ret_request->parts = alloc(&k, (size_t)ret_request->part_count + 1, sizeof *ret_request->parts);
    if (k.out_of_memory) return CHRONIK_ENOMEM;
    walk_request(&k, r);
    return k.out_of_memory ? CHRONIK_ENOMEM : r->error;
}
