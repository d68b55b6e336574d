/* Heartbeat: a member is alive, and learns whether it has to join again. */
#include "kafka/internal.h"

static int answer(cnk_kafka_request *r) {
    cnk_kafka_groups *g = r->op;
    cnk_heartbeat_response out;
    cnk_kafka_defaults(cnk_heartbeat_response_message.root, &out);
    out.error_code = cnk_kafka_group_error(g->calls[0].call.error);
    return cnk_kafka_answer(r, &out);
}

int cnk_kafka_handle_heartbeat(cnk_kafka_request *r) {
    cnk_heartbeat_request in;
    cnk_kafka_groups *g = cnk_kafka_request_alloc(r, 1, sizeof *g);
    if (!g) return CHRONIK_ENOMEM;
    int code = cnk_kafka_request_decode(r, &in);
    if (code == 0) code = cnk_kafka_groups_alloc(r, g, 1, answer);
    if (code) return code;
    cnk_coord_call *call = &g->calls[0].call;
    call->kind = CNK_COORD_HEARTBEAT;
    call->group = cnk_kafka_text_of(in.group_id);
    call->member_id = cnk_kafka_text_of(in.member_id);
    call->instance_id = cnk_kafka_text_of(in.group_instance_id);
    call->generation = in.generation_id;
    return cnk_kafka_groups_start(r, g);
}
