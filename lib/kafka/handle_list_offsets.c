/* ListOffsets: offsets by timestamp, and the special ones (K9), each from the version that brought it.
 *
 * Version 0 has a shape of its own: so many offsets of segments that were last changed by a time, the newest first, with
 * the log's end before them. Our logs have no segments; they count as one, changed when its newest record was made. */
#include <stdlib.h>
#include <string.h>

#include "kafka/internal.h"

typedef cnk_list_offsets_response_list_offsets_partition_response part_out;

typedef struct list_state {
    cnk_list_offsets op;
    cnk_list_offsets_request in;
    cnk_list_offsets_part **parts; /* of the request's partitions, in order; NULL: not asked of the broker */
    int16_t *errors;               /* of those */
    int64_t now_ms;
    bool *repeated;                /* named before: answered there */
} list_state;

/* The first version that knows the special timestamp; INT_MAX: none does. */
static int version_of(int64_t timestamp) {
    switch (timestamp) {
    case CNK_OFFSET_LATEST:
    case CNK_OFFSET_EARLIEST: return 0;
    case CNK_OFFSET_MAX_TIMESTAMP: return 7;            /* KIP-734 */
    case CNK_OFFSET_EARLIEST_LOCAL: return 8;           /* KIP-405 */
    case CNK_OFFSET_LATEST_TIERED: return 9;            /* KIP-1005 */
    case CNK_OFFSET_EARLIEST_PENDING_UPLOAD: return 11; /* KIP-1023 */
    default: return timestamp >= 0 ? 0 : INT32_MAX;
    }
}

typedef struct named { cnk_kafka_string topic; int32_t partition; size_t at; } named;

static int named_order(const void *a, const void *b) {
    const named *x = a, *y = b;
    const int32_t len = x->topic.len < y->topic.len ? x->topic.len : y->topic.len;
    const int by_name = len > 0 ? memcmp(x->topic.data, y->topic.data, (size_t)len) : 0;
    if (by_name) return by_name;
    if (x->topic.len != y->topic.len) return x->topic.len < y->topic.len ? -1 : 1;
    if (x->partition != y->partition) return x->partition < y->partition ? -1 : 1;
    return x->at < y->at ? -1 : x->at > y->at;
}

static bool same(const named *x, const named *y) {
    return x->partition == y->partition && x->topic.len == y->topic.len &&
           (x->topic.len <= 0 || memcmp(x->topic.data, y->topic.data, (size_t)x->topic.len) == 0);
}

/* A partition that is named twice is refused, and answered once (ReplicaManager.fetchOffset keeps a map). */
static int refuse_duplicates(cnk_kafka_request *r, list_state *s, size_t count) {
    named *all = cnk_kafka_request_alloc(r, count, sizeof *all);
    size_t n = 0;
    if (!all) return CHRONIK_ENOMEM;
    for (int32_t t = 0; t < s->in.topics.count; t++)
        for (int32_t i = 0; i < s->in.topics.items[t].partitions.count; i++, n++)
            all[n] = (named){s->in.topics.items[t].name, s->in.topics.items[t].partitions.items[i].partition_index, n};
    if (n > 1) qsort(all, n, sizeof *all, named_order);
    for (size_t i = 1; i < n; i++) {
        if (!same(&all[i - 1], &all[i])) continue;
        s->errors[all[i - 1].at] = s->errors[all[i].at] = CNK_KAFKA_INVALID_REQUEST;
        s->repeated[all[i].at] = true;
    }
    return 0;
}

static int16_t part_error(const cnk_kafka_request *r, const cnk_list_offsets_part *p) {
    if (p->error == CHRONIK_EOFFSETUNAVAILABLE && r->version < 5) return CNK_KAFKA_LEADER_NOT_AVAILABLE;
    return cnk_kafka_error(p->error);
}

/* Version 0's list (UnifiedLog.legacyFetchOffsetsBefore). */
static int fill_old(cnk_kafka_request *r, const list_state *s, const cnk_list_offsets_part *p,
                    const cnk_list_offsets_request_list_offsets_partition *in, part_out *out) {
    const bool data = p->offset > p->start;
    const bool end = in->timestamp == CNK_OFFSET_LATEST || in->timestamp >= s->now_ms;
    const bool start = end || in->timestamp == CNK_OFFSET_EARLIEST ||
                       (data && in->timestamp >= 0 && in->timestamp >= p->record_timestamp);
    int64_t *list = cnk_kafka_request_alloc(r, 2, sizeof *list);
    if (!list) return CHRONIK_ENOMEM;
    out->old_style_offsets.items = list;
    if (end && data && out->old_style_offsets.count < in->max_num_offsets)
        list[out->old_style_offsets.count++] = p->offset;
    if (start && out->old_style_offsets.count < in->max_num_offsets) list[out->old_style_offsets.count++] = p->start;
    return 0;
}

static int fill_part(cnk_kafka_request *r, const list_state *s, size_t n,
                     const cnk_list_offsets_request_list_offsets_partition *in, part_out *out) {
    const cnk_list_offsets_part *p = s->parts[n];
    *out = (part_out){.partition_index = in->partition_index, .timestamp = -1, .offset = -1, .leader_epoch = -1};
    out->error_code = p ? part_error(r, p) : s->errors[n];
    if (out->error_code) return 0;
    if (r->version == 0) return fill_old(r, s, p, in, out);
    out->timestamp = p->record_timestamp;
    out->offset = p->offset;
    if (r->version >= 4) out->leader_epoch = p->offset_epoch;
    return 0;
}

static int answer(cnk_kafka_request *r, list_state *s) {
    cnk_list_offsets_response out;
    size_t n = 0;
    cnk_kafka_defaults(cnk_list_offsets_response_message.root, &out);
    out.topics.items = cnk_kafka_request_alloc(r, (size_t)s->in.topics.count, sizeof *out.topics.items);
    if (!out.topics.items) return CHRONIK_ENOMEM;
    for (int32_t t = 0; t < s->in.topics.count; t++) {
        const cnk_list_offsets_request_list_offsets_topic *in = &s->in.topics.items[t];
        cnk_list_offsets_response_list_offsets_topic_response *topic = &out.topics.items[out.topics.count];
        topic->name = in->name;
        topic->partitions.items = cnk_kafka_request_alloc(r, (size_t)in->partitions.count, sizeof(part_out));
        if (!topic->partitions.items) return CHRONIK_ENOMEM;
        for (int32_t i = 0; i < in->partitions.count; i++, n++) {
            if (s->repeated[n]) continue;
            const int code =
                fill_part(r, s, n, &in->partitions.items[i], &topic->partitions.items[topic->partitions.count++]);
            if (code) return code;
        }
        out.topics.count += topic->partitions.count > 0;
    }
    return cnk_kafka_answer(r, &out);
}

static void listed(cnk_list_offsets *op) {
    cnk_kafka_request *r = op->arg;
    cnk_kafka_request_finish(r, answer(r, r->op));
}

static void cancel(cnk_kafka_request *r) {
    list_state *s = r->op;
    cnk_broker_list_offsets_cancel(&s->op);
}

static int fill_parts(cnk_kafka_request *r, list_state *s) {
    size_t count = 0, n = 0;
    for (int32_t t = 0; t < s->in.topics.count; t++) count += (size_t)s->in.topics.items[t].partitions.count;
    if (count > CNK_KAFKA_LIST_PARTS_MAX) return CHRONIK_ETOOLARGE;
    s->parts = cnk_kafka_request_alloc(r, count, sizeof *s->parts);
    s->errors = cnk_kafka_request_alloc(r, count, sizeof *s->errors);
    s->repeated = cnk_kafka_request_alloc(r, count, sizeof *s->repeated);
    s->op.parts = cnk_kafka_request_alloc(r, count, sizeof *s->op.parts);
    if (!s->parts || !s->errors || !s->repeated || !s->op.parts) return CHRONIK_ENOMEM;
    const int code = r->version > 0 ? refuse_duplicates(r, s, count) : 0;
    if (code) return code;
    for (int32_t t = 0; t < s->in.topics.count; t++) {
        const cnk_list_offsets_request_list_offsets_topic *topic = &s->in.topics.items[t];
        for (int32_t i = 0; i < topic->partitions.count; i++, n++) {
            const cnk_list_offsets_request_list_offsets_partition *p = &topic->partitions.items[i];
            if (s->errors[n] == 0 && r->version < version_of(p->timestamp))
                s->errors[n] = CNK_KAFKA_UNSUPPORTED_VERSION;
            if (s->errors[n] == 0 && r->version == 0 && p->max_num_offsets < 0)
                s->errors[n] = CNK_KAFKA_INVALID_REQUEST;
            if (s->errors[n]) continue;
            cnk_list_offsets_part *part = s->parts[n] = &s->op.parts[s->op.part_count++];
            part->topic = cnk_kafka_text_of(topic->name);
            part->partition = p->partition_index;
            part->leader_epoch = p->current_leader_epoch;
            part->timestamp = r->version > 0 ? p->timestamp : CNK_OFFSET_BOUNDS;
            part->offset = part->record_timestamp = -1;
            part->offset_epoch = -1;
        }
    }
    return 0;
}

int cnk_kafka_handle_list_offsets(cnk_kafka_request *r) {
    list_state *s = cnk_kafka_request_alloc(r, 1, sizeof *s);
    if (!s) return CHRONIK_ENOMEM;
    int code = cnk_kafka_request_decode(r, &s->in);
    if (code == 0) code = fill_parts(r, s);
    if (code) return code;
    if (r->version == 0) {
        const chronik_loop *loop = cnk_shard_loop(cnk_kafka_request_shard(r));
        s->now_ms = loop->ops->wall_ms(loop->self);
    }
    if (s->op.part_count == 0) {
        code = answer(r, s);
        return code ? code : CNK_DONE;
    }
    s->op.context = &r->context;
    s->op.read_committed = s->in.isolation_level == 1;
    s->op.done = listed;
    s->op.arg = r;
    r->op = s;
    r->cancel = cancel;
    code = cnk_broker_list_offsets(cnk_kafka_request_shard(r), &s->op);
    if (code == CNK_PENDING) return CNK_PENDING;
    if (code < 0)
        for (size_t i = 0; i < s->op.part_count; i++) s->op.parts[i].error = code;
    code = answer(r, s);
    return code ? code : CNK_DONE;
}
