/* DescribeConfigs: options of topics and of this broker. A list of names that is null or empty asks for all of them. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "kafka/internal.h"

enum { RESOURCE_TOPIC = 2, RESOURCE_BROKER = 4 };

typedef cnk_describe_configs_request_describe_configs_resource resource_in;
typedef cnk_describe_configs_response_describe_configs_result result_out;
typedef cnk_describe_configs_response_describe_configs_resource_result row_out;

typedef struct gather {
    cnk_kafka_request *r;
    const cnk_describe_configs_request *in;
    const resource_in *resource;
    result_out *out; /* its items are NULL while rows are counted */
    int32_t count;
} gather;

static bool is_asked(const resource_in *resource, const char *name) {
    const size_t len = strlen(name);
    if (resource->configuration_keys.count <= 0) return true;
    for (int32_t i = 0; i < resource->configuration_keys.count; i++) {
        const cnk_kafka_string *key = &resource->configuration_keys.items[i];
        if (key->len >= 0 && (size_t)key->len == len && memcmp(key->data, name, len) == 0) return true;
    }
    return false;
}

/* Rows are the broker's during the call only. */
static bool copy(cnk_kafka_request *r, const char *text, cnk_kafka_string *ret_string) {
    cnk_text t;
    if (!cnk_kafka_request_text(r, cnk_kafka_string_of(text), &t)) return false;
    *ret_string = cnk_kafka_string_from(t);
    return true;
}

static int fill_synonyms(gather *g, const cnk_config_row *row, row_out *out) {
    out->synonyms.items = cnk_kafka_request_alloc(g->r, row->synonym_count, sizeof *out->synonyms.items);
    if (!out->synonyms.items) return CHRONIK_ENOMEM;
    for (size_t i = 0; i < row->synonym_count; i++) {
        cnk_describe_configs_response_describe_configs_synonym *s = &out->synonyms.items[out->synonyms.count++];
        s->source = (int8_t)row->synonyms[i].source;
        if (!copy(g->r, row->synonyms[i].name, &s->name)) return CHRONIK_ENOMEM;
        if (!copy(g->r, row->sensitive ? NULL : row->synonyms[i].value, &s->value)) return CHRONIK_ENOMEM;
    }
    return 0;
}

static int fill_row(gather *g, const cnk_config_row *row, row_out *out) {
    out->read_only = row->read_only;
    out->config_source = (int8_t)row->source;
    out->is_sensitive = row->sensitive;
    out->config_type = (int8_t)row->type;
    out->documentation = CNK_KAFKA_STRING_NULL;
    if (!copy(g->r, row->name, &out->name)) return CHRONIK_ENOMEM;
    if (!copy(g->r, row->sensitive ? NULL : row->value, &out->value)) return CHRONIK_ENOMEM;
    if (g->in->include_documentation && !copy(g->r, row->doc, &out->documentation)) return CHRONIK_ENOMEM;
    return g->in->include_synonyms ? fill_synonyms(g, row, out) : 0;
}

static int each_row(void *arg, const cnk_config_row *row) {
    gather *g = arg;
    if (!is_asked(g->resource, row->name)) return 0;
    if (!g->out->configs.items) {
        g->count++;
        return 0;
    }
    CNK_ASSERT(g->out->configs.count < g->count);
    return fill_row(g, row, &g->out->configs.items[g->out->configs.count++]);
}

static int walk(gather *g) {
    cnk_shard *shard = cnk_kafka_request_shard(g->r);
    if (g->resource->resource_type == RESOURCE_BROKER) return cnk_broker_node_configs(shard, each_row, g);
    return cnk_broker_topic_configs(shard, cnk_shard_image(shard), cnk_kafka_text_of(g->resource->resource_name),
                                    each_row, g);
}

/* The sentence ends with what was named, cut where that is long. */
static int fail(cnk_kafka_request *r, result_out *out, int16_t error, const char *sentence, const char *what,
                size_t len) {
    char text[512];
    out->error_code = error;
    snprintf(text, sizeof text, "%s%.*s", sentence, len > 300 ? 300 : (int)len, what);
    return copy(r, text, &out->error_message) ? 0 : CHRONIK_ENOMEM;
}

/* What is wrong with the resource itself; 0: nothing, or the text is filled. *ret_walk: there are rows. */
static int check(gather *g, bool *ret_walk) {
    const resource_in *in = g->resource;
    const char *name = in->resource_name.len > 0 ? in->resource_name.data : "";
    const size_t len = (size_t)in->resource_name.len;
    chronik_error err = CHRONIK_ERROR_INIT;
    char number[16], *end;
    *ret_walk = false;
    if (in->resource_type == RESOURCE_TOPIC) {
        const cnk_meta_image *image = cnk_shard_image(cnk_kafka_request_shard(g->r));
        if (cnk_topic_name_check(name, len, &err))
            return fail(g->r, g->out, CNK_KAFKA_INVALID_TOPIC_EXCEPTION, "", err.text, strlen(err.text));
        *ret_walk = cnk_meta_topic_by_name(image, name, len) != NULL;
        if (!*ret_walk) g->out->error_code = CNK_KAFKA_UNKNOWN_TOPIC_OR_PARTITION;
        return 0;
    }
    if (in->resource_type != RESOURCE_BROKER) {
        snprintf(number, sizeof number, "%d", in->resource_type);
        return fail(g->r, g->out, CNK_KAFKA_INVALID_REQUEST, "Unsupported resource type: ", number, strlen(number));
    }
    if (len == 0) return 0; /* dynamic defaults of all brokers: there are none */
    snprintf(number, sizeof number, "%.*s", (int)(len < sizeof number ? len : sizeof number - 1), name);
    const long id = strtol(number, &end, 10);
    if (*end != 0 || len >= sizeof number)
        return fail(g->r, g->out, CNK_KAFKA_INVALID_REQUEST, "Broker id must be an integer, but it is: ", name, len);
    if (id != cnk_kafka_node_id(g->r))
        return fail(g->r, g->out, CNK_KAFKA_INVALID_REQUEST,
                    "Unexpected broker id, expected this broker's or an empty string, but received ", name, len);
    *ret_walk = true;
    return 0;
}

static int fill_resource(cnk_kafka_request *r, const cnk_describe_configs_request *in, const resource_in *resource,
                         result_out *out) {
    gather g = {r, in, resource, out, 0};
    bool has_rows;
    out->resource_type = resource->resource_type;
    out->resource_name = resource->resource_name;
    out->error_message = CNK_KAFKA_STRING_NULL;
    int code = check(&g, &has_rows);
    if (code || !has_rows) return code;
    if ((code = walk(&g)) != 0) return code;
    if (g.count == 0) return 0;
    out->configs.items = cnk_kafka_request_alloc(r, (size_t)g.count, sizeof(row_out));
    return out->configs.items ? walk(&g) : CHRONIK_ENOMEM;
}

int cnk_kafka_handle_describe_configs(cnk_kafka_request *r) {
    cnk_describe_configs_request in;
    cnk_describe_configs_response out;
    int code = cnk_kafka_request_decode(r, &in);
    if (code) return code;
    if (in.resources.count > CNK_KAFKA_DESCRIBE_RESOURCES_MAX) return CHRONIK_ETOOLARGE;
    cnk_kafka_defaults(cnk_describe_configs_response_message.root, &out);
    out.results.items = cnk_kafka_request_alloc(r, (size_t)in.resources.count, sizeof(result_out));
    if (!out.results.items) return CHRONIK_ENOMEM;
    out.results.count = in.resources.count;
    for (int32_t i = 0; i < in.resources.count && code == 0; i++)
        code = fill_resource(r, &in, &in.resources.items[i], &out.results.items[i]);
    if (code == 0) code = cnk_kafka_answer(r, &out);
    return code ? code : CNK_DONE;
}
