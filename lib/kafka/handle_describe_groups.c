/* DescribeGroups: groups and their members. A group that is not there is "Dead"; from version 6 on that is an error, too. */
#include <stdio.h>

#include "kafka/internal.h"

typedef cnk_describe_groups_response_described_group group_out;

typedef struct describe_state {
    cnk_kafka_groups groups;
    cnk_describe_groups_request in;
} describe_state;

static int fill_members(cnk_kafka_request *r, const cnk_coord_call *call, group_out *out) {
    out->members.items = cnk_kafka_request_alloc(r, call->member_count, sizeof *out->members.items);
    if (!out->members.items) return CHRONIK_ENOMEM;
    out->members.count = (int32_t)call->member_count;
    for (size_t i = 0; i < call->member_count; i++) {
        const cnk_coord_member *m = &call->members[i];
        out->members.items[i] = (cnk_describe_groups_response_described_group_member){
            cnk_kafka_string_from(m->id),          cnk_kafka_string_from(m->instance_id),
            cnk_kafka_string_from(m->client_id),   cnk_kafka_string_from(m->client_host),
            cnk_kafka_bytes_from(m->metadata),     cnk_kafka_bytes_from(m->assignment)};
    }
    return 0;
}

static int not_found(cnk_kafka_request *r, cnk_text group, cnk_kafka_string *ret_text) {
    const size_t room = group.len + sizeof "Group  not found.";
    char *text = cnk_kafka_request_alloc(r, room, 1);
    if (!text) return CHRONIK_ENOMEM;
    snprintf(text, room, "Group %.*s not found.", (int)group.len, group.p);
    *ret_text = cnk_kafka_string_of(text);
    return 0;
}

static int fill(cnk_kafka_request *r, const describe_state *s, const cnk_coord_call *call, group_out *out) {
    *out = (group_out){.error_message = CNK_KAFKA_STRING_NULL,
                       .group_id = cnk_kafka_string_from(call->group),
                       .group_state = CNK_KAFKA_STRING(""),
                       .protocol_type = CNK_KAFKA_STRING(""),
                       .protocol_data = CNK_KAFKA_STRING(""),
                       .authorized_operations = CNK_KAFKA_OPERATIONS_UNASKED};
    out->error_code = cnk_kafka_group_error(call->error);
    if (call->error == CHRONIK_EGROUPNOTFOUND) {
        out->group_state = CNK_KAFKA_STRING("Dead");
        if (r->version < 6) out->error_code = 0;
        else if (not_found(r, call->group, &out->error_message)) return CHRONIK_ENOMEM;
    }
    if (out->error_code == 0 && s->in.include_authorized_operations)
        out->authorized_operations = CNK_KAFKA_GROUP_OPERATIONS;
    if (call->error) return 0;
    out->group_state = cnk_kafka_string_of(cnk_coord_state_names[call->ret_state]);
    out->protocol_type = cnk_kafka_string_from(call->protocol_type);
    out->protocol_data = cnk_kafka_string_from(call->protocol_name);
    return fill_members(r, call, out);
}

static int answer(cnk_kafka_request *r) {
    describe_state *s = r->op;
    cnk_describe_groups_response out;
    cnk_kafka_defaults(cnk_describe_groups_response_message.root, &out);
    out.groups.items = cnk_kafka_request_alloc(r, s->groups.count, sizeof *out.groups.items);
    if (!out.groups.items) return CHRONIK_ENOMEM;
    out.groups.count = (int32_t)s->groups.count;
    for (size_t i = 0; i < s->groups.count; i++) {
        const int code = fill(r, s, &s->groups.calls[i].call, &out.groups.items[i]);
        if (code) return code;
    }
    return cnk_kafka_answer(r, &out);
}

int cnk_kafka_handle_describe_groups(cnk_kafka_request *r) {
    describe_state *s = cnk_kafka_request_alloc(r, 1, sizeof *s);
    if (!s) return CHRONIK_ENOMEM;
    int code = cnk_kafka_request_decode(r, &s->in);
    const size_t count = code == 0 && s->in.groups.count > 0 ? (size_t)s->in.groups.count : 0;
    if (count > CNK_KAFKA_GROUPS_MAX) return CHRONIK_ETOOLARGE;
    if (code == 0) code = cnk_kafka_groups_alloc(r, &s->groups, count, answer);
    if (code) return code;
    for (size_t i = 0; i < count; i++) {
        s->groups.calls[i].call.kind = CNK_COORD_DESCRIBE;
        s->groups.calls[i].call.group = cnk_kafka_text_of(s->in.groups.items[i]);
    }
    return cnk_kafka_groups_start(r, &s->groups);
}
