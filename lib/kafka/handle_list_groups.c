/* ListGroups: which groups there are, of all partitions of their topic; filtered by state (version 4) and type (version 5).
 * Today all are classic. A partition that cannot answer makes the whole say so. */
#include <strings.h>

#include "kafka/internal.h"

typedef struct list_state {
    cnk_kafka_groups groups;
    cnk_list_groups_request in;
} list_state;

static bool matches(cnk_kafka_string filter, const char *word) {
    return filter.len == (int32_t)__builtin_strlen(word) && strncasecmp(filter.data, word, (size_t)filter.len) == 0;
}

static bool wanted(const list_state *s, const cnk_coord_listed *g) {
    bool state = s->in.states_filter.count <= 0, type = s->in.types_filter.count <= 0;
    for (int32_t i = 0; i < s->in.states_filter.count; i++)
        state |= matches(s->in.states_filter.items[i], cnk_coord_state_names[g->state]);
    for (int32_t i = 0; i < s->in.types_filter.count; i++) type |= matches(s->in.types_filter.items[i], "classic");
    return state && type;
}

static int answer(cnk_kafka_request *r) {
    list_state *s = r->op;
    size_t count = 0;
    cnk_list_groups_response out;
    cnk_kafka_defaults(cnk_list_groups_response_message.root, &out);
    for (size_t i = 0; i < s->groups.count; i++) {
        const cnk_coord_call *call = &s->groups.calls[i].call;
        if (call->error && call->error != CHRONIK_ENOTCOORDINATOR) out.error_code = cnk_kafka_group_error(call->error);
        count += call->error ? 0 : call->ret_group_count;
    }
    if (out.error_code) return cnk_kafka_answer(r, &out);
    out.groups.items = cnk_kafka_request_alloc(r, count, sizeof *out.groups.items);
    if (!out.groups.items) return CHRONIK_ENOMEM;
    for (size_t i = 0; i < s->groups.count; i++) {
        const cnk_coord_call *call = &s->groups.calls[i].call;
        for (size_t n = 0; n < call->ret_group_count && !call->error; n++) {
            const cnk_coord_listed *g = &call->ret_groups[n];
            if (!wanted(s, g)) continue;
            out.groups.items[out.groups.count++] = (cnk_list_groups_response_listed_group){
                cnk_kafka_string_from(g->id), cnk_kafka_string_from(g->protocol_type),
                cnk_kafka_string_of(cnk_coord_state_names[g->state]), CNK_KAFKA_STRING("classic")};
        }
    }
    return cnk_kafka_answer(r, &out);
}

int cnk_kafka_handle_list_groups(cnk_kafka_request *r) {
    list_state *s = cnk_kafka_request_alloc(r, 1, sizeof *s);
    if (!s) return CHRONIK_ENOMEM;
    int code = cnk_kafka_request_decode(r, &s->in);
    const int32_t partitions = cnk_broker_group_partitions(cnk_kafka_request_shard(r));
    if (code == 0) code = cnk_kafka_groups_alloc(r, &s->groups, (size_t)partitions, answer);
    if (code) return code;
    for (int32_t i = 0; i < partitions; i++) {
        s->groups.calls[i].call.kind = CNK_COORD_LIST;
        s->groups.calls[i].call.group = (cnk_text){"", 0};
        s->groups.calls[i].partition = i;
    }
    return cnk_kafka_groups_start(r, &s->groups);
}
