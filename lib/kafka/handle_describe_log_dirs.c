/* DescribeLogDirs: the data directory, and what each partition takes of it: its batches in the WAL and in packs. What
 * is not there is left out. */
#include "base/map.h"
#include "kafka/internal.h"

typedef cnk_describe_log_dirs_response_describe_log_dirs_topic topic_out;
typedef cnk_describe_log_dirs_response_describe_log_dirs_partition part_out;

typedef struct dirs_state {
    cnk_describe op;
    cnk_describe_log_dirs_request in;
} dirs_state;

/* Parts of one topic stand together. */
static int fill_topics(cnk_kafka_request *r, const dirs_state *s,
                       cnk_describe_log_dirs_response_describe_log_dirs_result *dir) {
    size_t topics = 0;
    for (size_t i = 0; i < s->op.part_count; i++)
        topics += i == 0 || s->op.parts[i].topic.p != s->op.parts[i - 1].topic.p;
    dir->topics.items = cnk_kafka_request_alloc(r, topics, sizeof(topic_out));
    if (!dir->topics.items) return CHRONIK_ENOMEM;
    for (size_t i = 0, end; i < s->op.part_count; i = end) {
        const cnk_describe_part *p = &s->op.parts[i];
        topic_out topic = {.name = cnk_kafka_string_from(p->topic)};
        for (end = i; end < s->op.part_count && s->op.parts[end].topic.p == p->topic.p;) end++;
        topic.partitions.items = cnk_kafka_request_alloc(r, end - i, sizeof(part_out));
        if (!topic.partitions.items) return CHRONIK_ENOMEM;
        for (size_t n = i; n < end; n++)
            if (s->op.parts[n].error == 0)
                topic.partitions.items[topic.partitions.count++] =
                    (part_out){s->op.parts[n].partition, (int64_t)s->op.parts[n].bytes, 0, false};
        if (topic.partitions.count > 0) dir->topics.items[dir->topics.count++] = topic;
    }
    return 0;
}

static int answer(cnk_kafka_request *r, dirs_state *s) {
    const cnk_broker_options *o = cnk_broker_settings(cnk_shard_broker(cnk_kafka_request_shard(r)));
    cnk_describe_log_dirs_response out;
    cnk_describe_log_dirs_response_describe_log_dirs_result dir = {.total_bytes = -1, .usable_bytes = -1};
    uint64_t total, usable;
    cnk_kafka_defaults(cnk_describe_log_dirs_response_message.root, &out);
    out.results.items = &dir;
    out.results.count = o->data_dir != NULL;
    dir.log_dir = cnk_kafka_string_of(o->data_dir);
    if (o->space && o->space(o->hook_arg, &total, &usable) == 0) {
        dir.total_bytes = (int64_t)total;
        dir.usable_bytes = (int64_t)usable;
    }
    const int code = fill_topics(r, s, &dir);
    return code ? code : cnk_kafka_answer(r, &out);
}

static void described(cnk_describe *op) {
    cnk_kafka_request *r = op->arg;
    cnk_kafka_request_finish(r, answer(r, r->op));
}

static void release(cnk_kafka_request *r) {
    dirs_state *s = r->op;
    cnk_broker_describe_end(&s->op);
}

static int fill_all(cnk_kafka_request *r, dirs_state *s, const cnk_meta_image *image) {
    size_t count = 0;
    for (size_t t = 0; t < image->topic_count; t++) count += (size_t)image->by_name[t]->partition_count;
    s->op.parts = cnk_kafka_request_alloc(r, count, sizeof *s->op.parts);
    if (!s->op.parts) return CHRONIK_ENOMEM;
    for (size_t t = 0; t < image->topic_count; t++) {
        cnk_text name;
        const cnk_meta_topic *topic = image->by_name[t];
        if (!topic->online) continue;
        if (!cnk_kafka_request_text(r, (cnk_kafka_string){topic->name, topic->name_len}, &name)) return CHRONIK_ENOMEM;
        for (int32_t i = 0; i < topic->partition_count; i++)
            s->op.parts[s->op.part_count++] = (cnk_describe_part){.topic = name, .partition = i};
    }
    return 0;
}

/* Each partition once: a set of numbers for each topic; a topic that comes twice is one of its own both times. */
static int fill_named(cnk_kafka_request *r, dirs_state *s) {
    size_t count = 0;
    int code = 0;
    for (int32_t t = 0; t < s->in.topics.count; t++) count += (size_t)s->in.topics.items[t].partitions.count;
    if (count > CNK_KAFKA_LIST_PARTS_MAX) return CHRONIK_ETOOLARGE;
    s->op.parts = cnk_kafka_request_alloc(r, count, sizeof *s->op.parts);
    if (!s->op.parts) return CHRONIK_ENOMEM;
    for (int32_t t = 0; t < s->in.topics.count && code == 0; t++) {
        const cnk_describe_log_dirs_request_describable_log_dir_topic *topic = &s->in.topics.items[t];
        cnk_map seen = {0};
        for (int32_t i = 0; i < topic->partitions.count && code == 0; i++) {
            const int32_t number = topic->partitions.items[i];
            if (number < 0 || cnk_map_get(&seen, (uint64_t)number + 1)) continue;
            code = cnk_map_put(&seen, (uint64_t)number + 1, s);
            s->op.parts[s->op.part_count++] =
                (cnk_describe_part){.topic = cnk_kafka_text_of(topic->topic), .partition = number};
        }
        cnk_map_free(&seen);
    }
    return code;
}

int cnk_kafka_handle_describe_log_dirs(cnk_kafka_request *r) {
    dirs_state *s = cnk_kafka_request_alloc(r, 1, sizeof *s);
    if (!s) return CHRONIK_ENOMEM;
    int code = cnk_kafka_request_decode(r, &s->in);
    if (code == 0)
        code = s->in.topics.count < 0 ? fill_all(r, s, cnk_shard_image(cnk_kafka_request_shard(r))) : fill_named(r, s);
    if (code) return code;
    s->op.context = &r->context;
    s->op.done = described;
    s->op.arg = r;
    r->op = s;
    code = s->op.part_count ? cnk_broker_describe(cnk_kafka_request_shard(r), &s->op) : CNK_DONE;
    if (code >= 0 && s->op.part_count) r->release = release;
    if (code == CNK_PENDING) return CNK_PENDING;
    if (code < 0)
        for (size_t i = 0; i < s->op.part_count; i++) s->op.parts[i].error = code;
    code = answer(r, s);
    return code ? code : CNK_DONE;
}
