/* DescribeTopicPartitions (KIP-966): topics by name, in their order, in pages of so many partitions. A page ends with a
 * cursor: the topic and partition that the next one begins with. */
#include <stdlib.h>
#include <string.h>

#include "kafka/internal.h"

#define PARTITIONS_MAX 2000 /* of a page: Kafka's max.request.partition.size.limit */

typedef cnk_describe_topic_partitions_response_describe_topic_partitions_response_topic topic_out;
typedef cnk_describe_topic_partitions_response_describe_topic_partitions_response_partition part_out;

typedef struct page {
    cnk_kafka_request *r;
    cnk_describe_topic_partitions_request in;
    cnk_describe_topic_partitions_response out;
    cnk_describe_topic_partitions_response_cursor next;
    int32_t left; /* partitions */
} page;

static int name_order(cnk_kafka_string a, cnk_kafka_string b) {
    const int32_t len = a.len < b.len ? a.len : b.len;
    const int by_text = len > 0 ? memcmp(a.data, b.data, (size_t)len) : 0;
    return by_text ? by_text : (a.len > b.len) - (a.len < b.len);
}

static int topic_order(const void *a, const void *b) {
    return name_order(((const cnk_describe_topic_partitions_request_topic_request *)a)->name,
                      ((const cnk_describe_topic_partitions_request_topic_request *)b)->name);
}

static int fill_partition(cnk_kafka_request *r, const cnk_meta_partition *p, int32_t index, part_out *out) {
    int32_t *nodes = cnk_kafka_request_alloc(r, p->replica_count, sizeof *nodes);
    if (!nodes) return CHRONIK_ENOMEM;
    memcpy(nodes, p->replicas, p->replica_count * sizeof *nodes);
    out->partition_index = index;
    out->leader_id = atomic_load(&p->leader->node);
    out->leader_epoch = atomic_load(&p->leader->epoch);
    if (out->leader_id < 0) out->error_code = CNK_KAFKA_LEADER_NOT_AVAILABLE;
    out->replica_nodes.items = out->isr_nodes.items = nodes;
    out->replica_nodes.count = out->isr_nodes.count = p->replica_count;
    return 0; /* no replica is out of sync that could be eligible, or has been: both lists are empty */
}

/* From the partition `from` on, as many as the page has room for. */
static int fill_topic(page *g, const cnk_meta_topic *t, int32_t from, topic_out *out) {
    const int32_t there = from < t->partition_count ? t->partition_count - from : 0;
    const int32_t count = there < g->left ? there : g->left;
    out->topic_id = t->id;
    out->is_internal = t->internal;
    out->topic_authorized_operations = CNK_KAFKA_TOPIC_OPERATIONS;
    out->partitions.items = cnk_kafka_request_alloc(g->r, (size_t)count, sizeof(part_out));
    if (!out->partitions.items) return CHRONIK_ENOMEM;
    for (int32_t i = 0; i < count; i++) {
        const int code =
            fill_partition(g->r, &t->partitions[from + i], from + i, &out->partitions.items[out->partitions.count++]);
        if (code) return code;
    }
    g->left -= count;
    if (count < there) {
        g->next = (cnk_describe_topic_partitions_response_cursor){out->name, from + count};
        g->out.next_cursor.items = &g->next;
        g->out.next_cursor.count = 1;
    }
    return 0;
}

/* One topic; *ret_more: there is room for another one. t NULL: there is none. */
static int add_topic(page *g, cnk_kafka_string name, const cnk_meta_topic *t, bool *ret_more) {
    const cnk_describe_topic_partitions_request_cursor *c = g->in.cursor.count > 0 ? g->in.cursor.items : NULL;
    *ret_more = true;
    if (c && name_order(name, c->topic_name) < 0) return 0;
    if (g->left <= 0) {
        g->next = (cnk_describe_topic_partitions_response_cursor){name, 0};
        g->out.next_cursor.items = &g->next;
        g->out.next_cursor.count = 1;
        *ret_more = false;
        return 0;
    }
    topic_out *out = &g->out.topics.items[g->out.topics.count++];
    out->name = name;
    out->topic_authorized_operations = CNK_KAFKA_TOPIC_OPERATIONS;
    if (!t) {
        out->error_code = cnk_topic_name_check(name.len > 0 ? name.data : "", (size_t)name.len, NULL)
                              ? CNK_KAFKA_INVALID_TOPIC_EXCEPTION
                              : CNK_KAFKA_UNKNOWN_TOPIC_OR_PARTITION;
        return 0;
    }
    const int code = fill_topic(g, t, c && name_order(name, c->topic_name) == 0 ? c->partition_index : 0, out);
    *ret_more = g->out.next_cursor.count < 0;
    return code;
}

static int fill(page *g, const cnk_meta_image *image) {
    const size_t named = (size_t)g->in.topics.count, max = named ? named : image->topic_count;
    bool more = true;
    int code = 0;
    g->out.topics.items = cnk_kafka_request_alloc(g->r, max, sizeof(topic_out));
    if (!g->out.topics.items) return CHRONIK_ENOMEM;
    for (size_t i = 0; i < max && more && code == 0; i++) {
        if (named == 0) {
            const cnk_meta_topic *t = image->by_name[i];
            if (t->online) code = add_topic(g, (cnk_kafka_string){t->name, t->name_len}, t, &more);
            continue;
        }
        const cnk_kafka_string name = g->in.topics.items[i].name;
        if (i > 0 && name_order(name, g->in.topics.items[i - 1].name) == 0) continue;
        code =
            add_topic(g, name, cnk_meta_topic_by_name(image, name.len > 0 ? name.data : "", (size_t)name.len), &more);
    }
    return code;
}

/* A cursor that points to nothing that was asked for. */
static bool cursor_is_wrong(const page *g) {
    if (g->in.cursor.count <= 0) return false;
    const cnk_describe_topic_partitions_request_cursor *c = g->in.cursor.items;
    bool found = g->in.topics.count == 0;
    for (int32_t i = 0; i < g->in.topics.count; i++)
        found |= name_order(g->in.topics.items[i].name, c->topic_name) == 0;
    return c->partition_index < 0 || !found;
}

static int refuse(page *g) {
    g->out.topics.items = cnk_kafka_request_alloc(g->r, (size_t)g->in.topics.count, sizeof(topic_out));
    if (!g->out.topics.items) return CHRONIK_ENOMEM;
    for (int32_t i = 0; i < g->in.topics.count; i++) {
        topic_out *out = &g->out.topics.items[g->out.topics.count++];
        out->name = g->in.topics.items[i].name;
        out->error_code = CNK_KAFKA_INVALID_REQUEST;
        out->topic_authorized_operations = CNK_KAFKA_OPERATIONS_UNASKED;
    }
    return 0;
}

int cnk_kafka_handle_describe_topic_partitions(cnk_kafka_request *r) {
    page *g = cnk_kafka_request_alloc(r, 1, sizeof *g);
    if (!g) return CHRONIK_ENOMEM;
    int code = cnk_kafka_request_decode(r, &g->in);
    if (code) return code;
    if (g->in.topics.count > CNK_KAFKA_METADATA_TOPICS_MAX) return CHRONIK_ETOOLARGE;
    g->r = r;
    g->left = g->in.response_partition_limit < PARTITIONS_MAX ? g->in.response_partition_limit : PARTITIONS_MAX;
    if (g->left < 1) g->left = 1;
    cnk_kafka_defaults(cnk_describe_topic_partitions_response_message.root, &g->out);
    if (g->in.topics.count > 1)
        qsort(g->in.topics.items, (size_t)g->in.topics.count, sizeof *g->in.topics.items, topic_order);
    cnk_meta_image *image = cnk_meta_image_ref(cnk_shard_image(cnk_kafka_request_shard(r)));
    code = cursor_is_wrong(g) ? refuse(g) : fill(g, image);
    if (code == 0) code = cnk_kafka_answer(r, &g->out);
    cnk_meta_image_unref(image);
    return code ? code : CNK_DONE;
}
