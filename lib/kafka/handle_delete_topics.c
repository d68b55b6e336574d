/* DeleteTopics: by name, from version 6 on also by id (KIP-516). */
#include <string.h>

#include "base/map.h"
#include "kafka/internal.h"

typedef cnk_delete_topics_response_deletable_topic_result topic_out;

typedef struct delete_state {
    cnk_delete_topics op;
    cnk_delete_topics_request in;
    topic_out *out;
    int32_t out_count;
    topic_out **answers; /* of op.topics */
} delete_state;

static void out_error(topic_out *out, int16_t error, const char *text) {
    out->error_code = error;
    out->error_message = cnk_kafka_string_of(text);
}

static int answer(cnk_kafka_request *r, delete_state *s) {
    cnk_delete_topics_response out;
    for (size_t i = 0; i < s->op.topic_count; i++) {
        const cnk_delete_topic *t = &s->op.topics[i];
        topic_out *to = s->answers[i];
        if (t->error) out_error(to, cnk_kafka_error(t->error), t->error_text);
        if (t->name_found[0]) to->name = cnk_kafka_string_of(t->name_found);
        if (t->error == 0) to->topic_id = t->topic_id;
    }
    cnk_kafka_defaults(cnk_delete_topics_response_message.root, &out);
    out.responses.items = s->out;
    out.responses.count = s->out_count;
    return cnk_kafka_answer(r, &out);
}

static void deleted(cnk_delete_topics *op) {
    cnk_kafka_request *r = op->arg;
    cnk_kafka_request_finish(r, answer(r, r->op));
}

static void cancel(cnk_kafka_request *r) {
    delete_state *s = r->op;
    cnk_broker_delete_topics_cancel(&s->op);
}

/* ---- the request ------------------------------------------------------------------------------------------------ */

/* One answer for each name or id; it says what is wrong already. The maps' keys live in the request. */
typedef struct named { cnk_map names, ids; } named;

static int add(delete_state *s, named *seen, cnk_kafka_string name, const cnk_uuid *id) {
    const bool by_name = name.len >= 0, by_id = !cnk_uuid_is_zero(id);
    cnk_map *map = by_name ? &seen->names : &seen->ids;
    const void *key = by_name ? (const void *)(name.data ? name.data : "") : (const void *)id->bytes;
    const size_t len = by_name ? (size_t)name.len : sizeof *id;
    if (by_name != by_id) {
        topic_out *twice = cnk_map_get_bytes(map, key, len);
        if (twice) {
            out_error(twice, CNK_KAFKA_INVALID_REQUEST, by_name ? "Duplicate topic name." : "Duplicate topic id.");
            return 0;
        }
    }
    topic_out *out = &s->out[s->out_count++];
    *out = (topic_out){.name = name, .topic_id = *id, .error_message = CNK_KAFKA_STRING_NULL};
    if (by_name && by_id)
        out_error(out, CNK_KAFKA_INVALID_REQUEST, "You may not specify both topic name and topic id.");
    if (!by_name && !by_id) out_error(out, CNK_KAFKA_INVALID_REQUEST, "Neither topic name nor id were specified.");
    return by_name == by_id ? 0 : cnk_map_put_bytes(map, key, len, out);
}

/* A name and an id that are one topic's: the second is refused, as in Kafka, where names are looked up first. */
static void refuse_aliases(cnk_kafka_request *r, delete_state *s, named *seen) {
    const cnk_meta_image *image = cnk_shard_image(cnk_kafka_request_shard(r));
    for (int32_t i = 0; i < s->out_count; i++) {
        topic_out *out = &s->out[i];
        if (out->error_code || out->name.len < 0 || seen->ids.count == 0) continue;
        const cnk_meta_topic *t =
            cnk_meta_topic_by_name(image, out->name.data ? out->name.data : "", (size_t)out->name.len);
        const topic_out *other = t ? cnk_map_get_bytes(&seen->ids, t->id.bytes, sizeof t->id) : NULL;
        if (other && other->error_code == 0)
            out_error(out, CNK_KAFKA_INVALID_REQUEST,
                      "The provided topic name maps to an ID that was already supplied.");
    }
}

static int collect(cnk_kafka_request *r, delete_state *s) {
    static const cnk_uuid zero;
    const size_t count = (size_t)s->in.topics.count + (size_t)s->in.topic_names.count;
    named seen = {{0}, {0}};
    int code = 0;
    s->out = cnk_kafka_request_alloc(r, count, sizeof *s->out);
    s->answers = cnk_kafka_request_alloc(r, count, sizeof *s->answers);
    s->op.topics = cnk_kafka_request_alloc(r, count, sizeof *s->op.topics);
    if (!s->out || !s->answers || !s->op.topics) return CHRONIK_ENOMEM;
    for (int32_t i = 0; i < s->in.topic_names.count && code == 0; i++)
        code = add(s, &seen, s->in.topic_names.items[i], &zero);
    for (int32_t i = 0; i < s->in.topics.count && code == 0; i++)
        code = add(s, &seen, s->in.topics.items[i].name, &s->in.topics.items[i].topic_id);
    if (code == 0) refuse_aliases(r, s, &seen);
    cnk_map_free(&seen.names);
    cnk_map_free(&seen.ids);
    for (int32_t i = 0; i < s->out_count && code == 0; i++) {
        if (s->out[i].error_code) continue;
        cnk_delete_topic *t = &s->op.topics[s->op.topic_count];
        t->name = cnk_kafka_text_of(s->out[i].name);
        t->topic_id = s->out[i].topic_id;
        s->answers[s->op.topic_count++] = &s->out[i];
    }
    return code;
}

int cnk_kafka_handle_delete_topics(cnk_kafka_request *r) {
    delete_state *s = cnk_kafka_request_alloc(r, 1, sizeof *s);
    if (!s) return CHRONIK_ENOMEM;
    r->op = s;
    int code = cnk_kafka_request_decode(r, &s->in);
    if (code == 0 && (s->in.topics.count > CNK_CREATE_TOPICS_MAX || s->in.topic_names.count > CNK_CREATE_TOPICS_MAX))
        code = CHRONIK_ETOOLARGE;
    if (code == 0) code = collect(r, s);
    if (code) return code;
    if (!cnk_broker_settings(cnk_shard_broker(cnk_kafka_request_shard(r)))->delete_topics) {
        for (int32_t i = 0; i < s->out_count; i++)
            out_error(&s->out[i], r->version < 3 ? CNK_KAFKA_INVALID_REQUEST : CNK_KAFKA_TOPIC_DELETION_DISABLED,
                      r->version < 3 ? "This version does not support topic deletion." : "Topic deletion is disabled.");
        s->op.topic_count = 0;
    }
    s->op.context = &r->context;
    s->op.timeout_ms = s->in.timeout_ms;
    s->op.done = deleted;
    s->op.arg = r;
    r->cancel = cancel;
    code = s->op.topic_count ? cnk_broker_delete_topics(cnk_kafka_request_shard(r), &s->op) : CNK_DONE;
    if (code == CNK_PENDING) return CNK_PENDING;
    if (code < 0)
        for (size_t i = 0; i < s->op.topic_count; i++) s->op.topics[i].error = code;
    code = answer(r, s);
    return code ? code : CNK_DONE;
}
