/* Adding partitions to topics, and changing topics' configurations: checked against the head and committed on shard 0,
 * answered when every shard knows. admin.c says how a run goes. */
#include <stdio.h>
#include <stdlib.h>

#include "base/assert.h"
#include "base/error.h"
#include "base/mem.h"
#include "broker/admin.h"

static void grow_at_first(cnk_admin *run);
static void grow_answer(cnk_admin *run, int code);
static int check_growth(const cnk_admin *run, cnk_admin_item *item);
static int check_new_nodes(const cnk_admin *run, cnk_admin_item *item);
static void alter_at_first(cnk_admin *run);
static void alter_answer(cnk_admin *run, int code);
static int find_topic(const cnk_admin *run, cnk_admin_item *item);
static int changed_configs(cnk_admin *run, cnk_admin_item *item, cnk_meta_config **ret_configs, size_t *ret_count);
static int change_one(cnk_admin *run, cnk_admin_item *item, size_t which, cnk_meta_config *configs, size_t *count);
static int list_value(cnk_admin *run, const cnk_topic_option *option, const cnk_meta_config *configs, size_t count,
                      uint8_t change, cnk_text words, cnk_text *ret_value);
static bool list_has(const char *list, const char *word, size_t len);

/* ---- partitions ------------------------------------------------------------------------------------------------- */

int cnk_broker_create_partitions(cnk_shard *shard, cnk_create_partitions *op) {
    cnk_admin *run = NULL;
    if (op->topic_count > CNK_CREATE_TOPICS_MAX) return CHRONIK_ETOOLARGE;
    int rc = cnk_admin_new(shard, op->topic_count, op->timeout_ms, op, &run);
    if (rc != 0) return rc;
    run->at_first = grow_at_first;
    run->answer = grow_answer;
    run->validate_only = op->validate_only;
    for (size_t i = 0; i < op->topic_count && rc == 0; i++) {
        const cnk_grow_topic *t = &op->topics[i];
        cnk_admin_item *item = &run->items[i];
        item->partitions = t->count;
        item->assigned = t->assigned;
        rc = cnk_admin_text(run, t->name.p ? t->name : (cnk_text){"", 0}, &item->name);
        if (rc == 0) rc = cnk_admin_assignments(run, item, t->assignments, t->assignment_count);
    }
    if (rc != 0) {
        cnk_admin_free(run);
        return rc;
    }
    op->run = run;
    cnk_admin_start(run);
    return CNK_PENDING;
}

void cnk_broker_create_partitions_cancel(cnk_create_partitions *op) {
    if (op->run) cnk_admin_end(op->run, CHRONIK_ECANCELED);
}

static void grow_at_first(cnk_admin *run) {
    const cnk_broker *broker = run->home->broker;
    cnk_publisher *pub = broker->publisher;
    cnk_meta *meta = cnk_publisher_meta(pub);
    const cnk_meta_image *head = cnk_meta_image_head(meta);
    cnk_meta_command command;
    uint64_t index = 0, next_stream = 0;
    size_t proposed = 0;
    int rc = 0;
    cnk_meta_command_init(&command);
    for (size_t i = 0; i < run->item_count; i++) {
        cnk_admin_item *item = &run->items[i];
        if (check_growth(run, item) != 0 || run->validate_only) continue;
        cnk_meta_command_partitions(&command, head, &next_stream, &item->id,
                                    item->partitions - item->topic->partition_total, broker->options.node_id);
        proposed++;
    }
    if (proposed > 0) rc = cnk_meta_propose(meta, cnk_publisher_replica(pub), &command, &index);
    cnk_meta_command_free(&command);
    run->open = 1;
    for (size_t i = 0; i < run->item_count; i++) {
        cnk_admin_item *item = &run->items[i];
        item->topic = NULL; /* the head's, which has moved on */
        if (item->error != 0 || run->validate_only) continue;
        if (rc != 0) {
            cnk_admin_refuse(item, rc == CHRONIK_ENOSPC || rc == CHRONIK_EFENCED ? CHRONIK_ESTORAGE : rc,
                             "The metadata cannot take the partitions: %s", chronik_strerror(rc));
            continue;
        }
        run->open++;
        cnk_publisher_when_online(pub, &item->wait, &item->id, index);
    }
    if (--run->open == 0) cnk_admin_home_committed(run);
}

static void grow_answer(cnk_admin *run, int code) {
    cnk_create_partitions *op = run->op;
    for (size_t i = 0; i < run->item_count; i++) {
        op->topics[i].error = code != 0 ? code : run->items[i].error;
        snprintf(op->topics[i].error_text, sizeof op->topics[i].error_text, "%s", code ? "" : run->items[i].text);
    }
    op->run = NULL;
    op->done(op);
}

static int check_growth(const cnk_admin *run, cnk_admin_item *item) {
    if (find_topic(run, item) != 0) return item->error;
    const int now = (int)item->topic->partition_total;
    if (item->partitions == now)
        return cnk_admin_refuse(item, CHRONIK_EINVALIDPARTITIONS, "Topic already has %d partition(s).", now);
    if (item->partitions < now)
        return cnk_admin_refuse(item, CHRONIK_EINVALIDPARTITIONS,
                                "The topic %s currently has %d partition(s); %d would not be an increase.",
                                item->topic->name, now, (int)item->partitions);
    if (item->partitions > CNK_TOPIC_PARTITIONS_MAX)
        return cnk_admin_refuse(item, CHRONIK_EINVALIDPARTITIONS, "A topic has at most %d partitions.",
                                CNK_TOPIC_PARTITIONS_MAX);
    return item->assigned ? check_new_nodes(run, item) : 0;
}

static int check_new_nodes(const cnk_admin *run, cnk_admin_item *item) {
    const int32_t self = run->home->broker->options.node_id;
    const int added = (int)(item->partitions - item->topic->partition_total);
    if (item->assignment_count != (size_t)added)
        return cnk_admin_refuse(
            item, CHRONIK_EINVALIDASSIGNMENT,
            "Attempted to add %d additional partition(s), but only %zu assignment(s) were specified.", added,
            item->assignment_count);
    for (size_t i = 0; i < item->assignment_count; i++) {
        const cnk_topic_assignment *a = &item->assignments[i];
        if (a->node_count == 0)
            return cnk_admin_refuse(item, CHRONIK_EINVALIDASSIGNMENT,
                                    "The manual partition assignment includes an empty replica list.");
        for (size_t n = 0; n < a->node_count; n++)
            if (a->nodes[n] != self)
                return cnk_admin_refuse(
                    item, CHRONIK_EINVALIDASSIGNMENT,
                    "The manual partition assignment includes broker %d, but no such broker is registered.",
                    (int)a->nodes[n]);
        if (a->node_count > 1)
            return cnk_admin_refuse(item, CHRONIK_EINVALIDASSIGNMENT,
                                    "The manual partition assignment includes the broker %d more than once.",
                                    (int)self);
    }
    return 0;
}

/* ---- configurations --------------------------------------------------------------------------------------------- */

int cnk_broker_alter_configs(cnk_shard *shard, cnk_alter_configs *op) {
    cnk_admin *run = NULL;
    if (op->topic_count > CNK_CREATE_TOPICS_MAX) return CHRONIK_ETOOLARGE;
    int rc = cnk_admin_new(shard, op->topic_count, op->timeout_ms, op, &run);
    if (rc != 0) return rc;
    run->at_first = alter_at_first;
    run->answer = alter_answer;
    run->validate_only = op->validate_only;
    for (size_t i = 0; i < op->topic_count && rc == 0; i++) {
        const cnk_alter_topic *t = &op->topics[i];
        cnk_admin_item *item = &run->items[i];
        rc = cnk_admin_text(run, t->name.p ? t->name : (cnk_text){"", 0}, &item->name);
        if (rc == 0) rc = cnk_admin_settings(run, item, t->settings, t->setting_count);
        if (rc != 0 || t->changes == NULL) continue;
        uint8_t *changes = cnk_arena_alloc(&run->arena, t->setting_count + 1);
        if (changes == NULL)
            rc = CHRONIK_ENOMEM;
        else if (t->setting_count > 0)
            memcpy(changes, t->changes, t->setting_count);
        item->changes = changes;
    }
    if (rc != 0) {
        cnk_admin_free(run);
        return rc;
    }
    op->run = run;
    cnk_admin_start(run);
    return CNK_PENDING;
}

void cnk_broker_alter_configs_cancel(cnk_alter_configs *op) {
    if (op->run) cnk_admin_end(op->run, CHRONIK_ECANCELED);
}

static void alter_at_first(cnk_admin *run) {
    cnk_publisher *pub = run->home->broker->publisher;
    cnk_meta_command command;
    size_t proposed = 0;
    int rc = 0;
    cnk_meta_command_init(&command);
    for (size_t i = 0; i < run->item_count; i++) {
        cnk_admin_item *item = &run->items[i];
        cnk_meta_config *configs = NULL;
        size_t count = 0;
        if (find_topic(run, item) != 0 || changed_configs(run, item, &configs, &count) != 0 || run->validate_only)
            continue;
        cnk_meta_command_configs(&command, &item->id, configs, count);
        proposed++;
    }
    if (proposed > 0)
        rc = cnk_meta_propose(cnk_publisher_meta(pub), cnk_publisher_replica(pub), &command, &run->version);
    cnk_meta_command_free(&command);
    cnk_admin_home_everywhere(run, rc);
}

static void alter_answer(cnk_admin *run, int code) {
    cnk_alter_configs *op = run->op;
    for (size_t i = 0; i < run->item_count; i++) {
        op->topics[i].error = code != 0 ? code : run->items[i].error;
        snprintf(op->topics[i].error_text, sizeof op->topics[i].error_text, "%s", code ? "" : run->items[i].text);
    }
    op->run = NULL;
    op->done(op);
}

/* In the head; a topic that the request names twice would lose one of its changes. */
static int find_topic(const cnk_admin *run, cnk_admin_item *item) {
    const cnk_meta_image *head = cnk_meta_image_head(cnk_publisher_meta(run->home->broker->publisher));
    item->topic = cnk_meta_topic_by_name(head, item->name.p, item->name.len);
    if (item->topic == NULL)
        return cnk_admin_refuse(item, CHRONIK_EUNKNOWNTOPIC, "The topic '%.*s' does not exist.", (int)item->name.len,
                                item->name.p);
    item->id = item->topic->id;
    for (const cnk_admin_item *other = run->items; other < item; other++)
        if (other->topic == item->topic)
            return cnk_admin_refuse(item, CHRONIK_EINVALIDREQUEST, "The topic is named twice.");
    return 0;
}

static int compare_configs(const void *a, const void *b) {
    return strcmp(((const cnk_meta_config *)a)->name, ((const cnk_meta_config *)b)->name);
}

/* What the topic has after the item's changes, sorted, in the run's memory. */
static int changed_configs(cnk_admin *run, cnk_admin_item *item, cnk_meta_config **ret_configs, size_t *ret_count) {
    const size_t kept = item->changes ? item->topic->config_count : 0, room = kept + item->setting_count + 1;
    cnk_meta_config *configs = cnk_arena_alloc(&run->arena, room * sizeof *configs);
    size_t count = kept;
    if (configs == NULL) return cnk_admin_refuse(item, CHRONIK_ENOMEM, "Out of memory.");
    /* The head's texts: borrowed until the command is written, before anything can change it. */
    if (kept > 0) memcpy(configs, item->topic->configs, kept * sizeof *configs);
    for (size_t i = 0; i < item->setting_count; i++)
        if (change_one(run, item, i, configs, &count) != 0) return item->error;
    qsort(configs, count, sizeof *configs, compare_configs);
    *ret_configs = configs;
    *ret_count = count;
    return 0;
}

static int change_one(cnk_admin *run, cnk_admin_item *item, size_t which, cnk_meta_config *configs, size_t *count) {
    chronik_error err = CHRONIK_ERROR_INIT;
    const cnk_topic_setting *s = &item->settings[which];
    const uint8_t change = item->changes ? item->changes[which] : CNK_CHANGE_SET;
    const char *name = s->name.p ? s->name.p : "";
    cnk_text value = s->value;
    size_t at = 0;
    while (at < *count && strcmp(configs[at].name, name) != 0) at++;
    if (change == CNK_CHANGE_DELETE) { /* also what there is none of */
        if (at < *count) configs[at] = configs[--*count];
        return 0;
    }
    const cnk_topic_option *option = cnk_topic_option_find(name, strlen(name));
    if (value.p == NULL)
        return cnk_admin_refuse(item, CHRONIK_EINVALIDREQUEST, "Null value not supported for : %s", name);
    if (option == NULL) return cnk_admin_refuse(item, CHRONIK_EINVALIDCONFIG, "Unknown topic config name: %s", name);
    if (change != CNK_CHANGE_SET) {
        if (option->type != CNK_CONFIG_LIST)
            return cnk_admin_refuse(item, CHRONIK_EINVALIDCONFIG, "Can't %s to key %s because its type is not LIST.",
                                    change == CNK_CHANGE_APPEND ? "append" : "subtract", name);
        if (list_value(run, option, configs, *count, change, s->value, &value) != 0)
            return cnk_admin_refuse(item, CHRONIK_ENOMEM, "Out of memory.");
    }
    if (cnk_topic_option_check(option, value.p, value.len, &err) != 0)
        return cnk_admin_refuse(item, CHRONIK_EINVALIDCONFIG, "%s", err.text);
    configs[at].name = (char *)(uintptr_t)name;
    configs[at].value = (char *)(uintptr_t)value.p;
    *count += at == *count;
    return 0;
}

/* The list in force, with the words appended that it lacks, or taken away. */
static int list_value(cnk_admin *run, const cnk_topic_option *option, const cnk_meta_config *configs, size_t count,
                      uint8_t change, cnk_text words, cnk_text *ret_value) {
    const cnk_meta_options *options = cnk_publisher_meta_options(run->home->broker->publisher);
    const char *now = cnk_meta_option_value(options, configs, count, option);
    char *out = cnk_arena_alloc(&run->arena, strlen(now) + words.len + 2);
    size_t len = 0;
    if (out == NULL) return CHRONIK_ENOMEM;
    out[0] = 0;
    for (int pass = 0; pass < 2; pass++) { /* what is there, then what comes */
        const char *p = pass == 0 ? now : words.p;
        if (pass == 1 && change == CNK_CHANGE_SUBTRACT) break;
        while (*p) {
            const size_t word = strcspn(p, ",");
            bool in = word > 0 && !list_has(out, p, word);
            if (pass == 0 && change == CNK_CHANGE_SUBTRACT && list_has(words.p, p, word)) in = false;
            if (in) {
                if (len > 0) out[len++] = ',';
                memcpy(out + len, p, word);
                len += word;
                out[len] = 0;
            }
            p += word + (p[word] == ',');
        }
    }
    *ret_value = (cnk_text){out, len};
    return 0;
}

static bool list_has(const char *list, const char *word, size_t len) {
    for (const char *p = list; *p;) {
        const size_t n = strcspn(p, ",");
        if (n == len && memcmp(p, word, len) == 0) return true;
        p += n + (p[n] == ',');
    }
    return false;
}
