/* DescribeConfigs: options of topics and of the node, with where each value comes from.
 *
 * Any shard; reads an image and the broker's options. */
#include <string.h>

#include "broker/internal.h"

static const cnk_broker_config_row *broker_row(const cnk_broker *broker, const char *name);
static void synonym_add(cnk_config_row *row, const char *name, const char *value, uint8_t source);

int cnk_broker_topic_configs(cnk_shard *shard, const cnk_meta_image *image, cnk_text topic,
                             int (*each)(void *arg, const cnk_config_row *row), void *arg) {
    if (cnk_topic_name_check(topic.p, topic.len, NULL) != 0) return CHRONIK_EINVALIDTOPIC;
    const cnk_meta_topic *t = cnk_meta_topic_by_name(image, topic.p, topic.len);
    if (t == NULL) return CHRONIK_EUNKNOWNTOPIC;
    for (size_t i = 0; i < cnk_topic_option_count(); i++) {
        const cnk_topic_option *o = cnk_topic_option_at(i);
        const char *own = cnk_meta_topic_config(t, o->name);
        const cnk_broker_config_row *broker = o->broker_name ? broker_row(shard->broker, o->broker_name) : NULL;
        cnk_config_row row = {.name = o->name, .type = o->type, .doc = o->doc};
        if (own) synonym_add(&row, o->name, own, CNK_SOURCE_TOPIC);
        if (broker && broker->set && broker->value)
            synonym_add(&row, broker->name, broker->value, CNK_SOURCE_STATIC_BROKER);
        /* Where the broker option's default is null, others stand behind it (hours, minutes), which are no synonyms. */
        if (o->broker_name && (broker == NULL || broker->fallback))
            synonym_add(&row, o->broker_name, o->default_value, CNK_SOURCE_DEFAULT);
        row.value = row.synonym_count > 0 ? row.synonyms[0].value : o->default_value;
        row.source = row.synonym_count > 0 ? row.synonyms[0].source : CNK_SOURCE_DEFAULT;
        int rc = each(arg, &row);
        if (rc != 0) return rc;
    }
    return 0;
}

int cnk_broker_node_configs(cnk_shard *shard, int (*each)(void *arg, const cnk_config_row *row), void *arg) {
    const cnk_broker_options *options = &shard->broker->options;
    for (size_t i = 0; i < options->config_count; i++) {
        const cnk_broker_config_row *o = &options->configs[i];
        cnk_config_row row = {.name = o->name,
                              .value = o->sensitive ? NULL : o->value,
                              .type = o->type,
                              .source = o->set ? CNK_SOURCE_STATIC_BROKER : CNK_SOURCE_DEFAULT,
                              .read_only = true,
                              .sensitive = o->sensitive,
                              .doc = o->doc};
        if (o->set) synonym_add(&row, o->name, row.value, CNK_SOURCE_STATIC_BROKER);
        if (o->fallback) synonym_add(&row, o->name, o->sensitive ? NULL : o->fallback, CNK_SOURCE_DEFAULT);
        int rc = each(arg, &row);
        if (rc != 0) return rc;
    }
    return 0;
}

static const cnk_broker_config_row *broker_row(const cnk_broker *broker, const char *name) {
    for (size_t i = 0; i < broker->options.config_count; i++)
        if (strcmp(broker->options.configs[i].name, name) == 0) return &broker->options.configs[i];
    return NULL;
}

static void synonym_add(cnk_config_row *row, const char *name, const char *value, uint8_t source) {
    row->synonyms[row->synonym_count++] = (cnk_config_synonym){name, value, source};
}
