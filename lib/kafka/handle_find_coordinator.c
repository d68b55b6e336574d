/* FindCoordinator: which broker coordinates a group or a transaction (KIP-699: several at once). Today this one, for every
 * group; the topic that groups live in is made with the first question. There are no transactions and no share groups yet:
 * for transactional ids the answer is what InitProducerId says of them. librdkafka takes the presence of this API for the
 * sign that a broker knows lz4. */
#include "kafka/internal.h"

enum { KEY_GROUP = 0, KEY_TRANSACTION = 1, KEY_SHARE = 2 };

typedef struct find_state {
    cnk_find_coordinator_request in;
    cnk_create_topics create;
    cnk_create_topic topic;
} find_state;

static int16_t refusal(const find_state *s, cnk_kafka_string *ret_text) {
    *ret_text = CNK_KAFKA_STRING_NULL;
    switch (s->in.key_type) {
    case KEY_GROUP: return s->topic.error ? CNK_KAFKA_COORDINATOR_NOT_AVAILABLE : CNK_KAFKA_NONE;
    case KEY_TRANSACTION:
        *ret_text = CNK_KAFKA_STRING("There are no transactions yet");
        return CNK_KAFKA_TRANSACTIONAL_ID_AUTHORIZATION_FAILED;
    case KEY_SHARE: *ret_text = CNK_KAFKA_STRING("There are no share groups yet"); return CNK_KAFKA_INVALID_REQUEST;
    default: return CNK_KAFKA_INVALID_REQUEST;
    }
}

static int answer(cnk_kafka_request *r, const find_state *s) {
    cnk_find_coordinator_response out;
    cnk_find_coordinator_response_coordinator one = {.node_id = -1, .host = CNK_KAFKA_STRING(""), .port = -1};
    cnk_kafka_defaults(cnk_find_coordinator_response_message.root, &out);
    one.error_code = refusal(s, &one.error_message);
    if (one.error_code == 0) {
        one.node_id = cnk_kafka_node_id(r);
        cnk_kafka_advertised(r, &one.host, &one.port);
        /* The oldest answer with a text has "NONE" in it where nothing is wrong. */
        one.error_message = r->version >= 1 && r->version < 4 ? CNK_KAFKA_STRING("NONE") : CNK_KAFKA_STRING("");
    }
    if (r->version < 4) {
        out.error_code = one.error_code;
        out.error_message = one.error_message;
        out.node_id = one.node_id;
        out.host = one.host;
        out.port = one.port;
    } else if (s->in.coordinator_keys.count > 0) {
        const size_t count = (size_t)s->in.coordinator_keys.count;
        out.coordinators.items = cnk_kafka_request_alloc(r, count, sizeof one);
        if (!out.coordinators.items) return CHRONIK_ENOMEM;
        out.coordinators.count = s->in.coordinator_keys.count;
        for (size_t i = 0; i < count; i++) {
            out.coordinators.items[i] = one;
            out.coordinators.items[i].key = s->in.coordinator_keys.items[i];
        }
    }
    return cnk_kafka_answer(r, &out);
}

static void created(cnk_create_topics *op) {
    cnk_kafka_request *r = op->arg;
    cnk_kafka_request_finish(r, answer(r, r->op));
}

static void cancel(cnk_kafka_request *r) {
    find_state *s = r->op;
    cnk_broker_create_topics_cancel(&s->create);
}

int cnk_kafka_handle_find_coordinator(cnk_kafka_request *r) {
    cnk_shard *shard = cnk_kafka_request_shard(r);
    find_state *s = cnk_kafka_request_alloc(r, 1, sizeof *s);
    if (!s) return CHRONIK_ENOMEM;
    r->op = s;
    int code = cnk_kafka_request_decode(r, &s->in);
    if (code) return code;
    if (s->in.coordinator_keys.count > CNK_KAFKA_COORDINATOR_KEYS_MAX) return CHRONIK_ETOOLARGE;
    if (s->in.key_type == KEY_GROUP && cnk_broker_group_partitions(shard) == 0) {
        s->topic.name = (cnk_text){CNK_COORD_GROUPS_TOPIC, sizeof CNK_COORD_GROUPS_TOPIC - 1};
        s->topic.partitions = s->topic.replication = -1;
        s->create.context = &r->context;
        s->create.timeout_ms = CNK_KAFKA_AUTO_CREATE_MS;
        s->create.automatic = s->create.coordinator = true;
        s->create.topics = &s->topic;
        s->create.topic_count = 1;
        s->create.done = created;
        s->create.arg = r;
        r->cancel = cancel;
        code = cnk_broker_create_topics(shard, &s->create);
        if (code == CNK_PENDING) return code;
        if (code < 0) s->topic.error = code;
    }
    code = answer(r, s);
    return code ? code : CNK_DONE;
}
