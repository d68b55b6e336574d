/* AlterConfigs, which sets all that a resource has, and IncrementalAlterConfigs (KIP-339), which changes single
 * options. Topics' options can be changed; a broker's cannot, at run time. */
#include <stdio.h>
#include <string.h>

#include "base/map.h"
#include "kafka/internal.h"

enum { RESOURCE_TOPIC = 2, RESOURCE_BROKER = 4 };

typedef cnk_incremental_alter_configs_response_alter_configs_resource_response resource_out;

/* A resource of either request. */
typedef struct resource {
    int8_t type;
    cnk_kafka_string name;
    cnk_topic_setting *settings;
    uint8_t *changes; /* NULL: all of them are set, and the rest goes */
    size_t setting_count;
} resource;

typedef struct alter_state {
    cnk_alter_configs op;
    resource *resources;
    resource_out *out; /* one for each resource */
    size_t resource_count;
    resource_out **answers; /* of op.topics */
} alter_state;

static void out_error(resource_out *out, int16_t error, const char *text) {
    out->error_code = error;
    out->error_message = cnk_kafka_string_of(text);
}

static int answer(cnk_kafka_request *r, alter_state *s) {
    for (size_t i = 0; i < s->op.topic_count; i++) {
        const cnk_alter_topic *t = &s->op.topics[i];
        if (t->error) out_error(s->answers[i], cnk_kafka_error(t->error), t->error_text[0] ? t->error_text : NULL);
    }
    if (r->api->key == CNK_KAFKA_API_INCREMENTAL_ALTER_CONFIGS) {
        cnk_incremental_alter_configs_response out;
        cnk_kafka_defaults(cnk_incremental_alter_configs_response_message.root, &out);
        out.responses.items = s->out;
        out.responses.count = (int32_t)s->resource_count;
        return cnk_kafka_answer(r, &out);
    }
    cnk_alter_configs_response out;
    cnk_kafka_defaults(cnk_alter_configs_response_message.root, &out);
    out.responses.items = cnk_kafka_request_alloc(r, s->resource_count, sizeof *out.responses.items);
    if (!out.responses.items) return CHRONIK_ENOMEM;
    for (size_t i = 0; i < s->resource_count; i++)
        out.responses.items[out.responses.count++] = (cnk_alter_configs_response_alter_configs_resource_response){
            s->out[i].error_code, s->out[i].error_message, s->out[i].resource_type, s->out[i].resource_name};
    return cnk_kafka_answer(r, &out);
}

static void altered(cnk_alter_configs *op) {
    cnk_kafka_request *r = op->arg;
    cnk_kafka_request_finish(r, answer(r, r->op));
}

static void cancel(cnk_kafka_request *r) {
    alter_state *s = r->op;
    cnk_broker_alter_configs_cancel(&s->op);
}

/* ---- what is wrong with a resource ------------------------------------------------------------------------------ */

static bool option_twice(const resource *in, bool *ret_failed) {
    cnk_map seen = {0};
    bool twice = false;
    *ret_failed = false;
    for (size_t i = 0; i < in->setting_count && !twice && !*ret_failed; i++) {
        const char *name = in->settings[i].name.p ? in->settings[i].name.p : "";
        twice = cnk_map_get_bytes(&seen, name, in->settings[i].name.len) != NULL;
        if (!twice) *ret_failed = cnk_map_put_bytes(&seen, name, in->settings[i].name.len, &in->settings[i]) != 0;
    }
    cnk_map_free(&seen);
    return twice;
}

/* To delete what was never set changes nothing, as a broker's options cannot be set at run time; tools do so with the
 * throttles of replication. */
static bool changes_nothing(const resource *in) {
    if (in->setting_count > 0 && !in->changes) return false;
    for (size_t i = 0; i < in->setting_count; i++)
        if (in->changes[i] != CNK_CHANGE_DELETE) return false;
    return true;
}

static void check_broker(const cnk_kafka_request *r, const resource *in, resource_out *out) {
    char own[16];
    const int len = snprintf(own, sizeof own, "%d", (int)cnk_kafka_node_id(r));
    if (in->name.len > 0 && (in->name.len != len || memcmp(in->name.data, own, (size_t)len) != 0))
        out_error(out, CNK_KAFKA_INVALID_REQUEST, "Unexpected broker id, expected this broker's or an empty string");
    else if (!changes_nothing(in))
        out_error(out, CNK_KAFKA_INVALID_REQUEST, "A broker's options cannot be changed while it runs");
}

static int check(const cnk_kafka_request *r, const resource *in, resource_out *out) {
    bool failed;
    if (option_twice(in, &failed)) {
        out_error(out, CNK_KAFKA_INVALID_REQUEST, "Error due to duplicate config keys");
    } else if (failed) {
        return CHRONIK_ENOMEM;
    } else if (in->type == RESOURCE_BROKER) {
        check_broker(r, in, out);
    } else if (in->type != RESOURCE_TOPIC) {
        out_error(out, CNK_KAFKA_INVALID_REQUEST, "Unsupported resource type");
    } else if (in->name.len <= 0) {
        out_error(out, CNK_KAFKA_INVALID_REQUEST, "Default topic resources are not allowed.");
    } else if (cnk_topic_name_check(in->name.data, (size_t)in->name.len, NULL)) {
        out_error(out, CNK_KAFKA_INVALID_TOPIC_EXCEPTION, "Topic name is invalid");
    } else {
        for (size_t i = 0; in->changes && i < in->setting_count; i++)
            if (in->changes[i] > CNK_CHANGE_SUBTRACT)
                out_error(out, CNK_KAFKA_INVALID_REQUEST, "Unknown config operation");
    }
    return 0;
}

/* A resource that is there twice is refused both times. The maps' keys live in the request. */
static int refuse_twice(alter_state *s) {
    cnk_map seen[2] = {{0}, {0}}; /* topics, brokers; others are refused anyway */
    int code = 0;
    for (size_t i = 0; i < s->resource_count && code == 0; i++) {
        const resource *in = &s->resources[i];
        if (in->type != RESOURCE_TOPIC && in->type != RESOURCE_BROKER) continue;
        cnk_map *map = &seen[in->type == RESOURCE_BROKER];
        const char *name = in->name.len > 0 ? in->name.data : "";
        const size_t len = in->name.len > 0 ? (size_t)in->name.len : 0;
        resource_out *first = cnk_map_get_bytes(map, name, len);
        if (!first) {
            code = cnk_map_put_bytes(map, name, len, &s->out[i]);
            continue;
        }
        out_error(first, CNK_KAFKA_INVALID_REQUEST, "Each resource must appear at most once.");
        out_error(&s->out[i], CNK_KAFKA_INVALID_REQUEST, "Each resource must appear at most once.");
    }
    cnk_map_free(&seen[0]);
    cnk_map_free(&seen[1]);
    return code;
}

/* ---- the requests ----------------------------------------------------------------------------------------------- */

static int run(cnk_kafka_request *r, alter_state *s, bool validate_only) {
    s->op.topics = cnk_kafka_request_alloc(r, s->resource_count, sizeof *s->op.topics);
    s->answers = cnk_kafka_request_alloc(r, s->resource_count, sizeof *s->answers);
    if (!s->op.topics || !s->answers) return CHRONIK_ENOMEM;
    for (size_t i = 0; i < s->resource_count; i++) {
        const resource *in = &s->resources[i];
        s->out[i] = (resource_out){0, CNK_KAFKA_STRING_NULL, in->type, in->name};
        const int code = check(r, in, &s->out[i]);
        if (code) return code;
    }
    int code = refuse_twice(s);
    if (code) return code;
    for (size_t i = 0; i < s->resource_count; i++) {
        const resource *in = &s->resources[i];
        if (s->out[i].error_code || in->type != RESOURCE_TOPIC) continue;
        s->answers[s->op.topic_count] = &s->out[i];
        s->op.topics[s->op.topic_count++] = (cnk_alter_topic){.name = cnk_kafka_text_of(in->name),
                                                              .settings = in->settings,
                                                              .changes = in->changes,
                                                              .setting_count = in->setting_count};
    }
    s->op.context = &r->context;
    s->op.timeout_ms = CNK_KAFKA_ALTER_MS;
    s->op.validate_only = validate_only;
    s->op.done = altered;
    s->op.arg = r;
    r->op = s;
    r->cancel = cancel;
    code = s->op.topic_count ? cnk_broker_alter_configs(cnk_kafka_request_shard(r), &s->op) : CNK_DONE;
    if (code == CNK_PENDING) return CNK_PENDING;
    if (code < 0)
        for (size_t i = 0; i < s->op.topic_count; i++) s->op.topics[i].error = code;
    code = answer(r, s);
    return code ? code : CNK_DONE;
}

static int state_new(cnk_kafka_request *r, size_t count, alter_state **ret_state) {
    if (count > CNK_CREATE_TOPICS_MAX) return CHRONIK_ETOOLARGE;
    alter_state *s = cnk_kafka_request_alloc(r, 1, sizeof *s);
    if (!s) return CHRONIK_ENOMEM;
    s->resource_count = count;
    s->resources = cnk_kafka_request_alloc(r, count, sizeof *s->resources);
    s->out = cnk_kafka_request_alloc(r, count, sizeof *s->out);
    *ret_state = s;
    return s->resources && s->out ? 0 : CHRONIK_ENOMEM;
}

int cnk_kafka_handle_alter_configs(cnk_kafka_request *r) {
    cnk_alter_configs_request in;
    alter_state *s = NULL;
    int code = cnk_kafka_request_decode(r, &in);
    if (code == 0) code = state_new(r, (size_t)in.resources.count, &s);
    for (int32_t i = 0; code == 0 && i < in.resources.count; i++) {
        const cnk_alter_configs_request_alter_configs_resource *from = &in.resources.items[i];
        resource *to = &s->resources[i];
        const size_t count = (size_t)from->configs.count;
        *to = (resource){.type = from->resource_type, .name = from->resource_name, .setting_count = count};
        to->settings = cnk_kafka_request_alloc(r, count, sizeof *to->settings);
        if (!to->settings) return CHRONIK_ENOMEM;
        for (size_t n = 0; n < count; n++)
            to->settings[n] = (cnk_topic_setting){cnk_kafka_text_of(from->configs.items[n].name),
                                                  cnk_kafka_text_of(from->configs.items[n].value)};
    }
    return code ? code : run(r, s, in.validate_only);
}

int cnk_kafka_handle_incremental_alter_configs(cnk_kafka_request *r) {
    cnk_incremental_alter_configs_request in;
    alter_state *s = NULL;
    int code = cnk_kafka_request_decode(r, &in);
    if (code == 0) code = state_new(r, (size_t)in.resources.count, &s);
    for (int32_t i = 0; code == 0 && i < in.resources.count; i++) {
        const cnk_incremental_alter_configs_request_alter_configs_resource *from = &in.resources.items[i];
        resource *to = &s->resources[i];
        const size_t count = (size_t)from->configs.count;
        *to = (resource){.type = from->resource_type, .name = from->resource_name, .setting_count = count};
        to->settings = cnk_kafka_request_alloc(r, count, sizeof *to->settings);
        to->changes = cnk_kafka_request_alloc(r, count + 1, sizeof *to->changes);
        if (!to->settings || !to->changes) return CHRONIK_ENOMEM;
        for (size_t n = 0; n < count; n++) {
            to->settings[n] = (cnk_topic_setting){cnk_kafka_text_of(from->configs.items[n].name),
                                                  cnk_kafka_text_of(from->configs.items[n].value)};
            to->changes[n] = (uint8_t)from->configs.items[n].config_operation;
        }
    }
    return code ? code : run(r, s, in.validate_only);
}
