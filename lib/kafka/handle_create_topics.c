/* CreateTopics: names once, then the broker; the answer tells what was made, from version 5 on with its configuration
 * (KIP-525). */
#include <string.h>

#include "base/map.h"
#include "kafka/internal.h"

typedef cnk_create_topics_request_creatable_topic topic_in;
typedef cnk_create_topics_response_creatable_topic_result topic_out;
typedef cnk_create_topics_response_creatable_topic_configs config_out;

#define METADATA_TOPIC "__cluster_metadata"

typedef struct create_state {
    cnk_create_topics op;
    cnk_create_topics_request in;
    topic_out *out; /* one for each name, in the request's order */
    int32_t out_count;
    const topic_in **asked; /* of op.topics: what was asked, and its answer */
    topic_out **answers;
} create_state;

/* ---- the configuration in the answer ---------------------------------------------------------------------------- */

typedef struct gather { cnk_kafka_request *r; config_out *items; int32_t count, max; } gather;

static int add_config(gather *g, const char *name, const char *value, size_t value_len, uint8_t source, bool read_only,
                      bool sensitive) {
    cnk_text n, v;
    if (!g->items) {
        g->max++;
        return 0;
    }
    CNK_ASSERT(g->count < g->max);
    const cnk_kafka_string shown =
        value && !sensitive ? (cnk_kafka_string){value, (int32_t)value_len} : CNK_KAFKA_STRING_NULL;
    if (!cnk_kafka_request_text(g->r, cnk_kafka_string_of(name), &n) || !cnk_kafka_request_text(g->r, shown, &v))
        return CHRONIK_ENOMEM;
    g->items[g->count++] = (config_out){cnk_kafka_string_from(n), cnk_kafka_string_from(v), read_only, (int8_t)source,
                                        sensitive};
    return 0;
}

static int each_row(void *arg, const cnk_config_row *row) {
    return add_config(arg, row->name, row->value, row->value ? strlen(row->value) : 0, row->source, row->read_only,
                      row->sensitive);
}

/* With validate_only there is no topic to ask: what was set, else the broker's default, else Kafka's. */
static int each_option(gather *g, const topic_in *in) {
    const cnk_broker_options *broker = cnk_broker_settings(cnk_shard_broker(cnk_kafka_request_shard(g->r)));
    int code = 0;
    for (size_t i = 0; i < cnk_topic_option_count() && code == 0; i++) {
        const cnk_topic_option *o = cnk_topic_option_at(i);
        const char *value = o->default_value;
        size_t len = strlen(value);
        uint8_t source = CNK_SOURCE_DEFAULT;
        for (size_t b = 0; o->broker_name && b < broker->config_count; b++) {
            if (strcmp(broker->configs[b].name, o->broker_name) != 0 || !broker->configs[b].value) continue;
            value = broker->configs[b].value;
            len = strlen(value);
            if (broker->configs[b].set) source = CNK_SOURCE_STATIC_BROKER;
        }
        for (int32_t c = 0; c < in->configs.count; c++) {
            const cnk_create_topics_request_creatable_topic_config *set = &in->configs.items[c];
            if ((size_t)set->name.len != strlen(o->name) || memcmp(set->name.data, o->name, strlen(o->name)) != 0)
                continue;
            value = set->value.data;
            len = set->value.len < 0 ? 0 : (size_t)set->value.len;
            source = CNK_SOURCE_TOPIC;
        }
        code = add_config(g, o->name, value, len, source, false, false);
    }
    return code;
}

static int fill_configs(cnk_kafka_request *r, const create_state *s, const topic_in *in, topic_out *out) {
    cnk_shard *shard = cnk_kafka_request_shard(r);
    gather g = {.r = r};
    int code = 0;
    for (int pass = 0; pass < 2 && code == 0; pass++) {
        code = s->op.validate_only
                   ? each_option(&g, in)
                   : cnk_broker_topic_configs(shard, cnk_shard_image(shard), cnk_kafka_text_of(in->name), each_row, &g);
        if (pass == 0 && code == 0 && !(g.items = cnk_kafka_request_alloc(r, (size_t)g.max, sizeof *g.items)))
            code = CHRONIK_ENOMEM;
    }
    if (code == CHRONIK_EUNKNOWNTOPIC) return 0; /* deleted again meanwhile */
    out->configs.items = g.items;
    out->configs.count = g.count;
    return code;
}

/* ---- the answer ------------------------------------------------------------------------------------------------- */

static void out_error(topic_out *out, int16_t error, cnk_kafka_string text) {
    out->error_code = error;
    out->error_message = text;
    out->num_partitions = -1;
    out->replication_factor = -1;
}

static int answer(cnk_kafka_request *r, create_state *s) {
    cnk_create_topics_response out;
    for (size_t i = 0; i < s->op.topic_count; i++) {
        const cnk_create_topic *t = &s->op.topics[i];
        topic_out *to = s->answers[i];
        if (t->error) {
            out_error(to, cnk_kafka_error(t->error), cnk_kafka_string_of(t->error_text[0] ? t->error_text : NULL));
            continue;
        }
        to->topic_id = t->topic_id;
        to->num_partitions = t->partitions_made;
        to->replication_factor = t->replication_made;
        const int code = r->version >= 5 ? fill_configs(r, s, s->asked[i], to) : 0;
        if (code) return code;
    }
    cnk_kafka_defaults(cnk_create_topics_response_message.root, &out);
    out.topics.items = s->out;
    out.topics.count = s->out_count;
    return cnk_kafka_answer(r, &out);
}

static void created(cnk_create_topics *op) {
    cnk_kafka_request *r = op->arg;
    cnk_kafka_request_finish(r, answer(r, r->op));
}

static void cancel(cnk_kafka_request *r) {
    create_state *s = r->op;
    cnk_broker_create_topics_cancel(&s->op);
}

/* ---- the request ------------------------------------------------------------------------------------------------ */

static int fill_settings(cnk_kafka_request *r, const topic_in *in, cnk_create_topic *t) {
    cnk_topic_setting *settings = cnk_kafka_request_alloc(r, (size_t)in->configs.count, sizeof *settings);
    cnk_topic_assignment *assignments = cnk_kafka_request_alloc(r, (size_t)in->assignments.count, sizeof *assignments);
    if (!settings || !assignments) return CHRONIK_ENOMEM;
    for (int32_t i = 0; i < in->configs.count; i++)
        settings[i] = (cnk_topic_setting){cnk_kafka_text_of(in->configs.items[i].name),
                                          cnk_kafka_text_of(in->configs.items[i].value)};
    for (int32_t i = 0; i < in->assignments.count; i++)
        assignments[i] = (cnk_topic_assignment){in->assignments.items[i].partition_index,
                                                in->assignments.items[i].broker_ids.items,
                                                (size_t)in->assignments.items[i].broker_ids.count};
    t->settings = settings;
    t->setting_count = (size_t)in->configs.count;
    t->assignments = assignments;
    t->assignment_count = (size_t)in->assignments.count;
    return 0;
}

/* The same name twice: one answer, an error (ControllerApis.createTopics). `first` finds each name's answer. */
static int collect(cnk_kafka_request *r, create_state *s) {
    const size_t count = (size_t)s->in.topics.count;
    cnk_map first = {0};
    int code = 0;
    s->out = cnk_kafka_request_alloc(r, count, sizeof *s->out);
    s->op.topics = cnk_kafka_request_alloc(r, count, sizeof *s->op.topics);
    s->asked = cnk_kafka_request_alloc(r, count, sizeof *s->asked);
    s->answers = cnk_kafka_request_alloc(r, count, sizeof *s->answers);
    if (!s->out || !s->op.topics || !s->asked || !s->answers) return CHRONIK_ENOMEM;
    for (size_t i = 0; i < count && code == 0; i++) {
        const cnk_kafka_string name = s->in.topics.items[i].name;
        const char *key = name.data ? name.data : "";
        topic_out *out = cnk_map_get_bytes(&first, key, (size_t)name.len);
        if (out) {
            out_error(out, CNK_KAFKA_INVALID_REQUEST, CNK_KAFKA_STRING("Duplicate topic name."));
            continue;
        }
        out = &s->out[s->out_count++];
        out->name = name;
        out->error_message = CNK_KAFKA_STRING_NULL;
        code = cnk_map_put_bytes(&first, key, (size_t)name.len, out);
    }
    for (size_t i = 0; i < count && code == 0; i++) {
        const topic_in *in = &s->in.topics.items[i];
        const cnk_text name = cnk_kafka_text_of(in->name);
        topic_out *out = cnk_map_get_bytes(&first, name.p, name.len);
        if (out->error_code) continue;
        if (name.len == sizeof METADATA_TOPIC - 1 && memcmp(name.p, METADATA_TOPIC, name.len) == 0) {
            out_error(out, CNK_KAFKA_INVALID_REQUEST,
                      CNK_KAFKA_STRING("Creation of internal topic " METADATA_TOPIC " is prohibited."));
            continue;
        }
        cnk_create_topic *t = &s->op.topics[s->op.topic_count];
        t->name = name;
        t->partitions = in->num_partitions;
        t->replication = in->replication_factor;
        s->asked[s->op.topic_count] = in;
        s->answers[s->op.topic_count++] = out;
        code = fill_settings(r, in, t);
    }
    cnk_map_free(&first);
    return code;
}

int cnk_kafka_handle_create_topics(cnk_kafka_request *r) {
    create_state *s = cnk_kafka_request_alloc(r, 1, sizeof *s);
    if (!s) return CHRONIK_ENOMEM;
    r->op = s;
    int code = cnk_kafka_request_decode(r, &s->in);
    if (code == 0 && s->in.topics.count > CNK_CREATE_TOPICS_MAX) code = CHRONIK_ETOOLARGE;
    if (code == 0) code = collect(r, s);
    if (code) return code;
    s->op.context = &r->context;
    s->op.timeout_ms = s->in.timeout_ms;
    s->op.validate_only = s->in.validate_only;
    s->op.done = created;
    s->op.arg = r;
    r->cancel = cancel;
    code = s->op.topic_count ? cnk_broker_create_topics(cnk_kafka_request_shard(r), &s->op) : CNK_DONE;
    if (code == CNK_PENDING) return CNK_PENDING;
    if (code < 0)
        for (size_t i = 0; i < s->op.topic_count; i++) s->op.topics[i].error = code;
    code = answer(r, s);
    return code ? code : CNK_DONE;
}
