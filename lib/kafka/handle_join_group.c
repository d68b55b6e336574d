/* JoinGroup: a member joins, and is answered when the rebalance that it joins has ended: with the generation, and the leader
 * with all members. From version 4 on a member without an id is given one first (KIP-394). */
#include <stdio.h>

#include "kafka/internal.h"

typedef struct join_state {
    cnk_kafka_groups groups;
    cnk_join_group_request in;
    char host[72];
} join_state;

static int answer(cnk_kafka_request *r) {
    join_state *s = r->op;
    const cnk_coord_call *call = &s->groups.calls[0].call;
    cnk_join_group_response out;
    cnk_kafka_defaults(cnk_join_group_response_message.root, &out);
    out.error_code = cnk_kafka_group_error(call->error);
    out.member_id = cnk_kafka_string_from(call->ret_member_id.p ? call->ret_member_id : call->member_id);
    out.generation_id = -1;
    out.protocol_type = CNK_KAFKA_STRING_NULL;
    out.protocol_name = r->version >= 7 ? CNK_KAFKA_STRING_NULL : CNK_KAFKA_STRING("");
    if (out.error_code == 0) {
        out.generation_id = call->ret_generation;
        out.protocol_type = cnk_kafka_string_from(call->protocol_type);
        out.protocol_name = cnk_kafka_string_from(call->protocol_name);
        out.leader = cnk_kafka_string_from(call->ret_leader);
        out.skip_assignment = call->ret_skip_assignment;
        out.members.items = cnk_kafka_request_alloc(r, call->member_count, sizeof *out.members.items);
        if (!out.members.items) return CHRONIK_ENOMEM;
        out.members.count = (int32_t)call->member_count;
    }
    for (int32_t i = 0; i < out.members.count; i++) {
        const cnk_coord_member *m = &call->members[i];
        out.members.items[i] = (cnk_join_group_response_join_group_response_member){
            cnk_kafka_string_from(m->id), cnk_kafka_string_from(m->instance_id), cnk_kafka_bytes_from(m->metadata)};
    }
    return cnk_kafka_answer(r, &out);
}

static int protocols(cnk_kafka_request *r, join_state *s, cnk_coord_call *call) {
    const int32_t count = s->in.protocols.count > 0 ? s->in.protocols.count : 0;
    if (count > CNK_KAFKA_PROTOCOLS_MAX) return CHRONIK_ETOOLARGE;
    cnk_coord_protocol *list = cnk_kafka_request_alloc(r, (size_t)count, sizeof *list);
    if (!list) return CHRONIK_ENOMEM;
    for (int32_t i = 0; i < count; i++)
        list[i] = (cnk_coord_protocol){cnk_kafka_text_of(s->in.protocols.items[i].name),
                                       cnk_kafka_text_of_bytes(s->in.protocols.items[i].metadata)};
    call->protocols = list;
    call->protocol_count = (size_t)count;
    return 0;
}

int cnk_kafka_handle_join_group(cnk_kafka_request *r) {
    join_state *s = cnk_kafka_request_alloc(r, 1, sizeof *s);
    if (!s) return CHRONIK_ENOMEM;
    int code = cnk_kafka_request_decode(r, &s->in);
    if (code == 0) code = cnk_kafka_groups_alloc(r, &s->groups, 1, answer);
    if (code) return code;
    cnk_coord_call *call = &s->groups.calls[0].call;
    snprintf(s->host, sizeof s->host, "/%s", r->context.peer ? r->context.peer->host : "");
    call->kind = CNK_COORD_JOIN;
    call->group = cnk_kafka_text_of(s->in.group_id);
    call->member_id = cnk_kafka_text_of(s->in.member_id);
    call->instance_id = cnk_kafka_text_of(s->in.group_instance_id);
    call->client_id = r->context.client_id.p ? r->context.client_id : (cnk_text){"", 0};
    call->client_host = (cnk_text){s->host, __builtin_strlen(s->host)};
    call->session_timeout_ms = s->in.session_timeout_ms;
    call->rebalance_timeout_ms = r->version == 0 ? s->in.session_timeout_ms : s->in.rebalance_timeout_ms;
    call->protocol_type = cnk_kafka_text_of(s->in.protocol_type);
    code = protocols(r, s, call);
    return code ? code : cnk_kafka_groups_start(r, &s->groups);
}
