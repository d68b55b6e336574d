/* ListConfigResources (KIP-1142): what has a configuration. Version 0 asks for client metrics alone, of which there are
 * none. */
#include <stdio.h>

#include "kafka/internal.h"

enum {
    RESOURCE_TOPIC = 2,
    RESOURCE_BROKER = 4,
    RESOURCE_LOGGER = 8,
    RESOURCE_CLIENT_METRICS = 16,
    RESOURCE_GROUP = 32
};

/* The kinds that are asked for, as a set; 0: one of them is unknown. */
static int kinds(const cnk_list_config_resources_request *in) {
    static const int all =
        RESOURCE_TOPIC | RESOURCE_BROKER | RESOURCE_LOGGER | RESOURCE_CLIENT_METRICS | RESOURCE_GROUP;
    int set = 0;
    if (in->resource_types.count == 0) return all;
    for (int32_t i = 0; i < in->resource_types.count; i++) {
        const int kind = in->resource_types.items[i];
        if (kind <= 0 || (kind & (kind - 1)) != 0 || !(kind & all)) return 0;
        set |= kind;
    }
    return set;
}

static int fill(cnk_kafka_request *r, int set, const cnk_meta_image *image, cnk_list_config_resources_response *out) {
    const size_t max = 1 + (set & RESOURCE_TOPIC ? image->topic_count : 0);
    out->config_resources.items = cnk_kafka_request_alloc(r, max, sizeof *out->config_resources.items);
    if (!out->config_resources.items) return CHRONIK_ENOMEM;
    for (size_t i = 0; set & RESOURCE_TOPIC && i < image->topic_count; i++) {
        const cnk_meta_topic *t = image->by_name[i];
        if (t->online)
            out->config_resources.items[out->config_resources.count++] =
                (cnk_list_config_resources_response_config_resource){{t->name, t->name_len}, RESOURCE_TOPIC};
    }
    if (set & RESOURCE_BROKER) {
        char text[16];
        cnk_text id;
        snprintf(text, sizeof text, "%d", (int)cnk_kafka_node_id(r));
        if (!cnk_kafka_request_text(r, cnk_kafka_string_of(text), &id)) return CHRONIK_ENOMEM;
        out->config_resources.items[out->config_resources.count++] =
            (cnk_list_config_resources_response_config_resource){cnk_kafka_string_from(id), RESOURCE_BROKER};
    }
    return 0;
}

int cnk_kafka_handle_list_config_resources(cnk_kafka_request *r) {
    cnk_list_config_resources_request in;
    cnk_list_config_resources_response out;
    int code = cnk_kafka_request_decode(r, &in);
    if (code) return code;
    const int set = r->version == 0 ? RESOURCE_CLIENT_METRICS : kinds(&in);
    cnk_meta_image *image = cnk_meta_image_ref(cnk_shard_image(cnk_kafka_request_shard(r)));
    cnk_kafka_defaults(cnk_list_config_resources_response_message.root, &out);
    if (set == 0)
        out.error_code = CNK_KAFKA_UNSUPPORTED_VERSION;
    else
        code = fill(r, set, image, &out);
    if (code == 0) code = cnk_kafka_answer(r, &out);
    cnk_meta_image_unref(image);
    return code ? code : CNK_DONE;
}
