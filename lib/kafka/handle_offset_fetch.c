/* OffsetFetch: the offsets that groups have stored: of one group, from version 8 on of several (KIP-709), from 10 on with
 * topics by id. No list of topics (from version 2 on): all that the group has. */
#include "kafka/internal.h"

typedef cnk_offset_fetch_response_offset_fetch_response_group group_out;
typedef cnk_offset_fetch_response_offset_fetch_response_topics topic_out;
typedef cnk_offset_fetch_response_offset_fetch_response_partitions part_out;
typedef cnk_offset_fetch_request_offset_fetch_request_topics topic_in;

typedef struct fetch_state {
    cnk_kafka_groups groups;
    cnk_offset_fetch_request in;
    cnk_offset_fetch_request_offset_fetch_request_group *asked;
} fetch_state;

/* ---- the answer ------------------------------------------------------------------------------------------------- */

static int part_alloc(cnk_kafka_request *r, topic_out *to, size_t count) {
    to->partitions.items = cnk_kafka_request_alloc(r, count, sizeof(part_out));
    to->partitions.count = (int32_t)count;
    return to->partitions.items ? 0 : CHRONIK_ENOMEM;
}

static int fill_topic(cnk_kafka_request *r, const cnk_coord_topic *from, int error, topic_out *to) {
    to->name = cnk_kafka_string_from(from->name);
    to->topic_id = from->id;
    const int code = part_alloc(r, to, from->offset_count);
    for (size_t i = 0; i < from->offset_count && code == 0; i++) {
        const cnk_coord_offset *o = &from->offsets[i];
        part_out *part = &to->partitions.items[i];
        *part = (part_out){o->partition, -1, -1, CNK_KAFKA_STRING(""), cnk_kafka_group_error(error ? error : o->error)};
        if (part->error_code) continue;
        part->committed_offset = o->offset;
        part->committed_leader_epoch = o->leader_epoch;
        part->metadata = cnk_kafka_string_from(o->metadata);
    }
    return code;
}

/* Topics whose id is unknown come last. */
static int fill_unknown(cnk_kafka_request *r, const topic_in *from, topic_out *to) {
    to->name = CNK_KAFKA_STRING("");
    to->topic_id = from->topic_id;
    const int code = part_alloc(r, to, (size_t)from->partition_indexes.count);
    for (int32_t i = 0; i < from->partition_indexes.count && code == 0; i++)
        to->partitions.items[i] = (part_out){from->partition_indexes.items[i], -1, -1, CNK_KAFKA_STRING(""),
                                             CNK_KAFKA_UNKNOWN_TOPIC_ID};
    return code;
}

static bool unknown(const cnk_kafka_request *r, const topic_in *t) {
    return r->version >= 10 && !cnk_meta_topic_by_id(cnk_shard_image(cnk_kafka_request_shard(r)), &t->topic_id);
}

/* All of a group's, by id: what is stored for topics that are gone is not shown. */
static bool hidden(const cnk_kafka_request *r, const cnk_coord_call *call, const cnk_coord_topic *t) {
    return r->version >= 10 && call->all_topics && cnk_uuid_is_zero(&t->id);
}

static int fill_group(cnk_kafka_request *r, const fetch_state *s, size_t n, group_out *to) {
    const cnk_coord_call *call = &s->groups.calls[n].call;
    const size_t asked = s->asked[n].topics.count > 0 ? (size_t)s->asked[n].topics.count : 0;
    int code = 0;
    *to = (group_out){.group_id = s->asked[n].group_id};
    if (call->error && r->version >= 2) {
        to->error_code = cnk_kafka_group_error(call->error);
        return 0;
    }
    to->topics.items = cnk_kafka_request_alloc(r, call->topic_count + asked, sizeof(topic_out));
    if (!to->topics.items) return CHRONIK_ENOMEM;
    for (size_t t = 0; t < call->topic_count && code == 0; t++) {
        if (hidden(r, call, &call->topics[t])) continue;
        code = fill_topic(r, &call->topics[t], call->error, &to->topics.items[to->topics.count++]);
    }
    for (size_t t = 0; t < asked && code == 0; t++)
        if (unknown(r, &s->asked[n].topics.items[t]))
            code = fill_unknown(r, &s->asked[n].topics.items[t], &to->topics.items[to->topics.count++]);
    return code;
}

/* Below version 8 there is one group, whose topics stand in the answer itself. */
static int fill_single(cnk_kafka_request *r, const group_out *from, cnk_offset_fetch_response *to) {
    to->error_code = from->error_code;
    to->topics.items = cnk_kafka_request_alloc(r, (size_t)from->topics.count, sizeof *to->topics.items);
    if (!to->topics.items) return CHRONIK_ENOMEM;
    to->topics.count = from->topics.count;
    for (int32_t t = 0; t < from->topics.count; t++) {
        const topic_out *in = &from->topics.items[t];
        cnk_offset_fetch_response_offset_fetch_response_topic *topic = &to->topics.items[t];
        topic->name = in->name;
        topic->partitions.count = in->partitions.count;
        topic->partitions.items =
            cnk_kafka_request_alloc(r, (size_t)in->partitions.count, sizeof *topic->partitions.items);
        if (!topic->partitions.items) return CHRONIK_ENOMEM;
        for (int32_t i = 0; i < in->partitions.count; i++) {
            const part_out *p = &in->partitions.items[i];
            topic->partitions.items[i] = (cnk_offset_fetch_response_offset_fetch_response_partition){
                p->partition_index, p->committed_offset, p->committed_leader_epoch, p->metadata, p->error_code};
        }
    }
    return 0;
}

static int answer(cnk_kafka_request *r) {
    fetch_state *s = r->op;
    cnk_offset_fetch_response out;
    cnk_kafka_defaults(cnk_offset_fetch_response_message.root, &out);
    group_out *groups = cnk_kafka_request_alloc(r, s->groups.count, sizeof *groups);
    int code = groups ? 0 : CHRONIK_ENOMEM;
    for (size_t n = 0; n < s->groups.count && code == 0; n++) code = fill_group(r, s, n, &groups[n]);
    if (code == 0 && r->version < 8) code = fill_single(r, &groups[0], &out);
    if (r->version >= 8) {
        out.groups.items = groups;
        out.groups.count = (int32_t)s->groups.count;
    }
    return code ? code : cnk_kafka_answer(r, &out);
}

/* ---- the request ------------------------------------------------------------------------------------------------ */

/* The one group of an old version, as if it stood in a list. */
static int widen(cnk_kafka_request *r, fetch_state *s) {
    cnk_offset_fetch_request_offset_fetch_request_group *g = cnk_kafka_request_alloc(r, 1, sizeof *g);
    if (!g) return CHRONIK_ENOMEM;
    g->group_id = s->in.group_id;
    g->topics.count = s->in.topics.count;
    if (s->in.topics.count > 0) {
        g->topics.items = cnk_kafka_request_alloc(r, (size_t)s->in.topics.count, sizeof *g->topics.items);
        if (!g->topics.items) return CHRONIK_ENOMEM;
    }
    for (int32_t t = 0; t < s->in.topics.count; t++) {
        g->topics.items[t].name = s->in.topics.items[t].name;
        g->topics.items[t].partition_indexes.items = s->in.topics.items[t].partition_indexes.items;
        g->topics.items[t].partition_indexes.count = s->in.topics.items[t].partition_indexes.count;
    }
    s->in.groups.items = g;
    s->in.groups.count = 1;
    return 0;
}

static int collect_topic(cnk_kafka_request *r, const topic_in *in, cnk_coord_call *call) {
    const cnk_meta_image *image = cnk_shard_image(cnk_kafka_request_shard(r));
    const cnk_meta_topic *topic = r->version >= 10 ? cnk_meta_topic_by_id(image, &in->topic_id) : NULL;
    if (r->version >= 10 && !topic) return 0;
    cnk_coord_topic *to = &call->topics[call->topic_count];
    const cnk_kafka_string name = topic ? (cnk_kafka_string){topic->name, topic->name_len} : in->name;
    to->id = in->topic_id;
    to->offset_count = in->partition_indexes.count > 0 ? (size_t)in->partition_indexes.count : 0;
    to->offsets = cnk_kafka_request_alloc(r, to->offset_count, sizeof *to->offsets);
    if (!to->offsets || !cnk_kafka_request_text(r, name, &to->name)) return CHRONIK_ENOMEM;
    for (size_t i = 0; i < to->offset_count; i++) to->offsets[i].partition = in->partition_indexes.items[i];
    call->topic_count++;
    return 0;
}

static int collect(cnk_kafka_request *r, fetch_state *s) {
    size_t offsets = 0;
    int code = 0;
    for (size_t n = 0; n < s->groups.count && code == 0; n++) {
        cnk_coord_call *call = &s->groups.calls[n].call;
        const int32_t count = s->asked[n].topics.count;
        call->kind = CNK_COORD_OFFSET_FETCH;
        call->group = cnk_kafka_text_of(s->asked[n].group_id);
        call->all_topics = count < 0;
        call->topics = cnk_kafka_request_alloc(r, count > 0 ? (size_t)count : 0, sizeof *call->topics);
        if (!call->topics) return CHRONIK_ENOMEM;
        for (int32_t t = 0; t < count && code == 0; t++) {
            offsets += (size_t)s->asked[n].topics.items[t].partition_indexes.count;
            code = offsets > CNK_KAFKA_OFFSETS_MAX ? CHRONIK_ETOOLARGE
                                                   : collect_topic(r, &s->asked[n].topics.items[t], call);
        }
    }
    return code;
}

int cnk_kafka_handle_offset_fetch(cnk_kafka_request *r) {
    fetch_state *s = cnk_kafka_request_alloc(r, 1, sizeof *s);
    if (!s) return CHRONIK_ENOMEM;
    int code = cnk_kafka_request_decode(r, &s->in);
    if (code == 0 && r->version < 8) code = widen(r, s);
    if (code == 0 && s->in.groups.count > CNK_KAFKA_GROUPS_MAX) code = CHRONIK_ETOOLARGE;
    if (code) return code;
    s->asked = s->in.groups.items;
    code = cnk_kafka_groups_alloc(r, &s->groups, s->in.groups.count > 0 ? (size_t)s->in.groups.count : 0, answer);
    if (code == 0) code = collect(r, s);
    return code ? code : cnk_kafka_groups_start(r, &s->groups);
}
