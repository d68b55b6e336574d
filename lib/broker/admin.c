/* Creating and deleting topics: checked and committed on shard 0, answered when every shard knows (K10, R4).
 *
 *   caller's shard: copy the request ──► shard 0: check each topic against the head; one command for all that pass
 *        ▲                                   create: each topic online everywhere │ delete: committed, then everywhere
 *        └────────── answers ◄───────────────────────────────────────────────────┘
 *
 * The request is copied into the run, so that a timeout or a cancel can end the caller's operation at once; what has
 * been proposed then still happens. A run is freed when it has come home.
 *
 * Owner of a run: shard 0 from its message until the answer; its caller's shard before and after. */
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/assert.h"
#include "base/error.h"
#include "base/mem.h"
#include "broker/admin.h"

static int copy_create(cnk_admin *run, const cnk_create_topics *op);
static int copy_topic(cnk_admin *run, cnk_admin_item *item, const cnk_create_topic *topic);
static void run_at_first(chronik_post *post);
static void refusal_committed(cnk_wait *wait, int code);
static void run_at_home(chronik_post *post);
static void answer_create(cnk_admin *run, int code);
static void answer_delete(cnk_admin *run, int code);
static void on_deadline(cnk_deadline *deadline);

static void create_at_first(cnk_admin *run);
static void check_topic(cnk_admin *run, cnk_admin_item *item);
static int check_name(const cnk_admin *run, cnk_admin_item *item);
static int check_layout(const cnk_admin *run, cnk_admin_item *item);
static int check_assignments(const cnk_admin *run, cnk_admin_item *item);
static bool is_groups_topic(const cnk_admin *run, const cnk_admin_item *item);
static int groups_settings(cnk_admin *run, cnk_admin_item *item);
static int check_settings(cnk_admin_item *item);
static void add_topic(cnk_admin *run, cnk_admin_item *item, cnk_meta_command *command, uint64_t *next_stream);
static void topic_online(cnk_topic_wait *wait, int code);
static void delete_at_first(cnk_admin *run);
static void find_topic(cnk_admin_item *item);
static uint32_t topic_epoch(const cnk_meta_topic *topic);
static void change_committed(cnk_wait *wait, int code);
static void change_everywhere(cnk_wait *wait, int code);

/* ---- the caller's shard ----------------------------------------------------------------------------------------- */

int cnk_broker_create_topics(cnk_shard *shard, cnk_create_topics *op) {
    cnk_admin *run = NULL;
    if (op->topic_count > CNK_CREATE_TOPICS_MAX) return CHRONIK_ETOOLARGE;
    int rc = cnk_admin_new(shard, op->topic_count, op->timeout_ms, op, &run);
    if (rc != 0) return rc;
    run->at_first = create_at_first;
    run->answer = answer_create;
    run->validate_only = op->validate_only;
    run->automatic = op->automatic;
    run->coordinator = op->coordinator;
    rc = copy_create(run, op);
    if (rc != 0) {
        cnk_admin_free(run);
        return rc;
    }
    op->run = run;
    cnk_admin_start(run);
    return CNK_PENDING;
}

void cnk_broker_create_topics_cancel(cnk_create_topics *op) {
    if (op->run) cnk_admin_end(op->run, CHRONIK_ECANCELED);
}

int cnk_broker_delete_topics(cnk_shard *shard, cnk_delete_topics *op) {
    cnk_admin *run = NULL;
    if (op->topic_count > CNK_CREATE_TOPICS_MAX) return CHRONIK_ETOOLARGE;
    int rc = cnk_admin_new(shard, op->topic_count, op->timeout_ms, op, &run);
    if (rc != 0) return rc;
    run->at_first = delete_at_first;
    run->answer = answer_delete;
    for (size_t i = 0; i < op->topic_count && rc == 0; i++) {
        run->items[i].id = op->topics[i].topic_id;
        if (op->topics[i].name.p) rc = cnk_admin_text(run, op->topics[i].name, &run->items[i].name);
    }
    if (rc != 0) {
        cnk_admin_free(run);
        return rc;
    }
    op->run = run;
    cnk_admin_start(run);
    return CNK_PENDING;
}

void cnk_broker_delete_topics_cancel(cnk_delete_topics *op) {
    if (op->run) cnk_admin_end(op->run, CHRONIK_ECANCELED);
}

void cnk_admin_stop(cnk_shard *shard) {
    for (bool again = true; again;) {
        again = false;
        CNK_LIST_EACH(node, &shard->admin_runs) {
            cnk_admin *run = CNK_CONTAINER(node, cnk_admin, node);
            if (run->over) continue;
            cnk_admin_end(run, CHRONIK_ESHUTDOWN);
            again = true; /* `done` may have changed the list */
            break;
        }
    }
}

/* The loops are at rest: what is still on its way home stays there. */
void cnk_admin_close(cnk_shard *shard) {
    CNK_LIST_EACH(node, &shard->admin_runs) cnk_admin_free(CNK_CONTAINER(node, cnk_admin, node));
}

int cnk_admin_new(cnk_shard *shard, size_t count, int32_t timeout_ms, void *op, cnk_admin **ret_run) {
    if (shard->stopping) return CHRONIK_ESHUTDOWN;
    if (shard->admins >= CNK_ADMIN_MAX) return CHRONIK_EAGAIN;
    cnk_admin *run = cnk_calloc(1, sizeof *run);
    if (run == NULL) return CHRONIK_ENOMEM;
    cnk_arena_init(&run->arena, 4096, 0);
    run->home = shard;
    run->op = op;
    run->item_count = count;
    run->items = cnk_calloc(count ? count : 1, sizeof *run->items);
    run->deadline.fire = on_deadline;
    run->no_time = timeout_ms <= 0;
    cnk_list_push_back(&shard->admin_runs, &run->node);
    shard->admins++;
    uint64_t wait_ns = (uint64_t)(timeout_ms > 0 ? timeout_ms : 0) * 1000000u;
    int rc =
        run->items ? cnk_shard_deadline_set(shard, &run->deadline, cnk_shard_now_ns(shard) + wait_ns) : CHRONIK_ENOMEM;
    if (rc != 0) {
        cnk_admin_free(run);
        return rc;
    }
    for (size_t i = 0; i < count; i++) {
        run->items[i].run = run;
        run->items[i].wait.run = topic_online;
    }
    *ret_run = run;
    return 0;
}

void cnk_admin_free(cnk_admin *run) {
    cnk_shard_deadline_clear(run->home, &run->deadline);
    cnk_list_remove(&run->node);
    run->home->admins--;
    cnk_arena_free(&run->arena);
    cnk_free(run->items);
    cnk_free(run);
}

static int copy_create(cnk_admin *run, const cnk_create_topics *op) {
    int rc = 0;
    for (size_t i = 0; i < op->topic_count && rc == 0; i++) rc = copy_topic(run, &run->items[i], &op->topics[i]);
    for (size_t i = 0; i < op->topic_count && rc == 0; i++) /* a request has few topics, or the sender pays for many */
        for (size_t j = 0; j < i; j++)
            if (run->items[i].name.len == run->items[j].name.len &&
                memcmp(run->items[i].name.p, run->items[j].name.p, run->items[i].name.len) == 0) {
                cnk_admin_refuse(&run->items[i], CHRONIK_EINVALIDREQUEST, "Duplicate topic name.");
                cnk_admin_refuse(&run->items[j], CHRONIK_EINVALIDREQUEST, "Duplicate topic name.");
            }
    return rc;
}

static int copy_topic(cnk_admin *run, cnk_admin_item *item, const cnk_create_topic *topic) {
    int rc = cnk_admin_text(run, topic->name.p ? topic->name : (cnk_text){"", 0}, &item->name);
    item->partitions = topic->partitions;
    item->replication = topic->replication;
    if (rc == 0 && is_groups_topic(run, item) && topic->setting_count == 0) return groups_settings(run, item);
    if (rc == 0) rc = cnk_admin_assignments(run, item, topic->assignments, topic->assignment_count);
    return rc == 0 ? cnk_admin_settings(run, item, topic->settings, topic->setting_count) : rc;
}

int cnk_admin_assignments(cnk_admin *run, cnk_admin_item *item, const cnk_topic_assignment *from, size_t count) {
    item->assignment_count = count;
    item->assignments = cnk_arena_alloc(&run->arena, (count + 1) * sizeof *item->assignments);
    if (item->assignments == NULL) return CHRONIK_ENOMEM;
    for (size_t i = 0; i < count; i++) {
        int32_t *nodes = cnk_arena_alloc(&run->arena, (from[i].node_count + 1) * sizeof *nodes);
        if (nodes == NULL) return CHRONIK_ENOMEM;
        if (from[i].node_count > 0) memcpy(nodes, from[i].nodes, from[i].node_count * sizeof *nodes);
        item->assignments[i] = (cnk_topic_assignment){from[i].partition, nodes, from[i].node_count};
    }
    return 0;
}

int cnk_admin_settings(cnk_admin *run, cnk_admin_item *item, const cnk_topic_setting *from, size_t count) {
    int rc = 0;
    item->setting_count = count;
    item->settings = cnk_arena_alloc(&run->arena, (count + 1) * sizeof *item->settings);
    if (item->settings == NULL) return CHRONIK_ENOMEM;
    for (size_t i = 0; i < count && rc == 0; i++) {
        rc = cnk_admin_text(run, from[i].name, &item->settings[i].name);
        if (rc == 0) rc = cnk_admin_text(run, from[i].value, &item->settings[i].value);
    }
    return rc;
}

int cnk_admin_text(cnk_admin *run, cnk_text from, cnk_text *ret) {
    if (from.p == NULL) {
        *ret = (cnk_text){NULL, 0};
        return 0;
    }
    char *to = cnk_arena_alloc(&run->arena, from.len + 1);
    if (to == NULL) return CHRONIK_ENOMEM;
    memcpy(to, from.p, from.len);
    to[from.len] = 0;
    *ret = (cnk_text){to, from.len};
    return 0;
}

/* Always by message, so that nothing is done inside the starting call. */
void cnk_admin_start(cnk_admin *run) {
    const chronik_loop *first = run->home->broker->shards[0].loop;
    run->post.run = run_at_first;
    if (run->home->index == 0)
        first->ops->defer(first->self, &run->post);
    else
        first->ops->post(first->self, &run->post);
}

void cnk_admin_home(cnk_admin *run) {
    const chronik_loop *home = run->home->loop;
    run->post.run = run_at_home;
    if (run->home->index == 0)
        home->ops->defer(home->self, &run->post);
    else
        home->ops->post(home->self, &run->post);
}

/* What was refused may have been so for the sake of something that is proposed and not committed, and never will be,
 * should the node die now: the answer waits for it. */
void cnk_admin_home_committed(cnk_admin *run) {
    cnk_publisher *pub = run->home->broker->publisher;
    uint64_t head = cnk_meta_image_head(cnk_publisher_meta(pub))->version;
    run->wait.run = refusal_committed;
    if (head > cnk_replica_commit_index(cnk_publisher_replica(pub)))
        cnk_publisher_when_committed(pub, &run->wait, head);
    else
        cnk_admin_home(run);
}

static void refusal_committed(cnk_wait *wait, int code) {
    cnk_admin *run = CNK_CONTAINER(wait, cnk_admin, wait);
    for (size_t i = 0; i < run->item_count && code != 0; i++) run->items[i].error = code;
    cnk_admin_home(run);
}

static void run_at_home(chronik_post *post) {
    cnk_admin *run = CNK_CONTAINER(post, cnk_admin, post);
    cnk_admin_end(run, run->no_time ? CHRONIK_ETIMEDOUT : 0); /* whichever comes first, the run or its deadline */
    cnk_admin_free(run);
}

static void on_deadline(cnk_deadline *deadline) {
    cnk_admin_end(CNK_CONTAINER(deadline, cnk_admin, deadline), CHRONIK_ETIMEDOUT);
}

/* The caller's operation is over; with a code: before the run has come home. */
void cnk_admin_end(cnk_admin *run, int code) {
    if (run->over) return;
    run->over = true;
    cnk_shard_deadline_clear(run->home, &run->deadline);
    run->answer(run, code);
}

static void answer_create(cnk_admin *run, int code) {
    cnk_create_topics *op = run->op;
    for (size_t i = 0; i < run->item_count; i++) {
        cnk_create_topic *topic = &op->topics[i];
        const cnk_admin_item *item = &run->items[i];
        topic->error = code;
        topic->error_text[0] = 0;
        if (code != 0) continue;
        topic->error = item->error;
        snprintf(topic->error_text, sizeof topic->error_text, "%s", item->text);
        topic->topic_id = item->id;
        topic->partitions_made = item->partitions_made;
        topic->replication_made = item->replication_made;
    }
    op->run = NULL;
    op->done(op);
}

static void answer_delete(cnk_admin *run, int code) {
    cnk_delete_topics *op = run->op;
    for (size_t i = 0; i < run->item_count; i++) {
        cnk_delete_topic *topic = &op->topics[i];
        const cnk_admin_item *item = &run->items[i];
        topic->error = code;
        topic->error_text = NULL;
        topic->name_found[0] = 0;
        if (code != 0) continue;
        topic->error = item->error;
        topic->error_text = item->constant_text;
        topic->topic_id = item->id;
        memcpy(topic->name_found, item->name_found, sizeof topic->name_found);
    }
    op->run = NULL;
    op->done(op);
}

/* ---- shard 0 ---------------------------------------------------------------------------------------------------- */

static void run_at_first(chronik_post *post) {
    cnk_admin *run = CNK_CONTAINER(post, cnk_admin, post);
    run->at_first(run);
}

/* Too many at once are refused together, whatever else is wrong with them, as Kafka does. */
static void refuse_many(cnk_admin *run) {
    int64_t total = 0;
    for (size_t i = 0; i < run->item_count; i++) {
        const cnk_admin_item *item = &run->items[i];
        if (item->assignment_count > 0) total += (int64_t)item->assignment_count;
        else if (item->partitions == -1) total += run->home->broker->options.num_partitions;
        else if (item->partitions > 0) total += item->partitions;
    }
    if (total <= CNK_CREATE_PARTITIONS_MAX) return;
    for (size_t i = 0; i < run->item_count; i++)
        cnk_admin_refuse(&run->items[i], CHRONIK_EPOLICY, "More than %d partitions in one request.",
                         CNK_CREATE_PARTITIONS_MAX);
}

static void create_at_first(cnk_admin *run) {
    cnk_publisher *pub = run->home->broker->publisher;
    cnk_meta *meta = cnk_publisher_meta(pub);
    cnk_meta_command command;
    uint64_t index = 0, next_stream = 0, existing = cnk_meta_image_head(meta)->version;
    size_t proposed = 0;
    int rc = 0;
    cnk_meta_command_init(&command);
    refuse_many(run);
    for (size_t i = 0; i < run->item_count; i++) {
        cnk_admin_item *item = &run->items[i];
        if (item->error == 0) check_topic(run, item);
        if (item->error != 0 || run->validate_only || !cnk_uuid_is_zero(&item->id)) continue;
        add_topic(run, item, &command, &next_stream);
        proposed += item->error == 0;
    }
    if (proposed > 0) rc = cnk_meta_propose(meta, cnk_publisher_replica(pub), &command, &index);
    cnk_meta_command_free(&command);
    run->open = 1;
    for (size_t i = 0; i < run->item_count; i++) {
        cnk_admin_item *item = &run->items[i];
        if (item->error != 0 || run->validate_only) continue;
        bool is_new = item->partitions_made > 0;
        if (is_new && rc != 0) {
            cnk_admin_refuse(item, rc == CHRONIK_ENOSPC || rc == CHRONIK_EFENCED ? CHRONIK_ESTORAGE : rc,
                             "The metadata cannot take the topic: %s", chronik_strerror(rc));
            continue;
        }
        run->open++;
        cnk_publisher_when_online(pub, &item->wait, &item->id, is_new ? index : existing);
    }
    if (--run->open == 0) cnk_admin_home_committed(run);
}

static void topic_online(cnk_topic_wait *wait, int code) {
    cnk_admin_item *item = CNK_CONTAINER(wait, cnk_admin_item, wait);
    if (code != 0)
        cnk_admin_refuse(item, code == CHRONIK_ENOTFOUND ? CHRONIK_EUNKNOWNTOPIC : code, "The topic is not there: %s",
                         chronik_strerror(code));
    if (--item->run->open == 0) cnk_admin_home(item->run);
}

/* With `automatic`, a topic that is there already is waited for: then item->id is its id, and nothing is added. */
static void check_topic(cnk_admin *run, cnk_admin_item *item) {
    int rc = check_name(run, item);
    if (rc == 0 && cnk_uuid_is_zero(&item->id)) rc = check_layout(run, item);
    if (rc == 0 && cnk_uuid_is_zero(&item->id)) rc = check_settings(item);
    CNK_ASSERT(rc == item->error);
}

static int check_name(const cnk_admin *run, cnk_admin_item *item) {
    chronik_error err = CHRONIK_ERROR_INIT;
    const cnk_meta_image *head = cnk_meta_image_head(cnk_publisher_meta(run->home->broker->publisher));
    if (cnk_topic_name_check(item->name.p, item->name.len, &err) != 0)
        return cnk_admin_refuse(item, CHRONIK_EINVALIDTOPIC, "%s", err.text);
    const cnk_meta_topic *other = cnk_meta_topic_collision(head, item->name.p, item->name.len);
    if (other == NULL) {
        if (run->automatic && !run->coordinator && !run->home->broker->options.auto_create_topics)
            return cnk_admin_refuse(item, CHRONIK_EUNKNOWNTOPIC, "Topics are not created automatically.");
        return 0;
    }
    if (other->name_len != item->name.len || memcmp(other->name, item->name.p, item->name.len) != 0)
        return cnk_admin_refuse(item, CHRONIK_EINVALIDTOPIC, "Topic '%s' collides with existing topic: %s",
                                item->name.p, other->name);
    if (!run->automatic)
        return cnk_admin_refuse(item, CHRONIK_ETOPICEXISTS, "Topic '%s' already exists.", item->name.p);
    item->id = other->id;
    return 0;
}

static int check_layout(const cnk_admin *run, cnk_admin_item *item) {
    const cnk_broker_options *o = &run->home->broker->options;
    if (item->assignment_count > 0) return check_assignments(run, item);
    item->partitions_made = item->partitions == -1 ? o->num_partitions : item->partitions;
    item->replication_made = item->replication == -1 ? o->default_replication_factor : item->replication;
    if (is_groups_topic(run, item)) { /* not more replicas than there are nodes, whatever the option says */
        item->partitions_made = o->offsets_partitions;
        item->replication_made = 1;
    }
    if (item->partitions_made < 1)
        return cnk_admin_refuse(item, CHRONIK_EINVALIDPARTITIONS,
                                "Number of partitions was set to an invalid non-positive value.");
    if (item->partitions_made > CNK_TOPIC_PARTITIONS_MAX)
        return cnk_admin_refuse(item, CHRONIK_EINVALIDPARTITIONS, "A topic has at most %d partitions.",
                                CNK_TOPIC_PARTITIONS_MAX);
    if (item->replication_made < 1)
        return cnk_admin_refuse(item, CHRONIK_EINVALIDREPLICATION,
                                "Replication factor was set to an invalid non-positive value.");
    if (item->replication_made > 1)
        return cnk_admin_refuse(
            item, CHRONIK_EINVALIDREPLICATION,
            "Unable to replicate the partition %d time(s): The target replication factor of %d cannot be "
            "reached because only 1 broker(s) are registered.",
            (int)item->replication_made, (int)item->replication_made);
    return 0;
}

static int check_assignments(const cnk_admin *run, cnk_admin_item *item) {
    int32_t self = run->home->broker->options.node_id;
    if (item->partitions != -1)
        return cnk_admin_refuse(item, CHRONIK_EINVALIDREQUEST,
                                "A manual partition assignment was specified, but numPartitions was not set to -1.");
    if (item->replication != -1)
        return cnk_admin_refuse(
            item, CHRONIK_EINVALIDREQUEST,
            "A manual partition assignment was specified, but replication factor was not set to -1.");
    if (item->assignment_count > CNK_TOPIC_PARTITIONS_MAX)
        return cnk_admin_refuse(item, CHRONIK_EINVALIDPARTITIONS, "A topic has at most %d partitions.",
                                CNK_TOPIC_PARTITIONS_MAX);
    bool *seen = cnk_calloc(item->assignment_count, sizeof *seen);
    if (seen == NULL) return cnk_admin_refuse(item, CHRONIK_ENOMEM, "Out of memory.");
    int rc = 0;
    for (size_t i = 0; i < item->assignment_count && rc == 0; i++) {
        const cnk_topic_assignment *a = &item->assignments[i];
        if (a->partition < 0 || (size_t)a->partition >= item->assignment_count || seen[a->partition])
            rc = cnk_admin_refuse(item, CHRONIK_EINVALIDASSIGNMENT,
                                  "partitions should be a consecutive 0-based integer sequence");
        else if (a->node_count == 0)
            rc = cnk_admin_refuse(item, CHRONIK_EINVALIDASSIGNMENT,
                                  "The manual partition assignment includes an empty replica list.");
        else
            seen[a->partition] = true;
        for (size_t n = 0; n < a->node_count && rc == 0; n++) {
            if (a->nodes[n] != self)
                rc = cnk_admin_refuse(
                    item, CHRONIK_EINVALIDASSIGNMENT,
                    "The manual partition assignment includes broker %d, but no such broker is registered.",
                    (int)a->nodes[n]);
            else if (n > 0)
                rc = cnk_admin_refuse(item, CHRONIK_EINVALIDASSIGNMENT,
                                      "The manual partition assignment includes the broker %d more than once.",
                                      (int)a->nodes[n]);
        }
    }
    cnk_free(seen);
    item->partitions_made = (int32_t)item->assignment_count;
    item->replication_made = 1;
    return rc;
}

/* Made by the broker itself, with the options that Kafka gives it. */
static bool is_groups_topic(const cnk_admin *run, const cnk_admin_item *item) {
    return run->automatic && strcmp(item->name.p, CNK_COORD_GROUPS_TOPIC) == 0;
}

static int groups_settings(cnk_admin *run, cnk_admin_item *item) {
    static const char *const names[] = {"cleanup.policy", "compression.type", "segment.bytes"};
    const char *values[] = {"compact", "producer", NULL};
    char *bytes = cnk_arena_alloc(&run->arena, 24);
    item->settings = cnk_arena_alloc(&run->arena, 3 * sizeof *item->settings);
    if (bytes == NULL || item->settings == NULL) return CHRONIK_ENOMEM;
    snprintf(bytes, 24, "%lld", (long long)run->home->broker->options.offsets_segment_bytes);
    values[2] = bytes;
    for (size_t i = 0; i < 3; i++)
        item->settings[i] = (cnk_topic_setting){{names[i], strlen(names[i])}, {values[i], strlen(values[i])}};
    item->setting_count = 3;
    return 0;
}

static int check_settings(cnk_admin_item *item) {
    chronik_error err = CHRONIK_ERROR_INIT;
    for (size_t i = 0; i < item->setting_count; i++) {
        const cnk_topic_setting *s = &item->settings[i];
        const cnk_topic_option *option = s->name.p ? cnk_topic_option_find(s->name.p, s->name.len) : NULL;
        if (option == NULL)
            return cnk_admin_refuse(item, CHRONIK_EINVALIDCONFIG, "Unknown topic config name: %s",
                                    s->name.p ? s->name.p : "null");
        if (s->value.p == NULL)
            return cnk_admin_refuse(item, CHRONIK_EINVALIDCONFIG, "Null value not supported for topic configs: %s",
                                    option->name);
        if (cnk_topic_option_check(option, s->value.p, s->value.len, &err) != 0)
            return cnk_admin_refuse(item, CHRONIK_EINVALIDCONFIG, "%s", err.text);
    }
    return 0;
}

static int compare_configs(const void *a, const void *b) {
    return strcmp(((const cnk_meta_config *)a)->name, ((const cnk_meta_config *)b)->name);
}

/* This node holds every replica. The same option twice: the last one holds. */
static void add_topic(cnk_admin *run, cnk_admin_item *item, cnk_meta_command *command, uint64_t *next_stream) {
    cnk_broker *broker = run->home->broker;
    size_t partitions = (size_t)item->partitions_made;
    uint8_t entropy[16];
    int32_t *replicas = cnk_arena_alloc(&run->arena, partitions * sizeof *replicas);
    uint8_t *counts = cnk_arena_alloc(&run->arena, partitions);
    cnk_meta_config *configs = cnk_arena_alloc(&run->arena, (item->setting_count + 1) * sizeof *configs);
    if (replicas == NULL || counts == NULL || configs == NULL) {
        cnk_admin_refuse(item, CHRONIK_ENOMEM, "Out of memory.");
        return;
    }
    for (size_t i = 0; i < partitions; i++) {
        replicas[i] = broker->options.node_id;
        counts[i] = 1;
    }
    size_t count = 0;
    for (size_t i = 0; i < item->setting_count; i++) {
        size_t at = 0;
        while (at < count && strcmp(configs[at].name, item->settings[i].name.p) != 0) at++;
        configs[at].name = (char *)(uintptr_t)item->settings[i].name.p;
        configs[at].value = (char *)(uintptr_t)item->settings[i].value.p;
        count += at == count;
    }
    qsort(configs, count, sizeof *configs, compare_configs);
    broker->io->entropy(broker->io->entropy_self, entropy, sizeof entropy);
    cnk_uuid_make(entropy, &item->id);
    cnk_meta_topic_spec spec = {.name = item->name.p,
                                .name_len = item->name.len,
                                .id = item->id,
                                .internal = cnk_coord_topic_is_internal(item->name.p, item->name.len),
                                .partition_count = item->partitions_made,
                                .replicas = replicas,
                                .replica_counts = counts,
                                .configs = configs,
                                .config_count = count};
    cnk_meta_command_topic(command, cnk_meta_image_head(cnk_publisher_meta(broker->publisher)), next_stream, &spec);
}

static void delete_at_first(cnk_admin *run) {
    cnk_publisher *pub = run->home->broker->publisher;
    cnk_meta_command command;
    size_t count = 0;
    int rc = 0;
    cnk_meta_command_init(&command);
    for (size_t i = 0; i < run->item_count; i++) find_topic(&run->items[i]);
    for (size_t i = 0; i < run->item_count; i++) {
        const cnk_meta_topic *topic = run->items[i].topic;
        if (run->items[i].error != 0) continue;
        cnk_meta_command_delete(&command, &topic->id, topic_epoch(topic));
        count++;
    }
    if (count > 0) rc = cnk_meta_propose(cnk_publisher_meta(pub), cnk_publisher_replica(pub), &command, &run->version);
    cnk_meta_command_free(&command);
    cnk_admin_home_everywhere(run, rc);
}

void cnk_admin_home_everywhere(cnk_admin *run, int rc) {
    for (size_t i = 0; i < run->item_count && rc != 0; i++)
        if (run->items[i].error == 0)
            run->items[i].error = rc == CHRONIK_ENOSPC || rc == CHRONIK_EFENCED ? CHRONIK_ESTORAGE : rc;
    if (run->version == 0 || rc != 0) {
        cnk_admin_home_committed(run);
        return;
    }
    run->wait.run = change_committed;
    cnk_publisher_when_committed(run->home->broker->publisher, &run->wait, run->version);
}

static void find_topic(cnk_admin_item *item) {
    cnk_broker *broker = item->run->home->broker;
    const cnk_meta_image *head = cnk_meta_image_head(cnk_publisher_meta(broker->publisher));
    const cnk_meta_topic *topic = item->name.p ? cnk_meta_topic_by_name(head, item->name.p, item->name.len)
                                               : cnk_meta_topic_by_id(head, &item->id);
    if (topic == NULL) {
        item->error = item->name.p ? CHRONIK_EUNKNOWNTOPIC : CHRONIK_EUNKNOWNTOPICID;
        return;
    }
    if (!broker->options.delete_topics) {
        item->error = CHRONIK_EINVALIDREQUEST;
        item->constant_text = "Topic deletion is disabled.";
        return;
    }
    for (cnk_admin_item *other = item->run->items; other < item; other++)
        if (other->topic == topic) {
            item->error = other->error = CHRONIK_EINVALIDREQUEST;
            other->constant_text = item->constant_text = "Duplicate topic.";
        }
    item->topic = topic;
    item->id = topic->id;
    memcpy(item->name_found, topic->name, topic->name_len + 1u);
}

/* The greatest leader epoch that the topic can have had: what is made later starts above it (R7). */
static uint32_t topic_epoch(const cnk_meta_topic *topic) {
    int32_t greatest = (int32_t)topic->epoch_floor;
    for (int32_t i = 0; i < topic->partition_total; i++) {
        int32_t epoch = atomic_load_explicit(&topic->partitions[i].leader->epoch, memory_order_acquire);
        greatest = epoch > greatest ? epoch : greatest;
    }
    return (uint32_t)greatest;
}

static void change_committed(cnk_wait *wait, int code) {
    cnk_admin *run = CNK_CONTAINER(wait, cnk_admin, wait);
    if (code != 0) {
        change_everywhere(wait, code);
        return;
    }
    wait->run = change_everywhere;
    cnk_publisher_when_everywhere(run->home->broker->publisher, wait, run->version);
}

static void change_everywhere(cnk_wait *wait, int code) {
    cnk_admin *run = CNK_CONTAINER(wait, cnk_admin, wait);
    for (size_t i = 0; i < run->item_count && code != 0; i++)
        if (run->items[i].error == 0) run->items[i].error = code;
    cnk_admin_home(run);
}

int cnk_admin_refuse(cnk_admin_item *item, int code, const char *format, ...) {
    va_list args;
    item->error = code;
    va_start(args, format);
    vsnprintf(item->text, sizeof item->text, format, args);
    va_end(args);
    return code;
}
