/* SyncGroup: the leader says what each member gets, and each member learns what it has got. */
#include "kafka/internal.h"

typedef struct sync_state {
    cnk_kafka_groups groups;
    cnk_sync_group_request in;
} sync_state;

static int answer(cnk_kafka_request *r) {
    sync_state *s = r->op;
    const cnk_coord_call *call = &s->groups.calls[0].call;
    cnk_sync_group_response out;
    cnk_kafka_defaults(cnk_sync_group_response_message.root, &out);
    out.error_code = cnk_kafka_group_error(call->error);
    if (out.error_code == 0) {
        out.protocol_type = cnk_kafka_string_from(call->protocol_type);
        out.protocol_name = cnk_kafka_string_from(call->protocol_name);
        out.assignment = cnk_kafka_bytes_from(call->ret_assignment);
    }
    return cnk_kafka_answer(r, &out);
}

int cnk_kafka_handle_sync_group(cnk_kafka_request *r) {
    sync_state *s = cnk_kafka_request_alloc(r, 1, sizeof *s);
    if (!s) return CHRONIK_ENOMEM;
    int code = cnk_kafka_request_decode(r, &s->in);
    if (code == 0) code = cnk_kafka_groups_alloc(r, &s->groups, 1, answer);
    if (code) return code;
    cnk_coord_call *call = &s->groups.calls[0].call;
    const size_t count = s->in.assignments.count > 0 ? (size_t)s->in.assignments.count : 0;
    if (count > CNK_KAFKA_MEMBERS_MAX) return CHRONIK_ETOOLARGE;
    call->members = cnk_kafka_request_alloc(r, count, sizeof *call->members);
    if (!call->members) return CHRONIK_ENOMEM;
    call->member_count = count;
    for (size_t i = 0; i < count; i++) {
        call->members[i].id = cnk_kafka_text_of(s->in.assignments.items[i].member_id);
        call->members[i].assignment = cnk_kafka_text_of_bytes(s->in.assignments.items[i].assignment);
    }
    call->kind = CNK_COORD_SYNC;
    call->group = cnk_kafka_text_of(s->in.group_id);
    call->member_id = cnk_kafka_text_of(s->in.member_id);
    call->instance_id = cnk_kafka_text_of(s->in.group_instance_id);
    call->generation = s->in.generation_id;
    call->protocol_type = cnk_kafka_text_of(s->in.protocol_type);
    call->protocol_name = cnk_kafka_text_of(s->in.protocol_name);
    if (r->version >= 5 && (!call->protocol_type.p || !call->protocol_name.p)) /* KIP-559 */
        call->error = CHRONIK_EGROUPPROTOCOL;
    return cnk_kafka_groups_start(r, &s->groups);
}
