/* Metadata: brokers, topics, and who leads (K10). Topics that are asked for by name are created where the client and
 * the broker allow it; the answer then waits until every shard knows them. */
#include <string.h>

#include "base/map.h"
#include "kafka/internal.h"

typedef cnk_metadata_response_metadata_response_topic topic_out;
typedef cnk_metadata_response_metadata_response_partition part_out;

/* One topic that was asked for: by name, or by id alone. */
typedef struct asked {
    cnk_text name; /* p NULL: by id */
    cnk_uuid id;
    int error;     /* of its creation */
} asked;

typedef struct metadata_state {
    cnk_metadata_request in;
    bool all;
    asked *topics;
    size_t topic_count;
    cnk_create_topics create;
    asked **creating; /* of create.topics, in order */
} metadata_state;

/* ---- the answer ------------------------------------------------------------------------------------------------- */

static int fill_replicas(cnk_kafka_request *r, const cnk_meta_partition *p, part_out *out) {
    int32_t *nodes = cnk_kafka_request_alloc(r, p->replica_count, sizeof *nodes);
    if (!nodes) return CHRONIK_ENOMEM;
    memcpy(nodes, p->replicas, p->replica_count * sizeof *nodes);
    out->replica_nodes.items = out->isr_nodes.items = nodes;
    out->replica_nodes.count = out->isr_nodes.count = p->replica_count;
    return 0;
}

static int fill_topic(cnk_kafka_request *r, const metadata_state *s, const cnk_meta_topic *t, topic_out *out) {
    out->name = (cnk_kafka_string){t->name, t->name_len};
    out->topic_id = t->id;
    out->is_internal = t->internal;
    if (s->in.include_topic_authorized_operations) out->topic_authorized_operations = CNK_KAFKA_TOPIC_OPERATIONS;
    out->partitions.items = cnk_kafka_request_alloc(r, (size_t)t->partition_count, sizeof(part_out));
    if (!out->partitions.items) return CHRONIK_ENOMEM;
    out->partitions.count = t->partition_count;
    for (int32_t i = 0; i < t->partition_count; i++) {
        const cnk_meta_partition *p = &t->partitions[i];
        part_out *part = &out->partitions.items[i];
        part->partition_index = i;
        part->leader_id = atomic_load(&p->leader->node);
        part->leader_epoch = atomic_load(&p->leader->epoch);
        if (part->leader_id < 0) part->error_code = CNK_KAFKA_LEADER_NOT_AVAILABLE;
        const int code = fill_replicas(r, p, part);
        if (code) return code;
    }
    return 0;
}

static void fill_unknown(const asked *a, topic_out *out) {
    out->name = cnk_kafka_string_from(a->name);
    if (!a->name.p) {
        out->error_code = CNK_KAFKA_UNKNOWN_TOPIC_ID;
        out->topic_id = a->id;
        return;
    }
    if (cnk_topic_name_check(a->name.p, a->name.len, NULL)) out->error_code = CNK_KAFKA_INVALID_TOPIC_EXCEPTION;
    else if (a->error && a->error != CHRONIK_ETIMEDOUT) out->error_code = cnk_kafka_error(a->error);
    else out->error_code = CNK_KAFKA_UNKNOWN_TOPIC_OR_PARTITION;
}

static const cnk_meta_topic *find(const cnk_meta_image *image, const asked *a) {
    return a->name.p ? cnk_meta_topic_by_name(image, a->name.p, a->name.len) : cnk_meta_topic_by_id(image, &a->id);
}

static int fill_topics(cnk_kafka_request *r, const metadata_state *s, const cnk_meta_image *image,
                       cnk_metadata_response *out) {
    const size_t max = s->all ? image->topic_count : s->topic_count;
    out->topics.items = cnk_kafka_request_alloc(r, max, sizeof(topic_out));
    if (!out->topics.items) return CHRONIK_ENOMEM;
    for (size_t i = 0; i < max; i++) {
        const cnk_meta_topic *t = s->all ? image->by_name[i] : find(image, &s->topics[i]);
        if (s->all && !t->online) continue;
        topic_out *topic = &out->topics.items[out->topics.count++];
        topic->topic_authorized_operations = CNK_KAFKA_OPERATIONS_UNASKED;
        if (!t) {
            fill_unknown(&s->topics[i], topic);
            continue;
        }
        const int code = fill_topic(r, s, t, topic);
        if (code) return code;
    }
    return 0;
}

static int answer_topics(cnk_kafka_request *r, const metadata_state *s, const cnk_meta_image *image) {
    char cluster[CNK_UUID_TEXT_SIZE];
    cnk_metadata_response out;
    cnk_metadata_response_metadata_response_broker self = {.node_id = cnk_kafka_node_id(r),
                                                           .rack = cnk_kafka_string_of(cnk_kafka_rack(r))};
    cnk_kafka_defaults(cnk_metadata_response_message.root, &out);
    cnk_kafka_advertised(r, &self.host, &self.port);
    cnk_uuid_format(&image->cluster_id, cluster);
    out.brokers.items = &self;
    out.brokers.count = 1;
    out.cluster_id = cnk_kafka_string_of(cluster);
    out.controller_id = self.node_id;
    if (s->in.include_cluster_authorized_operations) out.cluster_authorized_operations = CNK_KAFKA_CLUSTER_OPERATIONS;
    const int code = fill_topics(r, s, image, &out);
    return code ? code : cnk_kafka_answer(r, &out);
}

static int answer(cnk_kafka_request *r, const metadata_state *s) {
    cnk_meta_image *image = cnk_meta_image_ref(cnk_shard_image(cnk_kafka_request_shard(r)));
    const int code = answer_topics(r, s, image);
    cnk_meta_image_unref(image);
    return code;
}

/* The request as a whole is refused: each topic, and from version 13 on the answer, says why. */
static int refuse(cnk_kafka_request *r, const metadata_state *s, int16_t error) {
    cnk_metadata_response out;
    cnk_kafka_defaults(cnk_metadata_response_message.root, &out);
    out.topics.count = s->in.topics.count < 0 ? 0 : s->in.topics.count;
    out.topics.items = cnk_kafka_request_alloc(r, (size_t)out.topics.count, sizeof(topic_out));
    if (!out.topics.items) return CHRONIK_ENOMEM;
    for (int32_t i = 0; i < out.topics.count; i++) {
        const cnk_metadata_request_metadata_request_topic *t = &s->in.topics.items[i];
        out.topics.items[i].error_code = error;
        out.topics.items[i].name = t->name.len < 0 ? CNK_KAFKA_STRING("") : t->name;
        out.topics.items[i].topic_id = t->topic_id;
        out.topics.items[i].topic_authorized_operations = CNK_KAFKA_OPERATIONS_UNASKED;
    }
    out.error_code = error;
    const int code = cnk_kafka_answer(r, &out);
    return code ? code : CNK_DONE;
}

/* ---- creation --------------------------------------------------------------------------------------------------- */

static void created(cnk_create_topics *op) {
    cnk_kafka_request *r = op->arg;
    metadata_state *s = r->op;
    for (size_t i = 0; i < op->topic_count; i++) s->creating[i]->error = op->topics[i].error;
    cnk_kafka_request_finish(r, answer(r, s));
}

static void cancel(cnk_kafka_request *r) {
    metadata_state *s = r->op;
    cnk_broker_create_topics_cancel(&s->create);
}

/* Topics by name that do not exist and may: CNK_PENDING where some are being created. */
static int create_missing(cnk_kafka_request *r, metadata_state *s) {
    cnk_shard *shard = cnk_kafka_request_shard(r);
    const cnk_meta_image *image = cnk_shard_image(shard);
    cnk_create_topics *op = &s->create;
    if (!s->in.allow_auto_topic_creation || !cnk_broker_settings(cnk_shard_broker(shard))->auto_create_topics)
        return CNK_DONE;
    for (size_t i = 0; i < s->topic_count; i++) {
        asked *a = &s->topics[i];
        if (!a->name.p || find(image, a) || cnk_topic_name_check(a->name.p, a->name.len, NULL)) continue;
        if (!op->topics) {
            const size_t max = s->topic_count - i < CNK_CREATE_TOPICS_MAX ? s->topic_count - i : CNK_CREATE_TOPICS_MAX;
            op->topics = cnk_kafka_request_alloc(r, max, sizeof *op->topics);
            s->creating = cnk_kafka_request_alloc(r, max, sizeof(asked *));
            if (!op->topics || !s->creating) return CHRONIK_ENOMEM;
        }
        if (op->topic_count == CNK_CREATE_TOPICS_MAX) break; /* the rest is unknown; the client asks again */
        s->creating[op->topic_count] = a;
        op->topics[op->topic_count++] = (cnk_create_topic){.name = a->name, .partitions = -1, .replication = -1};
    }
    if (op->topic_count == 0) return CNK_DONE;
    op->context = &r->context;
    op->timeout_ms = CNK_KAFKA_AUTO_CREATE_MS;
    op->automatic = true;
    op->done = created;
    op->arg = r;
    r->cancel = cancel;
    const int code = cnk_broker_create_topics(shard, op);
    if (code == CNK_PENDING) return code;
    for (size_t i = 0; i < op->topic_count; i++) s->creating[i]->error = code < 0 ? code : op->topics[i].error;
    return CNK_DONE;
}

/* ---- the request ------------------------------------------------------------------------------------------------ */

/* Topic ids may be asked for from version 12 on; a name may be null only there. */
static bool is_legal(const cnk_kafka_request *r, const metadata_state *s) {
    if (r->version >= 12) return true;
    for (int32_t i = 0; i < s->in.topics.count; i++)
        if (s->in.topics.items[i].name.len < 0 || !cnk_uuid_is_zero(&s->in.topics.items[i].topic_id)) return false;
    return true;
}

static bool has_ids(const metadata_state *s) {
    for (int32_t i = 0; i < s->in.topics.count; i++)
        if (!cnk_uuid_is_zero(&s->in.topics.items[i].topic_id)) return true;
    return false;
}

static bool has_null_names(const metadata_state *s) {
    for (int32_t i = 0; i < s->in.topics.count; i++)
        if (s->in.topics.items[i].name.len < 0) return true;
    return false;
}

/* Each name or id once. Where there is an id, only ids count (KafkaApis.handleTopicMetadataRequest). */
static int collect(cnk_kafka_request *r, metadata_state *s) {
    const int32_t count = s->in.topics.count;
    cnk_map seen = {0};
    const bool by_id = has_ids(s);
    int code = 0;
    s->topics = cnk_kafka_request_alloc(r, (size_t)count, sizeof *s->topics);
    if (!s->topics) return CHRONIK_ENOMEM;
    for (int32_t i = 0; i < count && code == 0; i++) {
        const cnk_metadata_request_metadata_request_topic *t = &s->in.topics.items[i];
        asked *a = &s->topics[s->topic_count];
        const void *key = by_id ? (const void *)t->topic_id.bytes : (const void *)(t->name.data ? t->name.data : "");
        const size_t len = by_id ? sizeof t->topic_id : (size_t)t->name.len;
        if ((by_id && cnk_uuid_is_zero(&t->topic_id)) || cnk_map_get_bytes(&seen, key, len)) continue;
        *a = (asked){.name = by_id ? (cnk_text){NULL, 0} : cnk_kafka_text_of(t->name), .id = t->topic_id};
        code = cnk_map_put_bytes(&seen, key, len, a);
        s->topic_count++;
    }
    cnk_map_free(&seen);
    return code;
}

int cnk_kafka_handle_metadata(cnk_kafka_request *r) {
    metadata_state *s = cnk_kafka_request_alloc(r, 1, sizeof *s);
    if (!s) return CHRONIK_ENOMEM;
    r->op = s;
    int code = cnk_kafka_request_decode(r, &s->in);
    if (code) return code;
    if (s->in.topics.count > CNK_KAFKA_METADATA_TOPICS_MAX) return CHRONIK_ETOOLARGE;
    if (!is_legal(r, s)) return refuse(r, s, CNK_KAFKA_INVALID_REQUEST);
    if (!has_ids(s) && has_null_names(s)) return refuse(r, s, CNK_KAFKA_UNKNOWN_SERVER_ERROR); /* as Kafka */
    s->all = s->in.topics.count < 0 || (r->version == 0 && s->in.topics.count == 0);
    if (!s->all) code = collect(r, s);
    if (code) return code;
    if (!s->all && (code = create_missing(r, s)) != CNK_DONE) return code;
    code = answer(r, s);
    return code ? code : CNK_DONE;
}
