/* Commands as bytes, and what they do to an image. A snapshot is a command that makes the whole image.
 *
 * Little-endian:
 *   0 u8 version of the frame (1) · then records, each:
 *     u16 kind; bit 15: a reader that does not know the kind may skip it · u16 version (1) · u32 length of the body ·
 * body
 *   CLUSTER         16 cluster id
 *   COUNTERS        u64 next stream · i64 next producer id · u32 epoch floor (none goes back) · u32 feature level
 *   TOPIC           16 id · u8 flags (1 internal, 2 online) · u32 epoch floor · u16 name length · name
 *                   · u32 partitions, each: u64 stream · u8 replicas · i32 node for each
 *                   · u32 configurations, each: u16 name length · name · u32 value length · value
 *   ONLINE          16 topic id; the topic, or the partitions added to it
 *   DELETE          16 topic id · u32 epoch floor
 *   PRODUCER_BLOCK  i64 next producer id
 *   PARTITIONS      16 topic id · u32 partitions, each as in TOPIC: they are added to a topic that is online, and not
 *                   visible before an ONLINE. In a snapshot it follows the topic's own record.
 *   CONFIGS         16 topic id · u32 configurations, each as in TOPIC: all that the topic has from now on
 * A body may be longer than its version's fields: later fields go at the end.
 *
 * Crash rule: a command is one entry, so it is there whole or not at all. Applying is a pure function of image and
 * command (R10); the resolved settings and the leaders are not part of the state. */
#include "base/assert.h"
#include "base/mem.h"
#include "meta/internal.h"

#define FRAME_VERSION 1
#define RECORD_VERSION 1
#define MAY_SKIP 0x8000u
#define TOPIC_INTERNAL 1u
#define TOPIC_ONLINE 2u
#define PARTITION_BYTES_MIN 9u
#define CONFIG_BYTES_MIN 6u

static int apply_record(cnk_meta_image *image, const cnk_meta_options *options, uint16_t kind, cnk_reader *body);
static int apply_counters(cnk_meta_image *image, cnk_reader *body);
static int apply_topic(cnk_meta_image *image, const cnk_meta_options *options, cnk_reader *body);
static int apply_online(cnk_meta_image *image, cnk_reader *body);
static int apply_delete(cnk_meta_image *image, cnk_reader *body);
static int apply_partitions(cnk_meta_image *image, cnk_reader *body);
static int apply_configs(cnk_meta_image *image, const cnk_meta_options *options, cnk_reader *body);
static int read_partitions(cnk_reader *body, cnk_meta_topic *topic, int32_t from, uint64_t *next_stream);
static void write_partitions(cnk_writer *w, const cnk_meta_partition *partitions, int32_t count);
static void write_configs(cnk_writer *w, const cnk_meta_config *configs, size_t count);
static int read_configs(cnk_reader *body, cnk_meta_topic *topic);
static bool next_record(cnk_reader *r, uint16_t *ret_kind, uint16_t *ret_version, cnk_reader *ret_body);
static size_t record_open(cnk_writer *w, uint16_t kind);
static void record_close(cnk_writer *w, size_t at);
static void write_uuid(cnk_writer *w, const cnk_uuid *id);
static cnk_uuid read_uuid(cnk_reader *r);
static void write_topic(cnk_writer *w, const cnk_meta_topic_spec *spec, unsigned flags, uint32_t epoch_floor,
                        const cnk_meta_partition *partitions, uint64_t first_stream);

void cnk_meta_command_init(cnk_meta_command *command) {
    cnk_writer_growing(&command->bytes, CNK_META_COMMAND_BYTES_MAX);
    cnk_write_u8(&command->bytes, FRAME_VERSION);
}

void cnk_meta_command_free(cnk_meta_command *command) { cnk_writer_free(&command->bytes); }

void cnk_meta_command_cluster(cnk_meta_command *command, const cnk_uuid *cluster_id) {
    size_t at = record_open(&command->bytes, RECORD_CLUSTER);
    write_uuid(&command->bytes, cluster_id);
    record_close(&command->bytes, at);
}

void cnk_meta_command_topic(cnk_meta_command *command, const cnk_meta_image *head, uint64_t *next_stream,
                            const cnk_meta_topic_spec *spec) {
    if (*next_stream == 0) *next_stream = head->next_stream;
    write_topic(&command->bytes, spec, spec->internal ? TOPIC_INTERNAL : 0, head->epoch_floor, NULL, *next_stream);
    *next_stream += (uint64_t)spec->partition_count;
}

void cnk_meta_command_partitions(cnk_meta_command *command, const cnk_meta_image *head, uint64_t *next_stream,
                                 const cnk_uuid *topic_id, int32_t count, int32_t node) {
    if (*next_stream == 0) *next_stream = head->next_stream;
    size_t at = record_open(&command->bytes, RECORD_PARTITIONS);
    write_uuid(&command->bytes, topic_id);
    cnk_write_le32(&command->bytes, (uint32_t)count);
    for (int32_t i = 0; i < count; i++) {
        const cnk_meta_partition p = {.stream = (*next_stream)++, .replica_count = 1, .replicas = {node}};
        write_partitions(&command->bytes, &p, 1);
    }
    record_close(&command->bytes, at);
}

void cnk_meta_command_configs(cnk_meta_command *command, const cnk_uuid *topic_id, const cnk_meta_config *configs,
                              size_t config_count) {
    size_t at = record_open(&command->bytes, RECORD_CONFIGS);
    write_uuid(&command->bytes, topic_id);
    write_configs(&command->bytes, configs, config_count);
    record_close(&command->bytes, at);
}

void cnk_meta_command_online(cnk_meta_command *command, const cnk_uuid *topic_id) {
    size_t at = record_open(&command->bytes, RECORD_ONLINE);
    write_uuid(&command->bytes, topic_id);
    record_close(&command->bytes, at);
}

void cnk_meta_command_delete(cnk_meta_command *command, const cnk_uuid *topic_id, uint32_t epoch_floor) {
    size_t at = record_open(&command->bytes, RECORD_DELETE);
    write_uuid(&command->bytes, topic_id);
    cnk_write_le32(&command->bytes, epoch_floor);
    record_close(&command->bytes, at);
}

void cnk_meta_command_producer_block(cnk_meta_command *command, int64_t next_producer_id) {
    size_t at = record_open(&command->bytes, RECORD_PRODUCER_BLOCK);
    cnk_write_le64(&command->bytes, (uint64_t)next_producer_id);
    record_close(&command->bytes, at);
}

void cnk_meta_image_write(const cnk_meta_image *image, cnk_writer *out) {
    cnk_write_u8(out, FRAME_VERSION);
    size_t at = record_open(out, RECORD_CLUSTER);
    write_uuid(out, &image->cluster_id);
    record_close(out, at);
    at = record_open(out, RECORD_COUNTERS);
    cnk_write_le64(out, image->next_stream);
    cnk_write_le64(out, (uint64_t)image->next_producer_id);
    cnk_write_le32(out, image->epoch_floor);
    cnk_write_le32(out, image->feature_level);
    record_close(out, at);
    for (size_t i = 0; i < image->topic_count; i++) {
        const cnk_meta_topic *t = image->by_name[i];
        cnk_meta_topic_spec spec = {.name = t->name,
                                    .name_len = t->name_len,
                                    .id = t->id,
                                    .partition_count = t->partition_count,
                                    .configs = t->configs,
                                    .config_count = t->config_count};
        unsigned flags = (t->internal ? TOPIC_INTERNAL : 0) | (t->online ? TOPIC_ONLINE : 0);
        write_topic(out, &spec, flags, t->epoch_floor, t->partitions, 0);
        if (t->partition_total == t->partition_count) continue;
        at = record_open(out, RECORD_PARTITIONS);
        write_uuid(out, &t->id);
        cnk_write_le32(out, (uint32_t)(t->partition_total - t->partition_count));
        write_partitions(out, t->partitions + t->partition_count, t->partition_total - t->partition_count);
        record_close(out, at);
    }
}

int cnk_meta_image_apply(cnk_meta_image *image, const cnk_meta_options *options, const uint8_t *command, size_t len) {
    cnk_reader r = cnk_reader_of(command, len), body;
    uint16_t kind, version;
    if (cnk_read_u8(&r) != FRAME_VERSION) return CHRONIK_ECORRUPT;
    while (next_record(&r, &kind, &version, &body)) {
        if (version == 0 || version > RECORD_VERSION) return CHRONIK_EUNSUPPORTED;
        int rc = apply_record(image, options, kind, &body);
        if (rc != 0) return rc;
    }
    return r.error != 0 ? CHRONIK_ECORRUPT : 0;
}

size_t cnk_meta_count_topics(const uint8_t *command, size_t len) {
    cnk_reader r = cnk_reader_of(command, len), body;
    uint16_t kind, version;
    size_t count = 0;
    cnk_read_u8(&r);
    while (next_record(&r, &kind, &version, &body)) count += kind == RECORD_TOPIC;
    return count;
}

static int apply_record(cnk_meta_image *image, const cnk_meta_options *options, uint16_t kind, cnk_reader *body) {
    int rc = 0;
    switch (kind) {
    case RECORD_CLUSTER: image->cluster_id = read_uuid(body); break;
    case RECORD_COUNTERS: rc = apply_counters(image, body); break;
    case RECORD_TOPIC: rc = apply_topic(image, options, body); break;
    case RECORD_ONLINE: rc = apply_online(image, body); break;
    case RECORD_DELETE: rc = apply_delete(image, body); break;
    case RECORD_PARTITIONS: rc = apply_partitions(image, body); break;
    case RECORD_CONFIGS: rc = apply_configs(image, options, body); break;
    case RECORD_PRODUCER_BLOCK: {
        int64_t next = (int64_t)cnk_read_le64(body);
        if (next < image->next_producer_id) return CHRONIK_ECORRUPT;
        image->next_producer_id = next;
        break;
    }
    default: return kind & MAY_SKIP ? 0 : CHRONIK_EUNSUPPORTED;
    }
    return rc != 0 ? rc : body->error != 0 ? CHRONIK_ECORRUPT : 0;
}

/* None of them goes back: what was numbered by them may be there. */
static int apply_counters(cnk_meta_image *image, cnk_reader *body) {
    uint64_t next_stream = cnk_read_le64(body);
    int64_t next_producer_id = (int64_t)cnk_read_le64(body);
    uint32_t epoch_floor = cnk_read_le32(body);
    if (next_stream <= CNK_META_STREAM || next_stream < image->next_stream || next_producer_id < image->next_producer_id ||
        epoch_floor < image->epoch_floor || epoch_floor > INT32_MAX)
        return CHRONIK_ECORRUPT;
    image->next_stream = next_stream;
    image->next_producer_id = next_producer_id;
    image->epoch_floor = epoch_floor;
    image->feature_level = cnk_read_le32(body);
    return 0;
}

static int apply_topic(cnk_meta_image *image, const cnk_meta_options *options, cnk_reader *body) {
    cnk_meta_topic *topic = NULL;
    cnk_uuid id = read_uuid(body);
    unsigned flags = cnk_read_u8(body);
    uint32_t epoch_floor = cnk_read_le32(body);
    uint16_t name_len = cnk_read_le16(body);
    const char *name = (const char *)cnk_read_bytes(body, name_len);
    uint32_t partitions = cnk_read_le32(body);
    if (body->error != 0 || cnk_topic_name_check(name, name_len, NULL) != 0 || partitions == 0 ||
        partitions > CNK_TOPIC_PARTITIONS_MAX || partitions > cnk_reader_left(body) / PARTITION_BYTES_MIN)
        return CHRONIK_ECORRUPT;
    /* The configurations come after the partitions; their number is known then. */
    cnk_reader ahead = *body;
    for (uint32_t i = 0; i < partitions; i++) {
        cnk_read_le64(&ahead);
        cnk_read_bytes(&ahead, 4u * cnk_read_u8(&ahead));
    }
    uint32_t configs = cnk_read_le32(&ahead);
    if (ahead.error != 0 || configs > cnk_reader_left(&ahead) / CONFIG_BYTES_MIN) return CHRONIK_ECORRUPT;
    int rc = cnk_meta_topic_new(name, name_len, &id, (int32_t)partitions, configs, &topic);
    if (rc != 0) return rc;
    topic->internal = (flags & TOPIC_INTERNAL) != 0;
    topic->online = (flags & TOPIC_ONLINE) != 0;
    topic->epoch_floor = epoch_floor;
    rc = read_partitions(body, topic, 0, &image->next_stream);
    cnk_read_le32(body); /* the count of configurations, which is known */
    if (rc == 0) rc = read_configs(body, topic);
    if (rc == 0) cnk_meta_topic_resolve(topic, options);
    if (rc == 0) rc = cnk_meta_image_add(image, topic) == 0 ? 0 : CHRONIK_ECORRUPT;
    if (rc != 0) cnk_meta_topic_unref(topic);
    return rc;
}

static int read_partitions(cnk_reader *body, cnk_meta_topic *topic, int32_t from, uint64_t *next_stream) {
    for (int32_t i = from; i < topic->partition_total; i++) {
        cnk_meta_partition *p = &topic->partitions[i];
        p->stream = cnk_read_le64(body);
        p->state = topic->online && i < topic->partition_count ? CNK_PARTITION_ONLINE : CNK_PARTITION_CREATING;
        p->replica_count = cnk_read_u8(body);
        if (p->replica_count == 0 || p->replica_count > CNK_META_REPLICAS_MAX || p->stream <= CNK_META_STREAM ||
            p->stream == UINT64_MAX)
            return CHRONIK_ECORRUPT;
        for (unsigned n = 0; n < p->replica_count; n++) p->replicas[n] = (int32_t)cnk_read_le32(body);
        if (p->stream >= *next_stream) *next_stream = p->stream + 1;
    }
    return body->error != 0 ? CHRONIK_ECORRUPT : 0;
}

static int read_configs(cnk_reader *body, cnk_meta_topic *topic) {
    for (size_t i = 0; i < topic->config_count; i++) {
        uint16_t name_len = cnk_read_le16(body);
        const uint8_t *name = cnk_read_bytes(body, name_len);
        uint32_t value_len = cnk_read_le32(body);
        const uint8_t *value = cnk_read_bytes(body, value_len);
        if (body->error != 0) return CHRONIK_ECORRUPT;
        cnk_meta_config *c = &topic->configs[i];
        c->name = cnk_calloc(1, name_len + 1u);
        c->value = cnk_calloc(1, (size_t)value_len + 1u);
        if (c->name == NULL || c->value == NULL) return CHRONIK_ENOMEM;
        memcpy(c->name, name, name_len);
        memcpy(c->value, value, value_len);
    }
    return 0;
}

static int apply_online(cnk_meta_image *image, cnk_reader *body) {
    cnk_meta_topic *topic = NULL;
    cnk_uuid id = read_uuid(body);
    const cnk_meta_topic *old = cnk_meta_topic_any_by_id(image, &id);
    if (body->error != 0 || old == NULL) return CHRONIK_ECORRUPT;
    int rc = cnk_meta_topic_clone(old, 0, SIZE_MAX, &topic);
    if (rc != 0) return rc;
    topic->online = true;
    topic->partition_count = topic->partition_total;
    for (int32_t i = 0; i < topic->partition_count; i++) topic->partitions[i].state = CNK_PARTITION_ONLINE;
    rc = cnk_meta_image_replace(image, topic);
    CNK_ASSERT(rc == 0);
    return 0;
}

static int apply_partitions(cnk_meta_image *image, cnk_reader *body) {
    cnk_meta_topic *topic = NULL;
    cnk_uuid id = read_uuid(body);
    uint32_t count = cnk_read_le32(body);
    const cnk_meta_topic *old = cnk_meta_topic_by_id(image, &id);
    if (body->error != 0 || old == NULL || count == 0 || count > cnk_reader_left(body) / PARTITION_BYTES_MIN ||
        count > (uint32_t)(CNK_TOPIC_PARTITIONS_MAX - old->partition_total))
        return CHRONIK_ECORRUPT;
    int rc = cnk_meta_topic_clone(old, (int32_t)count, SIZE_MAX, &topic);
    if (rc == 0) rc = read_partitions(body, topic, old->partition_total, &image->next_stream);
    if (rc != 0) {
        cnk_meta_topic_unref(topic);
        return rc;
    }
    rc = cnk_meta_image_replace(image, topic);
    CNK_ASSERT(rc == 0);
    return 0;
}

static int apply_configs(cnk_meta_image *image, const cnk_meta_options *options, cnk_reader *body) {
    cnk_meta_topic *topic = NULL;
    cnk_uuid id = read_uuid(body);
    uint32_t count = cnk_read_le32(body);
    const cnk_meta_topic *old = cnk_meta_topic_any_by_id(image, &id);
    if (body->error != 0 || old == NULL || count > cnk_reader_left(body) / CONFIG_BYTES_MIN) return CHRONIK_ECORRUPT;
    int rc = cnk_meta_topic_clone(old, 0, count, &topic);
    if (rc == 0) rc = read_configs(body, topic);
    if (rc != 0) {
        cnk_meta_topic_unref(topic);
        return rc;
    }
    cnk_meta_topic_resolve(topic, options);
    rc = cnk_meta_image_replace(image, topic);
    CNK_ASSERT(rc == 0);
    return 0;
}

static int apply_delete(cnk_meta_image *image, cnk_reader *body) {
    cnk_uuid id = read_uuid(body);
    uint32_t floor = cnk_read_le32(body);
    if (body->error != 0 || floor > INT32_MAX || cnk_meta_image_remove(image, &id) != 0) return CHRONIK_ECORRUPT;
    if (floor > image->epoch_floor) image->epoch_floor = floor;
    return 0;
}

static bool next_record(cnk_reader *r, uint16_t *ret_kind, uint16_t *ret_version, cnk_reader *ret_body) {
    if (r->error != 0 || cnk_reader_left(r) == 0) return false;
    *ret_kind = cnk_read_le16(r);
    *ret_version = cnk_read_le16(r);
    uint32_t len = cnk_read_le32(r);
    const uint8_t *p = cnk_read_bytes(r, len);
    if (r->error != 0) return false;
    *ret_body = cnk_reader_of(p, len);
    return true;
}

static size_t record_open(cnk_writer *w, uint16_t kind) {
    cnk_write_le16(w, kind);
    cnk_write_le16(w, RECORD_VERSION);
    size_t at = w->len;
    cnk_write_le32(w, 0);
    return at;
}

static void record_close(cnk_writer *w, size_t at) {
    if (w->error == 0) cnk_store_le32(w->data + at, (uint32_t)(w->len - at - 4));
}

static void write_uuid(cnk_writer *w, const cnk_uuid *id) { cnk_write_bytes(w, id->bytes, sizeof id->bytes); }

static cnk_uuid read_uuid(cnk_reader *r) {
    cnk_uuid id = {{0}};
    const uint8_t *p = cnk_read_bytes(r, sizeof id.bytes);
    if (p) memcpy(id.bytes, p, sizeof id.bytes);
    return id;
}

/* partitions NULL: those of the spec, with streams from first_stream on. */
static void write_topic(cnk_writer *w, const cnk_meta_topic_spec *spec, unsigned flags, uint32_t epoch_floor,
                        const cnk_meta_partition *partitions, uint64_t first_stream) {
    size_t at = record_open(w, RECORD_TOPIC);
    const int32_t *nodes = spec->replicas;
    write_uuid(w, &spec->id);
    cnk_write_u8(w, (uint8_t)flags);
    cnk_write_le32(w, epoch_floor);
    cnk_write_le16(w, (uint16_t)spec->name_len);
    cnk_write_bytes(w, spec->name, spec->name_len);
    cnk_write_le32(w, (uint32_t)spec->partition_count);
    if (partitions) write_partitions(w, partitions, spec->partition_count);
    for (int32_t i = 0; !partitions && i < spec->partition_count; i++) {
        cnk_meta_partition p = {.stream = first_stream + (uint64_t)i, .replica_count = spec->replica_counts[i]};
        memcpy(p.replicas, nodes, p.replica_count * sizeof *nodes);
        write_partitions(w, &p, 1);
        nodes += p.replica_count;
    }
    write_configs(w, spec->configs, spec->config_count);
    record_close(w, at);
}

static void write_partitions(cnk_writer *w, const cnk_meta_partition *partitions, int32_t count) {
    for (int32_t i = 0; i < count; i++) {
        cnk_write_le64(w, partitions[i].stream);
        cnk_write_u8(w, partitions[i].replica_count);
        for (unsigned n = 0; n < partitions[i].replica_count; n++)
            cnk_write_le32(w, (uint32_t)partitions[i].replicas[n]);
    }
}

static void write_configs(cnk_writer *w, const cnk_meta_config *configs, size_t count) {
    cnk_write_le32(w, (uint32_t)count);
    for (size_t i = 0; i < count; i++) {
        size_t name_len = strlen(configs[i].name), value_len = strlen(configs[i].value);
        cnk_write_le16(w, (uint16_t)name_len);
        cnk_write_bytes(w, configs[i].name, name_len);
        cnk_write_le32(w, (uint32_t)value_len);
        cnk_write_bytes(w, configs[i].value, value_len);
    }
}
