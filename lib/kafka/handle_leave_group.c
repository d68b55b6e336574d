/* LeaveGroup: a member leaves; from version 3 on several at once, also static ones by an administrator (KIP-345). */
#include "kafka/internal.h"

typedef struct leave_state {
    cnk_kafka_groups groups;
    cnk_leave_group_request in;
} leave_state;

static int answer(cnk_kafka_request *r) {
    leave_state *s = r->op;
    const cnk_coord_call *call = &s->groups.calls[0].call;
    cnk_leave_group_response out;
    cnk_kafka_defaults(cnk_leave_group_response_message.root, &out);
    out.error_code = cnk_kafka_group_error(call->error);
    if (r->version < 3 && out.error_code == 0) out.error_code = cnk_kafka_group_error(call->members[0].error);
    if (r->version >= 3 && out.error_code == 0) {
        out.members.items = cnk_kafka_request_alloc(r, call->member_count, sizeof *out.members.items);
        if (!out.members.items) return CHRONIK_ENOMEM;
        out.members.count = (int32_t)call->member_count;
    }
    for (int32_t i = 0; i < out.members.count; i++) {
        const cnk_coord_member *m = &call->members[i];
        out.members.items[i] = (cnk_leave_group_response_member_response){
            cnk_kafka_string_from(m->id), cnk_kafka_string_from(m->instance_id), cnk_kafka_group_error(m->error)};
    }
    return cnk_kafka_answer(r, &out);
}

int cnk_kafka_handle_leave_group(cnk_kafka_request *r) {
    leave_state *s = cnk_kafka_request_alloc(r, 1, sizeof *s);
    if (!s) return CHRONIK_ENOMEM;
    int code = cnk_kafka_request_decode(r, &s->in);
    if (code == 0) code = cnk_kafka_groups_alloc(r, &s->groups, 1, answer);
    if (code) return code;
    cnk_coord_call *call = &s->groups.calls[0].call;
    const size_t count = r->version < 3 ? 1 : s->in.members.count > 0 ? (size_t)s->in.members.count : 0;
    if (count > CNK_KAFKA_MEMBERS_MAX) return CHRONIK_ETOOLARGE;
    call->members = cnk_kafka_request_alloc(r, count, sizeof *call->members);
    if (!call->members) return CHRONIK_ENOMEM;
    call->member_count = count;
    if (r->version < 3) call->members[0].id = cnk_kafka_text_of(s->in.member_id);
    for (size_t i = 0; i < count && r->version >= 3; i++) {
        call->members[i].id = cnk_kafka_text_of(s->in.members.items[i].member_id);
        call->members[i].instance_id = cnk_kafka_text_of(s->in.members.items[i].group_instance_id);
    }
    call->kind = CNK_COORD_LEAVE;
    call->group = cnk_kafka_text_of(s->in.group_id);
    return cnk_kafka_groups_start(r, &s->groups);
}
