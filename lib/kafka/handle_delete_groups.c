/* DeleteGroups: empty groups are deleted, with their offsets. A group that is named twice is answered once. */
#include "base/map.h"
#include "kafka/internal.h"

static int answer(cnk_kafka_request *r) {
    cnk_kafka_groups *g = r->op;
    cnk_delete_groups_response out;
    cnk_kafka_defaults(cnk_delete_groups_response_message.root, &out);
    out.results.items = cnk_kafka_request_alloc(r, g->count, sizeof *out.results.items);
    if (!out.results.items) return CHRONIK_ENOMEM;
    out.results.count = (int32_t)g->count;
    for (size_t i = 0; i < g->count; i++)
        out.results.items[i] = (cnk_delete_groups_response_deletable_group_result){
            cnk_kafka_string_from(g->calls[i].call.group), cnk_kafka_group_error(g->calls[i].call.error)};
    return cnk_kafka_answer(r, &out);
}

int cnk_kafka_handle_delete_groups(cnk_kafka_request *r) {
    cnk_delete_groups_request in;
    cnk_map seen = {0};
    cnk_kafka_groups *g = cnk_kafka_request_alloc(r, 1, sizeof *g);
    if (!g) return CHRONIK_ENOMEM;
    int code = cnk_kafka_request_decode(r, &in);
    const size_t count = code == 0 && in.groups_names.count > 0 ? (size_t)in.groups_names.count : 0;
    if (count > CNK_KAFKA_GROUPS_MAX) return CHRONIK_ETOOLARGE;
    if (code == 0) code = cnk_kafka_groups_alloc(r, g, count, answer);
    g->count = 0;
    for (size_t i = 0; i < count && code == 0; i++) {
        const cnk_text name = cnk_kafka_text_of(in.groups_names.items[i]);
        if (cnk_map_get_bytes(&seen, name.p, name.len)) continue;
        cnk_coord_call *call = &g->calls[g->count++].call;
        call->kind = CNK_COORD_DELETE;
        call->group = name;
        code = cnk_map_put_bytes(&seen, name.p, name.len, call);
    }
    cnk_map_free(&seen);
    return code ? code : cnk_kafka_groups_start(r, g);
}
