/* Kafka's records of groups, big-endian. A key begins with its version, which says what it is; so does a value.
 *
 *   text    i16 length, bytes; -1: null              bytes   i32 length, bytes
 *   key 0, 1   offset: text group, text topic, i32 partition        key 2   group: text group
 *   offset's value
 *     i64 offset · i32 leaderEpoch (from 3) · text metadata · i64 commitTimestamp · i64 expireTimestamp (1 alone)
 *     version 4 (flexible: compact lengths, tags): tag 0 is the topic's id. Written: 1 with an expiry, else 4.
 *   group's value
 *     text protocolType · i32 generation · text protocol · text leader · i64 currentStateTimestamp (from 2) · i32 count, and
 *     each member: text memberId · text groupInstanceId (from 3) · text clientId · text clientHost ·
 *       i32 rebalanceTimeout (from 1) · i32 sessionTimeout · bytes subscription · bytes assignment
 *     version 4 is the same, flexible. Written: 3.
 *
 * Versions above 4 are refused (ECORRUPT): their records are passed over. */
#include "coord/records.h"

#define VALUE_MAX 4

static cnk_text read_text(cnk_reader *r, bool flexible) {
    int64_t len = flexible ? (int64_t)cnk_read_uvarint32(r) - 1 : (int16_t)cnk_read_be16(r);
    if (r->error || len < 0) return (cnk_text){NULL, 0};
    const uint8_t *p = cnk_read_bytes(r, (size_t)len);
    return (cnk_text){(const char *)p, p ? (size_t)len : 0};
}

static cnk_text read_blob(cnk_reader *r, bool flexible) {
    int64_t len = flexible ? (int64_t)cnk_read_uvarint32(r) - 1 : (int32_t)cnk_read_be32(r);
    if (r->error || len < 0) return (cnk_text){NULL, 0};
    const uint8_t *p = cnk_read_bytes(r, (size_t)len);
    return (cnk_text){(const char *)p, p ? (size_t)len : 0};
}

static void write_text(cnk_writer *w, cnk_text t) {
    cnk_write_be16(w, t.p ? (uint16_t)t.len : UINT16_MAX);
    if (t.p) cnk_write_bytes(w, t.p, t.len);
}

static void write_blob(cnk_writer *w, cnk_text t) {
    cnk_write_be32(w, (uint32_t)t.len);
    cnk_write_bytes(w, t.p, t.len);
}

/* Tagged fields at the end of a structure; a topic's id is taken where it is wanted. */
static void read_tags(cnk_reader *r, cnk_uuid *ret_topic_id) {
    uint32_t count = cnk_read_uvarint32(r);
    while (count-- > 0 && r->error == 0) {
        uint32_t tag = cnk_read_uvarint32(r), len = cnk_read_uvarint32(r);
        const uint8_t *p = cnk_read_bytes(r, len);
        if (p && ret_topic_id && tag == 0 && len == sizeof ret_topic_id->bytes)
            memcpy(ret_topic_id->bytes, p, sizeof ret_topic_id->bytes);
    }
}

/* ---- keys ------------------------------------------------------------------------------------------------------- */

int cnk_coord_key_read(const void *p, size_t len, cnk_coord_key *ret_key) {
    cnk_reader r = cnk_reader_of(p, len);
    cnk_coord_key key = {.kind = CNK_COORD_KEY_OTHER};
    uint16_t version = cnk_read_be16(&r);
    if (r.error) return CHRONIK_ECORRUPT;
    if (version <= 2) {
        key.kind = version == 2 ? CNK_COORD_KEY_GROUP : CNK_COORD_KEY_OFFSET;
        key.group = read_text(&r, false);
        if (key.group.p == NULL) return CHRONIK_ECORRUPT;
    }
    if (version <= 1) {
        key.topic = read_text(&r, false);
        key.partition = (int32_t)cnk_read_be32(&r);
        if (key.topic.p == NULL) return CHRONIK_ECORRUPT;
    }
    if (r.error) return CHRONIK_ECORRUPT;
    *ret_key = key;
    return 0;
}

void cnk_coord_offset_key_write(cnk_writer *w, cnk_text group, cnk_text topic, int32_t partition) {
    cnk_write_be16(w, 1);
    write_text(w, group);
    write_text(w, topic);
    cnk_write_be32(w, (uint32_t)partition);
}

void cnk_coord_group_key_write(cnk_writer *w, cnk_text group) {
    cnk_write_be16(w, 2);
    write_text(w, group);
}

/* ---- offsets ---------------------------------------------------------------------------------------------------- */

int cnk_coord_offset_value_read(const void *p, size_t len, cnk_coord_offset_value *ret_value) {
    cnk_reader r = cnk_reader_of(p, len);
    cnk_coord_offset_value v = {.leader_epoch = -1, .expire_ms = -1};
    uint16_t version = cnk_read_be16(&r);
    if (r.error || version > VALUE_MAX) return CHRONIK_ECORRUPT;
    v.offset = (int64_t)cnk_read_be64(&r);
    if (version >= 3) v.leader_epoch = (int32_t)cnk_read_be32(&r);
    v.metadata = read_text(&r, version >= 4);
    v.commit_ms = (int64_t)cnk_read_be64(&r);
    if (version == 1) v.expire_ms = (int64_t)cnk_read_be64(&r);
    if (version >= 4) read_tags(&r, &v.topic_id);
    if (r.error) return CHRONIK_ECORRUPT;
    *ret_value = v;
    return 0;
}

void cnk_coord_offset_value_write(cnk_writer *w, const cnk_coord_offset_value *v) {
    cnk_text metadata = v->metadata.p ? v->metadata : (cnk_text){"", 0};
    bool expires = v->expire_ms >= 0;
    cnk_write_be16(w, expires ? 1 : 4);
    cnk_write_be64(w, (uint64_t)v->offset);
    if (expires) {
        write_text(w, metadata);
        cnk_write_be64(w, (uint64_t)v->commit_ms);
        cnk_write_be64(w, (uint64_t)v->expire_ms);
        return;
    }
    cnk_write_be32(w, (uint32_t)v->leader_epoch);
    cnk_write_uvarint(w, metadata.len + 1);
    cnk_write_bytes(w, metadata.p, metadata.len);
    cnk_write_be64(w, (uint64_t)v->commit_ms);
    bool has_id = !cnk_uuid_is_zero(&v->topic_id);
    cnk_write_uvarint(w, has_id); /* tags */
    if (!has_id) return;
    cnk_write_uvarint(w, 0);
    cnk_write_uvarint(w, sizeof v->topic_id.bytes);
    cnk_write_bytes(w, v->topic_id.bytes, sizeof v->topic_id.bytes);
}

/* ---- groups ----------------------------------------------------------------------------------------------------- */

int cnk_coord_group_value_read(cnk_reader *r, int *ret_version, cnk_coord_group_value *ret_value) {
    cnk_coord_group_value v = {.state_ms = -1};
    int version = (int16_t)cnk_read_be16(r);
    if (r->error || version < 0 || version > VALUE_MAX) return CHRONIK_ECORRUPT;
    bool flexible = version >= 4;
    v.protocol_type = read_text(r, flexible);
    v.generation = (int32_t)cnk_read_be32(r);
    v.protocol = read_text(r, flexible);
    v.leader = read_text(r, flexible);
    if (version >= 2) v.state_ms = (int64_t)cnk_read_be64(r);
    int64_t count = flexible ? (int64_t)cnk_read_uvarint32(r) - 1 : (int32_t)cnk_read_be32(r);
    if (r->error || count < 0 || (uint64_t)count > cnk_reader_left(r)) return CHRONIK_ECORRUPT;
    v.member_count = (int32_t)count;
    *ret_version = version;
    *ret_value = v;
    return 0;
}

int cnk_coord_member_value_read(cnk_reader *r, int version, cnk_coord_member_value *ret_value) {
    cnk_coord_member_value v = {.rebalance_timeout_ms = -1};
    bool flexible = version >= 4;
    v.id = read_text(r, flexible);
    if (version >= 3) v.instance_id = read_text(r, flexible);
    v.client_id = read_text(r, flexible);
    v.client_host = read_text(r, flexible);
    if (version >= 1) v.rebalance_timeout_ms = (int32_t)cnk_read_be32(r);
    v.session_timeout_ms = (int32_t)cnk_read_be32(r);
    v.subscription = read_blob(r, flexible);
    v.assignment = read_blob(r, flexible);
    if (flexible) read_tags(r, NULL);
    if (r->error || v.id.p == NULL) return CHRONIK_ECORRUPT;
    *ret_value = v;
    return 0;
}

void cnk_coord_group_value_write(cnk_writer *w, const cnk_coord_group_value *v) {
    cnk_write_be16(w, 3);
    write_text(w, v->protocol_type.p ? v->protocol_type : (cnk_text){"", 0});
    cnk_write_be32(w, (uint32_t)v->generation);
    write_text(w, v->protocol);
    write_text(w, v->leader);
    cnk_write_be64(w, (uint64_t)v->state_ms);
    cnk_write_be32(w, (uint32_t)v->member_count);
}

void cnk_coord_member_value_write(cnk_writer *w, const cnk_coord_member_value *v) {
    write_text(w, v->id);
    write_text(w, v->instance_id);
    write_text(w, v->client_id.p ? v->client_id : (cnk_text){"", 0});
    write_text(w, v->client_host.p ? v->client_host : (cnk_text){"", 0});
    cnk_write_be32(w, (uint32_t)v->rebalance_timeout_ms);
    cnk_write_be32(w, (uint32_t)v->session_timeout_ms);
    write_blob(w, v->subscription);
    write_blob(w, v->assignment);
}
