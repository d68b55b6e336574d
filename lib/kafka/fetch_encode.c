/* Fetch responses by hand (K7): straight from the broker's answer, record data by reference. The interpreter writes the
 * same bytes, slower; a test compares them. */
#include "kafka/internal.h"

static void write_uuid(cnk_writer *w, const cnk_uuid *id) { cnk_write_bytes(w, id->bytes, sizeof id->bytes); }

static bool tells_leader(const cnk_fetch_part *p, int version) { /* KIP-951 */
    return version >= 16 && (p->error == CHRONIK_ENOTLEADER || p->error == CHRONIK_EFENCEDEPOCH) && p->leader_id >= 0;
}

static void write_aborted(const cnk_kafka_fetch_answer *a, const cnk_fetch_part *p, bool flexible, cnk_writer *w) {
    /* As Kafka: an empty list where the partition was not found, or is not for this version; null where reading it failed or
     * nobody asked. */
    const bool missing = p->error == CHRONIK_EUNKNOWNTOPIC || p->error == CHRONIK_EUNKNOWNTOPICID ||
                         p->error == CHRONIK_EUNSUPPORTEDCODEC;
    const bool null = p->error ? !missing && !a->refused : !a->read_committed;
    const int32_t count = null ? -1 : p->error ? 0 : (int32_t)p->aborted_count;
    cnk_kafka_write_length(w, count, flexible, false);
    for (int32_t i = 0; i < count; i++) {
        cnk_write_be64(w, (uint64_t)p->aborted[i].producer_id);
        cnk_write_be64(w, (uint64_t)p->aborted[i].first_offset);
        if (flexible) cnk_write_uvarint(w, 0);
    }
}

/* The tags of a partition: only CurrentLeader (tag 1, 9 bytes) is ever told. */
static void write_partition_tags(const cnk_fetch_part *p, int version, cnk_writer *w) {
    if (!tells_leader(p, version)) {
        cnk_write_uvarint(w, 0);
        return;
    }
    cnk_write_uvarint(w, 1);
    cnk_write_uvarint(w, 1);
    cnk_write_uvarint(w, 9);
    cnk_write_be32(w, (uint32_t)p->leader_id);
    cnk_write_be32(w, (uint32_t)p->leader_epoch_now);
    cnk_write_uvarint(w, 0);
}

/* Up to version 5 clients do not know the storage's error, and would not retry (KIP-112). */
static int16_t part_error(const cnk_fetch_part *p, int version) {
    const int16_t error = cnk_kafka_error(p->error);
    return error == CNK_KAFKA_KAFKA_STORAGE_ERROR && version <= 5 ? CNK_KAFKA_NOT_LEADER_OR_FOLLOWER : error;
}

/* A failed part says −1 for every offset and has no records, as Kafka does. */
static void write_partition(const cnk_kafka_fetch_answer *a, const cnk_fetch_part *p, int version, bool flexible,
                            cnk_writer *w) {
    const bool ok = p->error == 0;
    cnk_write_be32(w, (uint32_t)p->partition);
    cnk_write_be16(w, (uint16_t)part_error(p, version));
    cnk_write_be64(w, (uint64_t)(ok ? p->high_watermark : -1));
    if (version >= 4) cnk_write_be64(w, (uint64_t)(ok ? p->last_stable_offset : -1));
    if (version >= 5) cnk_write_be64(w, (uint64_t)(ok ? p->log_start_offset : -1));
    if (version >= 4) write_aborted(a, p, flexible, w);
    if (version >= 11) cnk_write_be32(w, UINT32_MAX); /* PreferredReadReplica: none */
    const int32_t none = p->error == CHRONIK_EUNSUPPORTEDCODEC ? -1 : 0;
    cnk_kafka_write_length(w, ok ? (int32_t)p->bytes : none, flexible, false);
}

static int write_partitions(const cnk_kafka_fetch_answer *a, const cnk_kafka_fetch_topic *t, int version, cnk_writer *w,
                            int (*slices)(void *arg, const cnk_fetch_part *part), void *arg) {
    const bool flexible = version >= cnk_fetch_response_message.flexible_min;
    cnk_kafka_write_length(w, (int32_t)t->count, flexible, false);
    for (size_t i = t->first; i < t->first + t->count; i++) {
        const cnk_fetch_part *p = &a->parts[i];
        write_partition(a, p, version, flexible, w);
        if (p->error == 0 && p->bytes > 0) {
            const int code = slices(arg, p);
            if (code) return code;
        }
        if (flexible) write_partition_tags(p, version, w);
    }
    return w->error;
}

/* The tags of the response: NodeEndpoints (tag 0), where a part has told a leader that is this node. */
static void write_tags(const cnk_kafka_fetch_answer *a, int version, cnk_writer *w) {
    bool endpoint = false;
    for (size_t t = 0; t < a->topic_count && !endpoint; t++)
        for (size_t i = a->topics[t].first; i < a->topics[t].first + a->topics[t].count; i++)
            endpoint = endpoint || (tells_leader(&a->parts[i], version) && a->parts[i].leader_id == a->node_id);
    cnk_write_uvarint(w, endpoint ? 1 : 0);
    if (!endpoint) return;
    const size_t host = a->host.len < 0 ? 0 : (size_t)a->host.len, rack = a->rack.len < 0 ? 0 : (size_t)a->rack.len;
    const size_t rack_len = a->rack.len < 0 ? 1 : cnk_uvarint_size(rack + 1) + rack;
    cnk_write_uvarint(w, 0);
    cnk_write_uvarint(w, 1 + 4 + cnk_uvarint_size(host + 1) + host + 4 + rack_len + 1);
    cnk_write_uvarint(w, 2); /* one endpoint */
    cnk_write_be32(w, (uint32_t)a->node_id);
    cnk_kafka_write_string(w, a->host, true);
    cnk_write_be32(w, (uint32_t)a->port);
    cnk_kafka_write_string(w, a->rack, true);
    cnk_write_uvarint(w, 0);
}

int cnk_kafka_fetch_encode(const cnk_kafka_fetch_answer *a, int version, cnk_writer *w,
                           int (*slices)(void *arg, const cnk_fetch_part *part), void *arg) {
    const bool flexible = version >= cnk_fetch_response_message.flexible_min;
    if (version >= 1) cnk_write_be32(w, 0); /* ThrottleTimeMs */
    if (version >= 7) {
        cnk_write_be16(w, (uint16_t)a->error);
        cnk_write_be32(w, (uint32_t)a->session_id);
    }
    cnk_kafka_write_length(w, (int32_t)a->topic_count, flexible, false);
    for (size_t i = 0; i < a->topic_count; i++) {
        const cnk_kafka_fetch_topic *t = &a->topics[i];
        if (version >= 13) write_uuid(w, &t->id);
        else cnk_kafka_write_string(w, t->name, flexible);
        const int code = write_partitions(a, t, version, w, slices, arg);
        if (code) return code;
        if (flexible) cnk_write_uvarint(w, 0);
    }
    if (flexible) write_tags(a, version, w);
    return w->error;
}
