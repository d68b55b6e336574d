/* Proves the broker below the socket by simulation: clients create, change and delete topics, get producer ids, cut logs, produce with
 * and without idempotence, several batches in flight and each sent again after a timeout or a crash, fetch hot and cold
 * data and list offsets, on WAL files so small that packs, checkpoints and recycling happen all the time; with crashes,
 * power cuts, failed calls, small disks and orderly stops between them, and another number of shards at each start.
 *
 *     sim_broker [--seeds N] [--from S] [--bug NAME] [--trace] [--coverage] [--keep-going]
 *
 * The model knows for each topic ever made what record stands at
 * each offset, as far as an acknowledgement or an answer has told. All bytes of a batch follow from the seed and the
 * batch's number, which is in its base timestamp. Held against it, at each answer, after each start and at the end:
 *  - an acknowledged record is at its offset; of an idempotent producer each batch is there once, its sequences dense;
 *  - what was read once never changes, and goes only where it was deleted, which it is for good once that is acknowledged;
 *    offsets are dense; the high watermark never falls below what was served;
 *  - leader epochs ascend, also when a topic is made again under its name;
 *  - topics that were deleted are gone, and those made again are empty and have new ids and streams;
 *  - acknowledged topics, their partitions and their settings, are there, and what was asked for and not answered is
 *    there whole or not at all; producer ids are never given twice;
 *  - the space of deleted topics comes back;
 *  - at rest, a fetch waits only where there is no data.
 * With --bug a known mistake is put back; the run then succeeds when it is found, and says after how many seeds.
 *
 * Exit code 0: all seeds clean (or the bug found). The last line is `N passed, M failed`. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/crc32c.h"
#include "base/map.h"
#include "base/rng.h"
#include "broker/broker.h"
#include "codec/codec.h"
#include "record/record.h"
#include "sim/node_sim.h"
#include "wal/internal.h"

enum {
    NAMES = 4,
    PARTITIONS_MAX = 6,
    PARTITIONS_MADE = 4, /* at once; the rest is added */
    UNSURE_MAX = 6,
    CLIENTS = 4,
    QUEUE_MAX = 5, /* batches of a lane that are not acknowledged: Kafka's max.in.flight.requests */
    INCARNATIONS_MAX = 400,
    BATCHES_MAX = 60000,
    CALLS_MIN = 600,
    WORLDS_MIN = 5,
    WORLDS_MAX = 40,
    PARTS_MAX = 3,
    HELD_MAX = 6,
    TAIL_ROUNDS = 12, /* of readers that wait, at each rest */
    TAIL_WAIT_MS = 4000
};
#define T0 INT64_C(1500000000000) /* the base timestamp of batch n is T0 + 16 n */

typedef struct cell { /* what stands at an offset */
    uint32_t batch;   /* 0: not known yet */
    uint32_t crc;     /* as read; 0 with epoch 0: only acknowledged so far */
    int32_t epoch;
    uint16_t record;
} cell;

typedef struct log_model {
    cell *cells;
    int64_t capacity, high_watermark; /* the highest that was served or acknowledged */
    int64_t start, start_unsure;      /* acknowledged; and the highest that was asked for, which may have happened */
    int32_t epoch;                    /* of its leader, the last one seen */
} log_model;

typedef struct incarnation { /* a topic, from its creation to its deletion */
    cnk_uuid id;
    int name, partitions;
    int partitions_unsure; /* so many were asked for, and may come */
    uint32_t bytes_max, unsure[UNSURE_MAX]; /* its setting, and those that were asked for without an answer */
    int unsure_count;
    bool late; /* one of them had no time to wait for its answer, and may come after later ones */
    uint64_t born; /* the tick at which its creation was asked for */
    bool doomed;   /* its deletion was asked for, and may have happened */
    bool dead;
    log_model logs[PARTITIONS_MAX];
} incarnation;

typedef struct topic_name {
    char text[24];
    incarnation *now;     /* NULL: there is none, or none that we know of */
    bool creating;        /* a creation was asked for, and may have happened */
    uint64_t created_at;  /* the tick at which it was first asked for */
    uint32_t created_max; /* the settings asked for */
    bool admin;           /* an operation on it is under way */
    int32_t epochs[PARTITIONS_MAX];
} topic_name;

typedef struct batch {
    uint8_t name, partition, client, codec;
    uint16_t count;
    uint32_t value_len;
    int64_t producer_id;
    int32_t sequence;
    unsigned ordinal; /* within its lane */
    unsigned pending, attempts, found; /* found: in the scan under way */
    uint64_t active; /* the tick at which it was last under way */
    incarnation *place;
    int64_t offset;
    bool acked;
} batch;

typedef struct lane { /* a client's way to a partition, with a producer of its own */
    incarnation *topic;
    int64_t producer_id; /* -1: none yet */
    bool asking;
    unsigned generation;
    int32_t next_sequence;
    unsigned next_ordinal;
    uint32_t queue[QUEUE_MAX];
    int queued;
} lane;

typedef struct client {
    unsigned shard;
    bool idempotent;
    lane lanes[NAMES][PARTITIONS_MAX];
} client;

typedef enum kind { PRODUCE, FETCH, LIST, CREATE, DELETE, INIT, GROW, ALTER, CUT } kind;

typedef struct operation operation;
struct operation {
    operation *next;
    kind kind;
    unsigned shard;
    int client, name, part_count;
    bool over, held, ended;
    bool tail; /* a fetch that wants only what comes */
    int rc;
    unsigned generation;
    uint32_t held_crc;
    incarnation *topics[PARTS_MAX];
    bool by_id[PARTS_MAX], first[PARTS_MAX]; /* first: all that its producer sent before was acknowledged already */
    uint32_t batches[PARTS_MAX];
    unsigned generations[PARTS_MAX];
    int64_t high_watermarks[PARTS_MAX]; /* known when it was started */
    int64_t starts[PARTS_MAX];          /* likewise */
    uint8_t *data[PARTS_MAX];
    lane *lane;
    char value[16];
    cnk_produce produce;
    cnk_produce_part produce_parts[PARTS_MAX];
    cnk_fetch fetch;
    cnk_fetch_part fetch_parts[PARTS_MAX];
    cnk_list_offsets list;
    cnk_list_offsets_part list_parts[PARTS_MAX];
    cnk_create_topics create;
    cnk_create_topic create_topic;
    cnk_topic_setting setting;
    cnk_delete_topics delete_;
    cnk_delete_topic delete_topic;
    cnk_init_producer init;
    cnk_create_partitions grow;
    cnk_grow_topic grow_topic;
    cnk_alter_configs alter;
    cnk_alter_topic alter_topic;
    cnk_delete_records cut;
    cnk_delete_records_part cut_part;
};

typedef struct sim {
    uint64_t seed, tick;
    cnk_rng rng;
    sim_node node;
    unsigned here; /* whose callback runs */
    topic_name names[NAMES];
    client clients[CLIENTS];
    incarnation *incarnations[INCARNATIONS_MAX];
    int incarnation_count;
    batch *batches;
    uint32_t batch_count;
    cnk_map producer_ids, streams; /* every one that was ever given */
    operation *operations;
} sim;

static sim *the_sim;
static struct {
    uint64_t produced, acked, duplicates, read, topics, deleted, packs, scans, refused, grown, altered, cut;
} totals;

#define violation(t, ...) sim_node_wrong(&(t)->node, __VA_ARGS__)
#define say(t, ...) sim_node_say(&(t)->node, __VA_ARGS__)

static uint64_t below(sim *t, uint64_t n) { return cnk_rng_below(&t->rng, n); }
static bool chance(sim *t, uint32_t a, uint32_t b) { return cnk_rng_chance(&t->rng, a, b); }
static bool dead(const sim *t) { return sim_node_dead(&t->node); }

/* ---- batches ---------------------------------------------------------------------------------------------------- */

static void build(const sim *t, uint32_t number, cnk_writer *out) {
    const batch *b = &t->batches[number];
    cnk_batch_builder builder;
    cnk_rng rng;
    uint8_t *value = malloc(b->value_len + 1);
    cnk_rng_seed(&rng, t->seed * 1000003 + number);
    cnk_batch_builder_init(&builder, b->codec, CNK_CODEC_LEVEL_DEFAULT, 0);
    if (b->producer_id >= 0) cnk_batch_builder_producer(&builder, b->producer_id, 0, b->sequence);
    else cnk_batch_builder_producer(&builder, -1, -1, -1);
    for (int i = 0; i < b->count; i++) {
        cnk_rng_fill(&rng, value, b->value_len);
        cnk_record_spec r = {.timestamp = T0 + 16 * (int64_t)number + i % 16, .value = value, .value_len = b->value_len};
        if (cnk_batch_builder_add(&builder, &r)) abort();
    }
    cnk_writer_growing(out, 0);
    if (cnk_batch_builder_finish(&builder, out)) abort();
    cnk_batch_builder_free(&builder);
    free(value);
}

static uint32_t batch_new(sim *t, int c, int name, int partition, const lane *l) {
    if (t->batch_count + 1 >= BATCHES_MAX) return 0;
    batch *b = &t->batches[++t->batch_count];
    *b = (batch){.name = (uint8_t)name, .partition = (uint8_t)partition, .client = (uint8_t)c, .offset = -1};
    b->count = (uint16_t)(1 + below(t, chance(t, 1, 6) ? 30 : 4));
    b->codec = chance(t, 1, 6) ? CNK_CODEC_LZ4 : CNK_CODEC_NONE;
    b->value_len = (uint32_t)below(t, chance(t, 1, 25) && b->count < 5 ? 30000 : chance(t, 1, 3) ? 3000 : 200);
    b->producer_id = l->producer_id;
    b->sequence = l->next_sequence;
    return t->batch_count;
}

/* ---- the model -------------------------------------------------------------------------------------------------- */

static const char *label(const sim *t, const incarnation *i, int partition) {
    static char buf[4][48];
    static int at;
    at = (at + 1) % 4;
    snprintf(buf[at], sizeof buf[at], "%s-%d (id %02x%02x%02x%02x)", t->names[i->name].text, partition, i->id.bytes[0],
             i->id.bytes[1], i->id.bytes[2], i->id.bytes[3]);
    return buf[at];
}

static cell *cell_at(log_model *l, int64_t offset) {
    if (offset >= l->capacity) {
        int64_t capacity = l->capacity ? l->capacity : 64;
        while (capacity <= offset) capacity *= 2;
        l->cells = realloc(l->cells, (size_t)capacity * sizeof *l->cells);
        memset(l->cells + l->capacity, 0, (size_t)(capacity - l->capacity) * sizeof *l->cells);
        l->capacity = capacity;
    }
    return &l->cells[offset];
}

static void watermark(log_model *l, int64_t high) {
    if (high > l->high_watermark) l->high_watermark = high;
}

/* The batch stands at the offset: says an acknowledgement, or an answer. */
static void placed(sim *t, incarnation *i, int partition, uint32_t number, int64_t offset, const char *says) {
    batch *b = &t->batches[number];
    log_model *l = &i->logs[partition];
    if (offset < 0 || offset > 10000000) {
        violation(t, "%s: %s says that batch %u is at offset %lld", label(t, i, partition), says, number, (long long)offset);
        return;
    }
    for (int n = 0; n < b->count; n++) {
        cell *c = cell_at(l, offset + n);
        if (c->batch != 0 && (c->batch != number || c->record != n)) {
            violation(t, "%s: offset %lld holds record %d of batch %u (client %d, sequence %d), says %s, but it was record %u of "
                         "batch %u (%s)", label(t, i, partition), (long long)offset + n, n, number, b->client, b->sequence, says,
                      c->record, c->batch, c->epoch ? "read" : "acknowledged");
            return;
        }
        c->batch = number;
        c->record = (uint16_t)n;
    }
    if (b->producer_id >= 0 && b->place == i && b->offset != offset)
        violation(t, "%s: batch %u of producer %lld, sequence %d, is at offset %lld and at %lld", label(t, i, partition),
                  number, (long long)b->producer_id, b->sequence, (long long)b->offset, (long long)offset);
    b->place = i;
    b->offset = offset;
}

static void epoch_seen(sim *t, incarnation *i, int partition, int32_t epoch, const char *says) {
    topic_name *name = &t->names[i->name];
    if (epoch < name->epochs[partition])
        violation(t, "%s: leader epoch %d, says %s, after %d", label(t, i, partition), epoch, says, name->epochs[partition]);
    name->epochs[partition] = i->logs[partition].epoch = epoch;
}

/* A batch as an answer has it. false: it is wrong. */
static bool check_batch(sim *t, incarnation *i, int partition, const cnk_batch *got) {
    log_model *l = &i->logs[partition];
    int64_t number = (got->base_timestamp - T0) / 16;
    const char *where = label(t, i, partition);
    if (got->base_timestamp < T0 || number == 0 || number > t->batch_count) {
        violation(t, "%s: offset %lld: a batch that nobody sent", where, (long long)got->base_offset);
        return false;
    }
    batch *b = &t->batches[number];
    if (b->name != i->name || b->partition != partition) {
        violation(t, "%s: offset %lld: a batch for another partition", where, (long long)got->base_offset);
        return false;
    }
    if (b->pending == 0 && b->active < i->born) {
        violation(t, "%s: offset %lld: batch %lld was sent before the topic was made", where, (long long)got->base_offset,
                  (long long)number);
        return false;
    }
    cnk_writer same;
    build(t, (uint32_t)number, &same);
    bool equal = same.len == got->len && got->crc != 0 &&
                 memcmp(same.data + CNK_BATCH_CRC_FROM - 4, got->data + CNK_BATCH_CRC_FROM - 4, got->len - CNK_BATCH_CRC_FROM + 4) == 0;
    cnk_writer_free(&same);
    if (!equal) {
        violation(t, "%s: offset %lld: other bytes than were sent", where, (long long)got->base_offset);
        return false;
    }
    placed(t, i, partition, (uint32_t)number, got->base_offset, "an answer");
    if (t->node.failed) return false;
    if (got->leader_epoch > t->names[i->name].epochs[partition] || got->leader_epoch < 1) {
        violation(t, "%s: offset %lld has leader epoch %d, its leader %d", where, (long long)got->base_offset,
                  got->leader_epoch, t->names[i->name].epochs[partition]);
        return false;
    }
    for (int n = 0; n < b->count; n++) {
        cell *c = &l->cells[got->base_offset + n];
        if (c->epoch != 0 && (c->epoch != got->leader_epoch || c->crc != got->crc)) {
            violation(t, "%s: offset %lld was read with epoch %d, and now with %d", where, (long long)got->base_offset,
                      c->epoch, got->leader_epoch);
            return false;
        }
        c->epoch = got->leader_epoch;
        c->crc = got->crc;
    }
    totals.read++;
    return true;
}

static incarnation *incarnation_new(sim *t, int name, const cnk_uuid *id, int partitions, uint32_t bytes_max) {
    for (int n = 0; n < t->incarnation_count; n++)
        if (cnk_uuid_equal(&t->incarnations[n]->id, id)) {
            violation(t, "topic %s has the id that topic %s had", t->names[name].text,
                      t->names[t->incarnations[n]->name].text);
            return NULL;
        }
    if (t->incarnation_count == INCARNATIONS_MAX) abort();
    incarnation *i = calloc(1, sizeof *i);
    t->incarnations[t->incarnation_count++] = i;
    i->name = name;
    i->id = *id;
    i->partitions = i->partitions_unsure = partitions;
    i->bytes_max = bytes_max;
    i->born = t->names[name].created_at;
    t->names[name].now = i;
    t->names[name].creating = false;
    totals.topics++;
    return i;
}

static void incarnation_dead(sim *t, incarnation *i) {
    i->dead = i->doomed = true;
    if (t->names[i->name].now == i) t->names[i->name].now = NULL;
    totals.deleted++;
}

static cnk_text name_text(const sim *t, int name) {
    return (cnk_text){t->names[name].text, strlen(t->names[name].text)};
}

/* What was asked for and not answered has happened, or has not. */
static void settle(sim *t, const cnk_meta_topic *topic, incarnation *i) {
    for (int n = 0; n < i->unsure_count; n++)
        if (topic->settings.max_message_bytes == i->unsure[n]) i->bytes_max = i->unsure[n];
    for (; i->partitions < topic->partition_count && i->partitions < i->partitions_unsure; i->partitions++) {
        uint64_t stream = topic->partitions[i->partitions].stream;
        if (cnk_map_get(&t->streams, stream))
            violation(t, "%s: stream %llu was used before", label(t, i, i->partitions), (unsigned long long)stream);
        if (cnk_map_put(&t->streams, stream, t)) abort();
        int32_t epoch = atomic_load(&topic->partitions[i->partitions].leader->epoch);
        if (epoch > 0) epoch_seen(t, i, i->partitions, epoch, "the metadata");
    }
}

/* Of a topic that is there: is it what was asked for? `fresh`: nobody has seen it under this start. */
static void check_topic(sim *t, const cnk_meta_image *image, incarnation *i, bool fresh, bool is_new) {
    const topic_name *name = &t->names[i->name];
    const cnk_meta_topic *topic = cnk_meta_topic_by_name(image, name->text, strlen(name->text));
    if (!topic) {
        violation(t, "topic %s is not there", name->text);
        return;
    }
    const int known = i->partitions; /* the epochs of what is found only now have been looked at */
    settle(t, topic, i);
    if (fresh) { /* nothing is under way, but for partitions that are still to come up */
        i->unsure_count = 0;
        i->late = false;
        i->partitions_unsure = topic->partition_total;
    }
    if (!cnk_uuid_equal(&topic->id, &i->id) || topic->partition_count != i->partitions ||
        topic->settings.max_message_bytes != i->bytes_max) {
        violation(t, "topic %s has another id, partition count (%d, was %d) or setting (%u, was %u)", name->text,
                  topic->partition_count, i->partitions, topic->settings.max_message_bytes, i->bytes_max);
        return;
    }
    for (int p = 0; p < known && fresh; p++) {
        int32_t epoch = atomic_load(&topic->partitions[p].leader->epoch), node = atomic_load(&topic->partitions[p].leader->node);
        if (is_new && cnk_map_get(&t->streams, topic->partitions[p].stream))
            violation(t, "%s: stream %llu was used before", label(t, i, p), (unsigned long long)topic->partitions[p].stream);
        if (node != t->node.options.node_id) {
            if (!t->node.faulty && !t->node.tight && !t->node.fenced) violation(t, "%s has no leader", label(t, i, p));
            continue;
        }
        if (epoch <= name->epochs[p])
            violation(t, "%s: leader epoch %d after %d", label(t, i, p), epoch, name->epochs[p]);
        else
            epoch_seen(t, i, p, epoch, "the metadata");
    }
    for (int p = 0; p < i->partitions && is_new; p++)
        if (cnk_map_put(&t->streams, topic->partitions[p].stream, t)) abort();
}

/* What the metadata say now of a name whose fate we did not hear. `sure`: nothing is under way. */
static void resolve(sim *t, int n, bool started) {
    topic_name *name = &t->names[n];
    const cnk_meta_image *image = cnk_shard_image(cnk_broker_shard(t->node.broker, 0));
    const cnk_meta_topic *topic = cnk_meta_topic_any(image, name->text, strlen(name->text));
    incarnation *i = name->now;
    if (topic && !topic->online) {
        if (i && !i->doomed) violation(t, "topic %s was online, and is not", name->text);
        return; /* a start does not wait for those that were being created */
    }
    if (i && i->doomed && (!topic || !cnk_uuid_equal(&topic->id, &i->id))) {
        say(t, "%s is found to be deleted", name->text);
        incarnation_dead(t, i);
        i = NULL;
    }
    if (i) {
        i->doomed = i->doomed && !started;
        check_topic(t, image, i, started, false);
        return;
    }
    if (!topic) {
        if (started) name->creating = false;
        return;
    }
    if (!name->creating) {
        violation(t, "topic %s is there, but was deleted, or never made", name->text);
        return;
    }
    for (unsigned s = 1; s < t->node.shards; s++) /* nobody was told: a shard may hear of it later */
        if (!cnk_meta_topic_by_id(cnk_shard_image(cnk_broker_shard(t->node.broker, s)), &topic->id)) return;
    say(t, "%s is found to be there", name->text);
    i = incarnation_new(t, n, &topic->id, topic->partition_count, name->created_max);
    if (i) check_topic(t, image, i, true, true);
}

/* ---- operations ------------------------------------------------------------------------------------------------- */

static operation *operation_new(sim *t, kind what, unsigned shard) {
    operation *o = calloc(1, sizeof *o);
    o->kind = what;
    o->shard = shard;
    o->next = t->operations;
    t->operations = o;
    return o;
}

static void operation_free(operation *o) {
    for (int n = 0; n < PARTS_MAX; n++) free(o->data[n]);
    free(o);
}

static incarnation *pick_topic(sim *t, int *ret_name) {
    int name = (int)below(t, NAMES);
    *ret_name = name;
    return t->names[name].now;
}

/* By name it may have been another topic's business. */
static bool certain(const sim *t, const operation *o, int n) {
    const incarnation *i = o->topics[n];
    return o->by_id[n] || (t->names[i->name].now == i);
}

/* Errors that a client must expect where nothing is wrong with the data. */
static bool expected(const sim *t, const incarnation *i, int error) {
    if (error == CHRONIK_EUNKNOWNTOPIC || error == CHRONIK_EUNKNOWNTOPICID) return i == NULL || i->doomed;
    if (error == CHRONIK_ESHUTDOWN) return t->node.stopping;
    if (error == CHRONIK_ESTORAGE || error == CHRONIK_EIO || error == CHRONIK_ENOSPC || error == CHRONIK_EFENCED)
        return t->node.faulty || t->node.tight || t->node.fenced;
    return error == CHRONIK_ECANCELED;
}

/* ---- produce ---------------------------------------------------------------------------------------------------- */

static lane *lane_of(sim *t, int c, int name, int partition) { return &t->clients[c].lanes[name][partition]; }

static void lane_reset(lane *l, incarnation *topic) {
    l->topic = topic;
    l->producer_id = -1;
    l->next_sequence = 0;
    l->next_ordinal = 0;
    l->queued = 0;
    l->asking = false;
    l->generation++;
}

static void queue_remove(lane *l, uint32_t number) {
    for (int n = 0; n < l->queued; n++)
        if (l->queue[n] == number) {
            memmove(&l->queue[n], &l->queue[n + 1], (size_t)(l->queued - n - 1) * sizeof *l->queue);
            l->queued--;
            return;
        }
}

static void produced(sim *t, operation *o, int n) {
    const cnk_produce_part *part = &o->produce_parts[n];
    uint32_t number = o->batches[n];
    batch *b = &t->batches[number];
    incarnation *i = o->topics[n];
    lane *l = lane_of(t, o->client, b->name, b->partition);
    bool mine = l->generation == o->generations[n], is_certain = certain(t, o, n);
    say(t, "batch %u: %s, offset %lld", number, part->error ? chronik_error_name(part->error) : "acknowledged",
        (long long)part->base_offset);
    b->pending--;
    b->active = t->tick;
    if (part->error == 0) {
        if (mine) queue_remove(l, number);
        if (o->produce.acks == 0 || !is_certain || i->dead) return; /* dead: its acknowledgement was on the way */
        totals.acked++;
        if (b->acked) totals.duplicates++;
        b->acked = true;
        placed(t, i, b->partition, number, part->base_offset, "its acknowledgement");
        watermark(&i->logs[b->partition], part->base_offset + b->count);
        return;
    }
    totals.refused++;
    if (!expected(t, is_certain ? i : NULL, part->error) && part->error != CHRONIK_ETIMEDOUT && part->error != CHRONIK_EAGAIN) {
        if (part->error == CHRONIK_EOUTOFORDER) {
            if (o->first[n] && is_certain)
                violation(t, "%s: batch %u, sequence %d of producer %lld, is the first that is not acknowledged, and refused as "
                             "out of order", label(t, i, b->partition), number, b->sequence, (long long)b->producer_id);
        } else {
            violation(t, "%s: batch %u: %s", label(t, i, b->partition), number, chronik_error_name(part->error));
        }
    }
    if (mine && b->producer_id < 0 && chance(t, 1, 2)) queue_remove(l, number);
}

/* The batches are in the WAL: nobody may look at the memory that they came in. */
static void on_taken(cnk_produce *op) {
    const operation *o = op->arg;
    for (int n = 0; n < o->part_count; n++) memset((void *)(uintptr_t)o->data[n], 0xdd, o->produce_parts[n].len);
}

static void on_produced(cnk_produce *op) {
    operation *o = op->arg;
    sim *t = the_sim;
    o->over = true;
    if (dead(t)) return;
    for (int n = 0; n < o->part_count; n++) produced(t, o, n);
}

static void start_init(sim *t, int c, lane *l);

/* The next batch of the lane: one that was refused, oldest first; else a new one. 0: none. */
static uint32_t lane_next(sim *t, int c, int name, int partition) {
    lane *l = lane_of(t, c, name, partition);
    for (int n = 0; n < l->queued; n++)
        if (t->batches[l->queue[n]].pending == 0) return l->queue[n];
    /* The broker remembers five batches: the next one must wait for the first of the five before it. */
    if (l->queued > 0 && l->next_ordinal - t->batches[l->queue[0]].ordinal >= QUEUE_MAX) return 0;
    uint32_t number = batch_new(t, c, name, partition, l);
    if (number == 0) return 0;
    l->next_sequence += t->batches[number].count;
    t->batches[number].ordinal = l->next_ordinal++;
    l->queue[l->queued++] = number;
    return number;
}

static void start_produce(sim *t) {
    int c = (int)below(t, CLIENTS);
    client *who = &t->clients[c];
    if (who->shard != t->here) return;
    operation *o = operation_new(t, PRODUCE, who->shard);
    o->client = c;
    for (int tries = 1 + (int)below(t, PARTS_MAX); tries > 0; tries--) {
        int name, n = o->part_count;
        incarnation *i = pick_topic(t, &name);
        if (!i) continue;
        int partition = (int)below(t, (uint64_t)i->partitions);
        lane *l = lane_of(t, c, name, partition);
        if (l->topic != i || chance(t, 1, 300)) lane_reset(l, i);
        if (who->idempotent && l->producer_id < 0) {
            if (!l->asking) start_init(t, c, l);
            continue;
        }
        uint32_t number = lane_next(t, c, name, partition);
        if (number == 0) continue;
        batch *b = &t->batches[number];
        b->pending++;
        b->attempts++;
        b->active = t->tick;
        o->topics[n] = i;
        o->batches[n] = number;
        o->generations[n] = l->generation;
        o->by_id[n] = chance(t, 1, 3);
        o->first[n] = l->queue[0] == number;
        cnk_writer w;
        build(t, number, &w);
        o->data[n] = malloc(w.len);
        memcpy(o->data[n], w.data, w.len);
        o->produce_parts[n] = (cnk_produce_part){.partition = partition, .data = o->data[n], .len = (uint32_t)w.len};
        if (o->by_id[n]) o->produce_parts[n].topic_id = i->id;
        else o->produce_parts[n].topic = name_text(t, name);
        cnk_writer_free(&w);
        o->part_count++;
        totals.produced++;
        say(t, "client %d sends batch %u (%u records, producer %lld, sequence %d) to %s", c, number, b->count,
            (long long)b->producer_id, b->sequence, label(t, i, partition));
    }
    if (o->part_count == 0) {
        o->over = true;
        return;
    }
    o->produce = (cnk_produce){.acks = who->idempotent || chance(t, 1, 2) ? -1 : chance(t, 1, 6) ? 0 : 1, .version = 13,
                               .timeout_ms = chance(t, 1, 3) ? (int32_t)below(t, 1000) : 30000, .parts = o->produce_parts,
                               .part_count = (size_t)o->part_count, .done = on_produced, .arg = o};
    if (chance(t, 1, 2)) o->produce.taken = on_taken;
    o->rc = cnk_broker_produce(cnk_broker_shard(t->node.broker, o->shard), &o->produce);
    if (o->rc == CNK_DONE) {
        on_produced(&o->produce);
    } else if (o->rc < 0) {
        for (int n = 0; n < o->part_count; n++) t->batches[o->batches[n]].pending--;
        o->over = true;
    } else if (!o->produce.data_needed) {
        on_taken(&o->produce);
    }
}

static void on_init(cnk_init_producer *op) {
    operation *o = op->arg;
    sim *t = the_sim;
    o->over = true;
    if (dead(t)) return;
    bool mine = o->lane->generation == o->generation;
    if (mine) o->lane->asking = false;
    if (op->error) {
        if (!expected(t, NULL, op->error) && op->error != CHRONIK_EAGAIN && op->error != CHRONIK_ENOTLEADER)
            violation(t, "a producer id is refused: %s", chronik_error_name(op->error));
        return;
    }
    uint64_t key = (uint64_t)op->ret_producer_id + 1;
    if (cnk_map_get(&t->producer_ids, key))
        violation(t, "producer id %lld is given twice", (long long)op->ret_producer_id);
    else if (cnk_map_put(&t->producer_ids, key, t))
        abort();
    if (mine) o->lane->producer_id = op->ret_producer_id;
}

static void start_init(sim *t, int c, lane *l) {
    operation *o = operation_new(t, INIT, t->clients[c].shard);
    o->lane = l;
    o->generation = l->generation;
    o->init = (cnk_init_producer){.producer_id = -1, .producer_epoch = -1, .done = on_init, .arg = o};
    l->asking = true;
    o->rc = cnk_broker_init_producer(cnk_broker_shard(t->node.broker, o->shard), &o->init);
    if (o->rc == CNK_DONE) on_init(&o->init);
    if (o->rc < 0) {
        o->over = true;
        l->asking = false;
    }
}

/* ---- fetch ------------------------------------------------------------------------------------------------------ */

static uint32_t slices_crc(const operation *o) {
    uint32_t crc = 0;
    for (int n = 0; n < o->part_count; n++)
        for (size_t s = 0; s < o->fetch_parts[n].slice_count; s++)
            crc = cnk_crc32c(crc, o->fetch_parts[n].slices[s].iov_base, o->fetch_parts[n].slices[s].iov_len);
    return crc;
}

/* Returns the offset after what was read, -1: nothing. */
static int64_t check_slices(sim *t, incarnation *i, const cnk_fetch_part *part) {
    int64_t next = -1;
    uint64_t bytes = 0;
    for (size_t s = 0; s < part->slice_count && !t->node.failed; s++)
        for (size_t at = 0; at < part->slices[s].iov_len && !t->node.failed;) {
            cnk_batch b;
            const uint8_t *p = (const uint8_t *)part->slices[s].iov_base + at;
            if (cnk_batch_parse(p, part->slices[s].iov_len - at, &b)) {
                violation(t, "%s: offset %lld: what is read is no batch", label(t, i, part->partition), (long long)part->offset);
                return -1;
            }
            /* A cut while it was read: any of what was cut may be missing. */
            const bool was_cut = b.base_offset > (next < 0 ? part->offset : next) &&
                                 b.base_offset <= i->logs[part->partition].start_unsure;
            if (!was_cut && (next < 0 ? b.base_offset > part->offset || b.base_offset + b.last_offset_delta < part->offset
                                      : b.base_offset != next))
                violation(t, "%s: a fetch from %lld goes on with %lld after %lld", label(t, i, part->partition),
                          (long long)part->offset, (long long)b.base_offset, (long long)next);
            if (!t->node.failed) check_batch(t, i, part->partition, &b);
            next = b.base_offset + b.last_offset_delta + 1;
            at += b.len;
            bytes += b.len;
        }
    if (!t->node.failed && bytes != part->bytes) violation(t, "%s: bytes are miscounted", label(t, i, part->partition));
    if (!t->node.failed && next > part->high_watermark)
        violation(t, "%s: offset %lld is served, above the high watermark %lld", label(t, i, part->partition),
                  (long long)next - 1, (long long)part->high_watermark);
    return next;
}

static void fetched(sim *t, operation *o, int n) {
    const cnk_fetch_part *part = &o->fetch_parts[n];
    incarnation *i = o->topics[n];
    if (!certain(t, o, n)) return;
    const char *where = label(t, i, part->partition);
    if (part->error == CHRONIK_EOFFSETRANGE) {
        if (part->offset <= o->high_watermarks[n] && part->offset >= i->logs[part->partition].start_unsure && !i->doomed)
            violation(t, "%s: offset %lld is out of range, the high watermark was %lld", where, (long long)part->offset,
                      (long long)o->high_watermarks[n]);
        return;
    }
    if (part->error) {
        if (!expected(t, i, part->error))
            violation(t, "%s: fetching offset %lld: %s", where, (long long)part->offset, chronik_error_name(part->error));
        return;
    }
    if (i->dead && o->high_watermarks[n] < 0) violation(t, "%s: a deleted topic is served", where);
    if (part->high_watermark < o->high_watermarks[n])
        violation(t, "%s: high watermark %lld, after %lld was served or acknowledged", where, (long long)part->high_watermark,
                  (long long)o->high_watermarks[n]);
    const log_model *l = &i->logs[part->partition];
    if (part->log_start_offset < o->starts[n] || part->log_start_offset > l->start_unsure)
        violation(t, "%s: the log starts at %lld, not from %lld to %lld", where, (long long)part->log_start_offset,
                  (long long)o->starts[n], (long long)l->start_unsure);
    if (part->offset < o->starts[n])
        violation(t, "%s: offset %lld is served, and all before %lld was deleted", where, (long long)part->offset,
                  (long long)o->starts[n]);
    (void)check_slices(t, i, part);
    watermark(&i->logs[part->partition], part->high_watermark);
}

static void on_fetched(cnk_fetch *op) {
    operation *o = op->arg;
    sim *t = the_sim;
    o->over = true;
    if (!dead(t)) {
        for (int n = 0; n < o->part_count; n++) fetched(t, o, n);
        if (chance(t, 1, 4) && !t->node.stopping) {
            o->held = true;
            o->held_crc = slices_crc(o);
            return;
        }
    }
    if (o->ended && !dead(t)) return; /* whoever started it wants to look */
    cnk_broker_fetch_end(op);
}

static void fetch_part(sim *t, operation *o, incarnation *i, int partition, int64_t offset, uint32_t bytes_max) {
    int n = o->part_count++;
    o->topics[n] = i;
    o->by_id[n] = chance(t, 1, 3);
    o->high_watermarks[n] = i->dead ? -1 : i->logs[partition].high_watermark;
    o->starts[n] = i->logs[partition].start;
    o->fetch_parts[n] = (cnk_fetch_part){.partition = partition, .leader_epoch = -1, .offset = offset, .bytes_max = bytes_max};
    if (o->by_id[n]) o->fetch_parts[n].topic_id = i->id;
    else o->fetch_parts[n].topic = name_text(t, i->name);
}

static void run_fetch(void *arg) {
    operation *o = arg;
    o->rc = cnk_broker_fetch(cnk_broker_shard(the_sim->node.broker, o->shard), &o->fetch);
    if (o->rc == CNK_DONE) on_fetched(&o->fetch);
    if (o->rc < 0) o->over = true;
}

static void start_fetch(sim *t) {
    operation *o = operation_new(t, FETCH, t->here);
    for (int tries = 1 + (int)below(t, PARTS_MAX); tries > 0; tries--) {
        int name;
        incarnation *i = pick_topic(t, &name);
        if (chance(t, 1, 20) && t->incarnation_count > 0) { /* a dead one, perhaps */
            i = t->incarnations[below(t, (uint64_t)t->incarnation_count)];
            if (i->dead) {
                fetch_part(t, o, i, 0, 0, 1000);
                o->by_id[o->part_count - 1] = true;
                o->fetch_parts[o->part_count - 1].topic = (cnk_text){NULL, 0};
                o->fetch_parts[o->part_count - 1].topic_id = i->id;
                continue;
            }
        }
        if (!i) continue;
        int partition = (int)below(t, (uint64_t)i->partitions);
        int64_t high = i->logs[partition].high_watermark;
        int64_t offset = chance(t, 1, 3) ? high : (int64_t)below(t, (uint64_t)high + (chance(t, 1, 10) ? 3 : 1));
        if (offset < i->logs[partition].start && chance(t, 4, 5)) offset = i->logs[partition].start;
        fetch_part(t, o, i, partition, offset, (uint32_t)below(t, chance(t, 1, 2) ? 5000 : 100000));
    }
    if (o->part_count == 0) {
        o->over = true;
        return;
    }
    o->fetch = (cnk_fetch){.max_wait_ms = chance(t, 1, 2) ? 0 : (int32_t)below(t, 3000), .min_bytes = 1 + (uint32_t)below(t, 3000),
                           .bytes_max = 1 + (uint32_t)below(t, 200000), .first = below(t, (uint64_t)o->part_count),
                           .parts = o->fetch_parts, .part_count = (size_t)o->part_count, .done = on_fetched, .arg = o};
    run_fetch(o);
}

/* Of a reader who has all that is there. */
static void start_tail_fetch(sim *t) {
    operation *o = operation_new(t, FETCH, t->here);
    o->tail = true;
    for (int tries = 1 + (int)below(t, PARTS_MAX); tries > 0; tries--) {
        int name;
        incarnation *i = pick_topic(t, &name);
        if (!i) continue;
        int partition = (int)below(t, (uint64_t)i->partitions);
        fetch_part(t, o, i, partition, i->logs[partition].high_watermark, 100000);
    }
    if (o->part_count == 0) {
        o->over = true;
        return;
    }
    o->fetch = (cnk_fetch){.max_wait_ms = TAIL_WAIT_MS, .min_bytes = 1, .bytes_max = 300000, .parts = o->fetch_parts,
                           .part_count = (size_t)o->part_count, .done = on_fetched, .arg = o};
    run_fetch(o);
}

static void run_fetch_end(void *arg) {
    operation *o = arg;
    sim *t = the_sim;
    if (!dead(t) && slices_crc(o) != o->held_crc)
        violation(t, "%s: an answer has changed while it was held", label(t, o->topics[0], o->fetch_parts[0].partition));
    cnk_broker_fetch_end(&o->fetch);
    o->held = false;
}

/* ---- list offsets ----------------------------------------------------------------------------------------------- */

static void listed(sim *t, operation *o, int n) {
    const cnk_list_offsets_part *part = &o->list_parts[n];
    incarnation *i = o->topics[n];
    if (!certain(t, o, n) || i->dead) return;
    log_model *l = &i->logs[part->partition];
    const char *where = label(t, i, part->partition);
    if (part->error) {
        if (!expected(t, i, part->error)) violation(t, "%s: listing offsets: %s", where, chronik_error_name(part->error));
        return;
    }
    if (part->timestamp == CNK_OFFSET_LATEST) {
        if (part->offset < o->high_watermarks[n])
            violation(t, "%s: the latest offset is %lld, after %lld", where, (long long)part->offset,
                      (long long)o->high_watermarks[n]);
        watermark(l, part->offset);
    } else if (part->timestamp == CNK_OFFSET_EARLIEST) {
        if (part->offset < o->starts[n] || part->offset > l->start_unsure)
            violation(t, "%s: the earliest offset is %lld, not from %lld to %lld", where, (long long)part->offset,
                      (long long)o->starts[n], (long long)l->start_unsure);
    } else {
        if (part->offset >= 0 && part->offset < o->starts[n])
            violation(t, "%s: offset %lld is found by its timestamp, and was deleted", where, (long long)part->offset);
        int64_t end = part->offset < 0 ? o->high_watermarks[n] : part->offset;
        for (int64_t at = l->start_unsure; at <= end && at < l->capacity && !t->node.failed; at++) {
            const cell *c = &l->cells[at];
            int64_t timestamp = T0 + 16 * (int64_t)c->batch + c->record % 16;
            if (c->batch != 0 && at != part->offset && at < end && timestamp >= part->timestamp)
                violation(t, "%s: timestamp %lld is found at offset %lld, but stands at %lld", where,
                          (long long)part->timestamp, (long long)part->offset, (long long)at);
            if (c->batch != 0 && at == part->offset && timestamp < part->timestamp)
                violation(t, "%s: timestamp %lld is found at offset %lld, which has %lld", where, (long long)part->timestamp,
                          (long long)at, (long long)timestamp);
        }
    }
}

static void on_listed(cnk_list_offsets *op) {
    operation *o = op->arg;
    sim *t = the_sim;
    o->over = true;
    if (dead(t)) return;
    for (int n = 0; n < o->part_count; n++) listed(t, o, n);
}

static void list_offsets(sim *t, incarnation *one, int64_t timestamp) {
    operation *o = operation_new(t, LIST, t->here);
    for (int tries = one ? one->partitions : 1; tries > 0 && o->part_count < PARTS_MAX; tries--) {
        int name, n = o->part_count;
        incarnation *i = one ? one : pick_topic(t, &name);
        if (!i) continue;
        int partition = one ? tries - 1 : (int)below(t, (uint64_t)i->partitions);
        o->part_count++;
        o->topics[n] = i;
        o->high_watermarks[n] = i->logs[partition].high_watermark;
        o->starts[n] = i->logs[partition].start;
        o->list_parts[n] = (cnk_list_offsets_part){.topic = name_text(t, i->name), .partition = partition, .leader_epoch = -1,
                                                   .timestamp = timestamp};
        if (timestamp == 0) {
            uint64_t d = below(t, 5);
            o->list_parts[n].timestamp = d == 0   ? CNK_OFFSET_LATEST
                                         : d == 1 ? CNK_OFFSET_EARLIEST
                                                  : T0 + (int64_t)below(t, 16 * (uint64_t)t->batch_count + 17);
        }
    }
    if (o->part_count == 0) {
        o->over = true;
        return;
    }
    o->list = (cnk_list_offsets){.parts = o->list_parts, .part_count = (size_t)o->part_count, .done = on_listed, .arg = o};
    o->rc = cnk_broker_list_offsets(cnk_broker_shard(t->node.broker, o->shard), &o->list);
    if (o->rc == CNK_DONE) on_listed(&o->list);
    if (o->rc < 0) o->over = true;
}

static void start_list(sim *t) { list_offsets(t, NULL, 0); }

/* ---- topics ----------------------------------------------------------------------------------------------------- */

static void on_created(cnk_create_topics *op) {
    operation *o = op->arg;
    sim *t = the_sim;
    o->over = true;
    topic_name *name = &t->names[o->name];
    name->admin = false;
    if (dead(t)) return;
    int error = o->create_topic.error;
    say(t, "creating %s: %s", name->text, error ? chronik_error_name(error) : "done");
    if (error == CHRONIK_ETOPICEXISTS) {
        if (!name->now && !name->creating) violation(t, "topic %s cannot be made, for it is there, but it is not", name->text);
        return;
    }
    if (error) {
        if (!expected(t, NULL, error) && error != CHRONIK_ETIMEDOUT && error != CHRONIK_EAGAIN && error != CHRONIK_ENOTLEADER)
            violation(t, "creating topic %s: %s", name->text, chronik_error_name(error));
        return;
    }
    if (name->now && !name->now->doomed) {
        violation(t, "topic %s was made twice", name->text);
        return;
    }
    if (name->now) incarnation_dead(t, name->now);
    incarnation *i = incarnation_new(t, o->name, &o->create_topic.topic_id, o->create_topic.partitions, name->created_max);
    for (unsigned s = 0; i && s < t->node.shards; s++)
        check_topic(t, cnk_shard_image(cnk_broker_shard(t->node.broker, s)), i, s == 0, s == 0);
}

static void start_create(sim *t, int n) {
    topic_name *name = &t->names[n];
    operation *o = operation_new(t, CREATE, t->here);
    name->admin = true;
    o->name = n;
    if (!name->now && !name->creating) { /* a creation that may have happened, or still may, is asked for in the same words */
        name->created_at = ++t->tick;
        name->created_max = 600000 + (uint32_t)below(t, 400000);
        name->creating = true;
    }
    snprintf(o->value, sizeof o->value, "%u", name->created_max);
    o->setting = (cnk_topic_setting){{"max.message.bytes", 17}, {o->value, strlen(o->value)}};
    o->create_topic = (cnk_create_topic){.name = name_text(t, n), .partitions = 1 + (int32_t)below(t, PARTITIONS_MADE), .replication = -1,
                                         .settings = &o->setting, .setting_count = 1};
    o->create = (cnk_create_topics){.timeout_ms = chance(t, 1, 10) ? 0 : 20000, .topics = &o->create_topic, .topic_count = 1,
                                    .done = on_created, .arg = o};
    o->rc = cnk_broker_create_topics(cnk_broker_shard(t->node.broker, o->shard), &o->create);
    say(t, "create %s with %d partitions: %d", name->text, o->create_topic.partitions, o->rc);
    if (o->rc == CNK_DONE) on_created(&o->create);
    if (o->rc < 0) {
        o->over = true;
        name->admin = false;
    }
}

static void on_deleted(cnk_delete_topics *op) {
    operation *o = op->arg;
    sim *t = the_sim;
    o->over = true;
    topic_name *name = &t->names[o->name];
    incarnation *i = o->topics[0];
    name->admin = false;
    if (dead(t)) return;
    int error = o->delete_topic.error;
    say(t, "deleting %s: %s", name->text, error ? chronik_error_name(error) : "done");
    if (error == 0 || error == CHRONIK_EUNKNOWNTOPIC || error == CHRONIK_EUNKNOWNTOPICID) {
        if (error && o->generation == 0) violation(t, "topic %s cannot be deleted: it is unknown", name->text);
        incarnation_dead(t, i);
        for (unsigned s = 0; s < t->node.shards && error == 0; s++)
            if (cnk_meta_topic_any_by_id(cnk_shard_image(cnk_broker_shard(t->node.broker, s)), &i->id))
                violation(t, "topic %s is deleted, but shard %u still knows it", name->text, s);
        return;
    }
    if (!expected(t, NULL, error) && error != CHRONIK_ETIMEDOUT && error != CHRONIK_EAGAIN && error != CHRONIK_ENOTLEADER)
        violation(t, "deleting topic %s: %s", name->text, chronik_error_name(error));
}

static void start_delete(sim *t, int n) {
    topic_name *name = &t->names[n];
    operation *o = operation_new(t, DELETE, t->here);
    o->name = n;
    o->topics[0] = name->now;
    o->generation = name->now->doomed; /* asked before: it may be gone */
    name->admin = name->now->doomed = true;
    if (chance(t, 1, 2)) o->delete_topic.name = name_text(t, n);
    else o->delete_topic.topic_id = name->now->id;
    o->delete_ = (cnk_delete_topics){.timeout_ms = chance(t, 1, 10) ? 0 : 20000, .topics = &o->delete_topic, .topic_count = 1,
                                     .done = on_deleted, .arg = o};
    o->rc = cnk_broker_delete_topics(cnk_broker_shard(t->node.broker, o->shard), &o->delete_);
    say(t, "delete %s: %d", name->text, o->rc);
    if (o->rc == CNK_DONE) on_deleted(&o->delete_);
    if (o->rc < 0) {
        o->over = true;
        name->admin = false;
    }
}

static void on_grown(cnk_create_partitions *op) {
    operation *o = op->arg;
    sim *t = the_sim;
    o->over = true;
    incarnation *i = o->topics[0];
    t->names[o->name].admin = false;
    if (dead(t) || i->dead) return;
    int error = o->grow_topic.error;
    say(t, "%s, %d partitions: %s", t->names[o->name].text, o->grow_topic.count, error ? chronik_error_name(error) : "done");
    if (error) {
        if (error == CHRONIK_EINVALIDPARTITIONS && o->generation) return; /* asked before: they may have been there */
        if (!expected(t, i, error) && error != CHRONIK_ETIMEDOUT && error != CHRONIK_EAGAIN && error != CHRONIK_ENOTLEADER)
            violation(t, "adding partitions to %s: %s", t->names[o->name].text, chronik_error_name(error));
        return;
    }
    totals.grown++;
    for (unsigned s = 0; s < t->node.shards; s++) {
        const cnk_meta_topic *topic = cnk_meta_topic_any_by_id(cnk_shard_image(cnk_broker_shard(t->node.broker, s)), &i->id);
        if (!topic) {
            if (!i->doomed) violation(t, "topic %s is not there", t->names[o->name].text);
            return;
        }
        if (topic->partition_count < o->grow_topic.count)
            violation(t, "%s has %d partitions on shard %u, %d are acknowledged", t->names[o->name].text,
                      topic->partition_count, s, o->grow_topic.count);
        settle(t, topic, i);
        for (int p = 0; p < o->grow_topic.count && s == 0; p++)
            if (atomic_load(&topic->partitions[p].leader->node) != t->node.options.node_id && !t->node.faulty && !t->node.tight && !t->node.fenced)
                violation(t, "%s has no leader", label(t, i, p));
    }
}

static void start_grow(sim *t, int n) {
    incarnation *i = t->names[n].now;
    if (i->partitions_unsure >= PARTITIONS_MAX) return;
    operation *o = operation_new(t, GROW, t->here);
    o->name = n;
    o->topics[0] = i;
    o->generation = i->partitions_unsure > i->partitions;
    t->names[n].admin = true;
    o->grow_topic = (cnk_grow_topic){.name = name_text(t, n),
                                     .count = i->partitions + 1 + (int32_t)below(t, (uint64_t)(PARTITIONS_MAX - i->partitions))};
    if (o->grow_topic.count > i->partitions_unsure) i->partitions_unsure = o->grow_topic.count;
    o->grow = (cnk_create_partitions){.timeout_ms = chance(t, 1, 10) ? 0 : 20000, .topics = &o->grow_topic, .topic_count = 1,
                                      .done = on_grown, .arg = o};
    o->rc = cnk_broker_create_partitions(cnk_broker_shard(t->node.broker, o->shard), &o->grow);
    say(t, "%s to %d partitions: %d", t->names[n].text, o->grow_topic.count, o->rc);
    if (o->rc < 0) {
        o->over = true;
        t->names[n].admin = false;
    }
}

static void on_altered(cnk_alter_configs *op) {
    operation *o = op->arg;
    sim *t = the_sim;
    o->over = true;
    incarnation *i = o->topics[0];
    t->names[o->name].admin = false;
    if (dead(t) || i->dead) return;
    int error = o->alter_topic.error;
    say(t, "%s, max.message.bytes %s: %s", t->names[o->name].text, o->value, error ? chronik_error_name(error) : "done");
    if (error) {
        if (!expected(t, i, error) && error != CHRONIK_ETIMEDOUT && error != CHRONIK_EAGAIN && error != CHRONIK_ENOTLEADER)
            violation(t, "changing %s: %s", t->names[o->name].text, chronik_error_name(error));
        i->late |= error == CHRONIK_ETIMEDOUT;
        return;
    }
    totals.altered++;
    i->bytes_max = (uint32_t)strtoul(o->value, NULL, 10);
    if (i->late) return;
    i->unsure_count = 0; /* what was asked for before came before */
    for (unsigned s = 0; s < t->node.shards; s++) {
        const cnk_meta_topic *topic = cnk_meta_topic_any_by_id(cnk_shard_image(cnk_broker_shard(t->node.broker, s)), &i->id);
        if (topic && topic->settings.max_message_bytes != i->bytes_max)
            violation(t, "%s goes by %u on shard %u, %s is acknowledged", t->names[o->name].text,
                      topic->settings.max_message_bytes, s, o->value);
    }
}

static void start_alter(sim *t, int n) {
    static const uint8_t set = CNK_CHANGE_SET;
    incarnation *i = t->names[n].now;
    if (i->unsure_count == UNSURE_MAX) return;
    operation *o = operation_new(t, ALTER, t->here);
    o->name = n;
    o->topics[0] = i;
    t->names[n].admin = true;
    uint32_t bytes_max = 600000 + (uint32_t)below(t, 400000);
    i->unsure[i->unsure_count++] = bytes_max;
    snprintf(o->value, sizeof o->value, "%u", bytes_max);
    o->setting = (cnk_topic_setting){{"max.message.bytes", 17}, {o->value, strlen(o->value)}};
    o->alter_topic = (cnk_alter_topic){.name = name_text(t, n), .settings = &o->setting, .setting_count = 1,
                                       .changes = chance(t, 1, 2) ? &set : NULL};
    o->alter = (cnk_alter_configs){.timeout_ms = chance(t, 1, 10) ? 0 : 20000, .topics = &o->alter_topic, .topic_count = 1,
                                   .done = on_altered, .arg = o};
    o->rc = cnk_broker_alter_configs(cnk_broker_shard(t->node.broker, o->shard), &o->alter);
    if (o->rc < 0) {
        o->over = true;
        t->names[n].admin = false;
    }
}

/* ---- cutting logs ----------------------------------------------------------------------------------------------- */

static void on_cut(cnk_delete_records *op) {
    operation *o = op->arg;
    sim *t = the_sim;
    o->over = true;
    const cnk_delete_records_part *part = &o->cut_part;
    incarnation *i = o->topics[0];
    if (dead(t) || i->dead || !certain(t, o, 0)) return;
    log_model *l = &i->logs[part->partition];
    const char *where = label(t, i, part->partition);
    say(t, "%s is cut to %lld: %s", where, (long long)part->offset, part->error ? chronik_error_name(part->error) : "done");
    if (part->error == CHRONIK_EOFFSETRANGE) {
        if (part->offset <= o->high_watermarks[0]) violation(t, "%s cannot be cut to %lld", where, (long long)part->offset);
        return;
    }
    if (part->error) {
        if (!expected(t, i, part->error) && part->error != CHRONIK_ENOTLEADER && part->error != CHRONIK_EAGAIN)
            violation(t, "cutting %s: %s", where, chronik_error_name(part->error));
        return;
    }
    if (part->low_watermark < part->offset || part->low_watermark < o->starts[0] || part->low_watermark > l->start_unsure)
        violation(t, "%s is cut to %lld, and starts at %lld", where, (long long)part->offset, (long long)part->low_watermark);
    else if (part->low_watermark > l->start)
        l->start = part->low_watermark;
    totals.cut++;
}

static void start_cut(sim *t) {
    int name;
    incarnation *i = pick_topic(t, &name);
    if (!i) return;
    operation *o = operation_new(t, CUT, t->here);
    int partition = (int)below(t, (uint64_t)i->partitions);
    log_model *l = &i->logs[partition];
    o->topics[0] = i;
    o->high_watermarks[0] = l->high_watermark;
    o->starts[0] = l->start;
    int64_t left = l->high_watermark - l->start;
    o->cut_part = (cnk_delete_records_part){.topic = name_text(t, name), .partition = partition};
    o->cut_part.offset = chance(t, 1, 6) ? l->high_watermark : l->start + (int64_t)below(t, (uint64_t)left + (chance(t, 1, 10) ? 3 : 1));
    if (o->cut_part.offset > l->start_unsure) l->start_unsure = o->cut_part.offset;
    o->cut = (cnk_delete_records){.parts = &o->cut_part, .part_count = 1, .done = on_cut, .arg = o};
    o->rc = cnk_broker_delete_records(cnk_broker_shard(t->node.broker, o->shard), &o->cut);
    if (o->rc == CNK_DONE) on_cut(&o->cut);
    if (o->rc < 0) o->over = true;
}

static void start_admin(sim *t) {
    int n = (int)below(t, NAMES);
    topic_name *name = &t->names[n];
    if (name->admin) return;
    if (!name->now) start_create(t, n);
    else if (name->now->doomed || chance(t, 1, 6)) start_delete(t, n);
    else if (chance(t, 1, 4)) start_grow(t, n);
    else if (chance(t, 1, 4)) start_alter(t, n);
    else if (chance(t, 1, 20)) start_create(t, n); /* refused: it is there */
}

static void start_cancel(sim *t) {
    for (operation *o = t->operations; o; o = o->next) {
        if (o->over || o->shard != t->here || o->rc != CNK_PENDING || !chance(t, 1, 6)) continue;
        if (o->kind == PRODUCE) cnk_broker_produce_cancel(&o->produce);
        else if (o->kind == FETCH) cnk_broker_fetch_cancel(&o->fetch);
        else if (o->kind == LIST) cnk_broker_list_offsets_cancel(&o->list);
        return;
    }
}

/* ---- driving ---------------------------------------------------------------------------------------------------- */

static struct { void (*start)(sim *t); } task;

static void run_start(void *arg) { task.start(arg); }

/* Frees what is over, and gives back answers that were held. */
static void sweep(sim *t, bool all) {
    int held = 0;
    for (operation **at = &t->operations; *at;) {
        operation *o = *at;
        held += o->held;
        if (o->held && (all || held > HELD_MAX || chance(t, 1, 10))) sim_world_on(t->node.world, o->shard, run_fetch_end, o);
        if (o->over && !o->held) {
            *at = o->next;
            operation_free(o);
        } else {
            at = &o->next;
        }
    }
}

static bool nothing_pending(void *arg) {
    for (const operation *o = ((sim *)arg)->operations; o; o = o->next)
        if (!o->over) return false;
    return true;
}

/* For those who look for the reason: what has not ended. */
static void tell_pending(const sim *t) {
    static const char *const names[] = {"produce", "fetch", "list", "create", "delete", "init", "grow", "alter", "cut"};
    for (const operation *o = t->operations; o; o = o->next)
        if (!o->over)
            printf("  pending: operation %d (%s), client %d, shard %u, first batch %u\n", (int)o->kind,
                   (size_t)o->kind < sizeof names / sizeof names[0] ? names[o->kind] : "?", o->client, o->shard, o->batches[0]);
}

static bool is_over(void *arg) { return ((operation *)arg)->over; }

/* ---- the whole of a partition, read by a consumer ------------------------------------------------------------------ */

typedef struct producer_seen { int64_t id; int32_t next; } producer_seen;

/* What [start, end) holds has been read: are the batches there as often, and in the order, as they must be? */
static void check_order(sim *t, incarnation *i, int partition, int64_t start, int64_t end) {
    log_model *l = &i->logs[partition];
    producer_seen seen[400];
    int count = 0;
    uint32_t last_of_client[CLIENTS] = {0};
    for (uint32_t n = 1; n <= t->batch_count; n++) t->batches[n].found = 0;
    while (start < l->capacity && start > 0 && l->cells[start].batch != 0 && l->cells[start].record > 0) start--;
    for (int64_t at = start; at < end && !t->node.failed;) {
        const cell *c = &l->cells[at];
        if (at >= l->capacity || c->batch == 0 || c->epoch == 0) {
            violation(t, "%s: offset %lld was not read", label(t, i, partition), (long long)at);
            return;
        }
        batch *b = &t->batches[c->batch];
        b->found++;
        if (at > start && l->cells[at - 1].epoch > c->epoch)
            violation(t, "%s: leader epoch %d at offset %lld, after %d", label(t, i, partition), c->epoch, (long long)at,
                      l->cells[at - 1].epoch);
        if (b->found > (b->producer_id >= 0 ? 1 : b->attempts))
            violation(t, "%s: batch %u was sent %u times, and is there %u times", label(t, i, partition), c->batch, b->attempts,
                      b->found);
        if (b->producer_id < 0 && b->attempts == 1) { /* sent once: in the order of sending */
            if (c->batch < last_of_client[b->client])
                violation(t, "%s: batch %u of client %d is there after batch %u", label(t, i, partition), c->batch, b->client,
                          last_of_client[b->client]);
            last_of_client[b->client] = c->batch;
        }
        for (int n = 0; b->producer_id >= 0 && n <= count && count < 399; n++) {
            if (n < count && seen[n].id != b->producer_id) continue;
            if (n < count && seen[n].next != b->sequence) /* of what is left: the first may be any */
                violation(t, "%s: producer %lld: sequence %d at offset %lld, %d was next", label(t, i, partition),
                          (long long)b->producer_id, b->sequence, (long long)at, seen[n].next);
            seen[n] = (producer_seen){b->producer_id, b->sequence + b->count};
            if (n == count) count++;
            break;
        }
        at += b->count;
    }
}

/* false: the world has died, or an answer is missing for a reason. */
static bool consume(sim *t, incarnation *i, int partition) {
    int64_t offset = i->logs[partition].start, end = offset + 1, from = -1;
    for (int tries = 0; offset < end && !t->node.failed; tries++) {
        operation *o = operation_new(t, FETCH, (unsigned)below(t, t->node.shards));
        fetch_part(t, o, i, partition, offset, (uint32_t)(1 + below(t, 200000)));
        o->fetch = (cnk_fetch){.max_wait_ms = 100, .min_bytes = 1, .bytes_max = 300000, .parts = o->fetch_parts, .part_count = 1,
                               .done = on_fetched, .arg = o};
        o->ended = true;
        sim_world_on(t->node.world, o->shard, run_fetch, o);
        if (!sim_world_run_until(t->node.world, is_over, o, 30 * SIM_SECOND) || t->node.failed || dead(t)) {
            if (!dead(t) && !t->node.failed) violation(t, "%s: a fetch does not end", label(t, i, partition));
            o->ended = false;                                        /* nobody looks: it is given back when it is done */
            if (o->over && o->rc >= 0 && o->fetch.run) o->held = true; /* or was done before */
            return false;
        }
        if (from < 0 && o->rc >= 0 && o->fetch_parts[0].error == CHRONIK_EOFFSETRANGE && tries < 3) {
            offset = i->logs[partition].start_unsure; /* a cut that nobody was told of has happened */
            end = offset + 1;
            o->held = true;
            o->held_crc = slices_crc(o);
            continue;
        }
        if (o->rc < 0 || o->fetch_parts[0].error) {
            if (o->rc >= 0 && !o->held) {
                o->held = true;
                o->held_crc = slices_crc(o);
            }
            return false;
        }
        int64_t next = offset;
        if (from < 0) from = offset;
        cnk_batch b;
        for (size_t s = 0; s < o->fetch_parts[0].slice_count; s++)
            for (size_t at = 0; at < o->fetch_parts[0].slices[s].iov_len; at += b.len) {
                if (cnk_batch_parse((const uint8_t *)o->fetch_parts[0].slices[s].iov_base + at,
                                    o->fetch_parts[0].slices[s].iov_len - at, &b))
                    abort();
                next = b.base_offset + b.last_offset_delta + 1;
            }
        end = o->fetch_parts[0].high_watermark;
        o->held = true;
        o->held_crc = slices_crc(o);
        sweep(t, tries % 3 == 0);
        if (next == offset && offset < end && tries > 10000)
            violation(t, "%s: nothing is served at offset %lld, below %lld", label(t, i, partition), (long long)offset,
                      (long long)end);
        if (next != offset) tries = 0;
        else if (tries > 20 && offset < end) tries = 10000;
        offset = next;
    }
    if (!t->node.failed && from >= 0) check_order(t, i, partition, from, end);
    totals.scans++;
    return !t->node.failed;
}

static bool consume_all(sim *t) {
    for (int n = 0; n < NAMES; n++)
        for (int p = 0; t->names[n].now && p < t->names[n].now->partitions; p++)
            if (!consume(t, t->names[n].now, p) || dead(t)) return false;
    return true;
}

/* ---- worlds ----------------------------------------------------------------------------------------------------- */

static void boot(sim *t) {
    sim_node_boot(&t->node);
    for (int c = 0; c < CLIENTS; c++) t->clients[c].shard = (unsigned)below(t, t->node.shards);
}

/* After each start: what the metadata say, and how far the logs go. */
static struct { incarnation *i; } listing;
static void run_list_latest(void *arg) {
    (void)arg;
    list_offsets(the_sim, listing.i, CNK_OFFSET_LATEST);
}

static void check_start(sim *t) {
    size_t topics = 0;
    const cnk_meta_image *image = cnk_shard_image(cnk_broker_shard(t->node.broker, 0));
    for (int n = 0; n < NAMES && !t->node.failed; n++) {
        t->names[n].admin = false;
        resolve(t, n, true);
        const cnk_meta_topic *topic = cnk_meta_topic_any(image, t->names[n].text, strlen(t->names[n].text));
        topics += t->names[n].now || (topic && t->names[n].creating);
    }
    if (!t->node.failed && image->topic_count != topics) violation(t, "there are %zu topics, not %zu", image->topic_count, topics);
    for (int n = 0; n < NAMES && !t->node.failed && !dead(t); n++) {
        if (!t->names[n].now) continue;
        listing.i = t->names[n].now;
        t->here = 0;
        sim_world_on(t->node.world, 0, run_list_latest, NULL);
    }
}

static void run_free_calls(sim *t) {
    for (operation *o = t->operations; o; o = o->next) {
        if (o->over) continue;
        for (int n = 0; o->kind == PRODUCE && n < o->part_count; n++) {
            batch *b = &t->batches[o->batches[n]];
            b->pending--;
            b->active = t->tick;
        }
    }
}

/* The clients forget what they had under way: they will send it again. */
static void shut(sim *t) {
    cnk_tier_stats s = {0};
    t->tick++;
    if (t->node.tier) cnk_tier_stats_get(t->node.tier, &s);
    totals.packs += s.packs_written;
    sim_node_kill(&t->node);
    run_free_calls(t);
    if (t->node.broker) sweep(t, true);
    sim_node_end(&t->node);
    if (t->node.broker) sweep(t, true);
    sim_node_free(&t->node);
    for (operation *o; (o = t->operations) != NULL;) {
        t->operations = o->next;
        operation_free(o);
    }
    for (int c = 0; c < CLIENTS; c++)
        for (int n = 0; n < NAMES; n++)
            for (int p = 0; p < PARTITIONS_MAX; p++) t->clients[c].lanes[n][p].asking = false;
    for (int n = 0; n < NAMES; n++) t->names[n].admin = false;
}

static void resolve_all(sim *t) {
    for (int n = 0; n < NAMES; n++)
        if (!t->names[n].admin && !t->names[n].now && t->names[n].creating) resolve(t, n, false);
}

static void work(sim *t, uint64_t steps) {
    for (uint64_t n = 0; n < steps && !t->node.failed && !dead(t) && !t->node.fenced; n++) {
        uint64_t w = below(t, 100);
        t->tick++;
        task.start = w < 50   ? start_produce
                     : w < 70 ? start_fetch
                     : w < 74 ? start_list
                     : w < 79 ? start_admin
                     : w < 80 ? start_cut
                     : w < 82 ? start_cancel
                     : w < 84 ? resolve_all
                              : NULL;
        t->here = w >= 82 ? 0 : (unsigned)below(t, t->node.shards);
        if (task.start) sim_world_on(t->node.world, t->here, run_start, t);
        uint64_t ns = chance(t, 1, 60)  ? 2 * SIM_SECOND
                      : chance(t, 1, 8) ? below(t, 20 * SIM_MILLISECOND)
                                        : below(t, 500) * SIM_MICROSECOND;
        if (chance(t, 2, 3)) sim_world_run(t->node.world, ns);
        if (n % 8 == 0) sweep(t, false);
    }
}

/* Readers that wait where their logs end, while clients produce: who waits does so for want of data. */
static void wait_at_the_tail(sim *t) {
    for (int n = 0; n < TAIL_ROUNDS && !t->node.failed && !dead(t) && !t->node.fenced; n++) {
        t->tick++;
        for (uint64_t left = 1 + below(t, 3), turns = 2 * left; turns > 0; turns--) {
            task.start = turns % 2 ? start_produce : start_tail_fetch;
            t->here = (unsigned)below(t, t->node.shards);
            sim_world_on(t->node.world, t->here, run_start, t);
            if (chance(t, 1, 2)) sim_world_run(t->node.world, below(t, 300) * SIM_MICROSECOND);
        }
        for (int left = 4; left > 0; left--) { /* answers that are held take the room of those that wait */
            sim_world_run(t->node.world, TAIL_WAIT_MS / 8 * SIM_MILLISECOND);
            sweep(t, true);
        }
        for (const operation *o = t->operations; o && !dead(t); o = o->next) {
            if (o->over || !o->tail) continue;
            for (int p = 0; p < o->part_count; p++) {
                int64_t high = o->topics[p]->logs[o->fetch_parts[p].partition].high_watermark;
                if (high > o->fetch_parts[p].offset)
                    violation(t, "%s: a fetch waits at offset %lld, and the high watermark is %lld",
                              label(t, o->topics[p], o->fetch_parts[p].partition), (long long)o->fetch_parts[p].offset,
                              (long long)high);
            }
        }
        sim_world_run(t->node.world, TAIL_WAIT_MS * SIM_MILLISECOND);
        sweep(t, true);
    }
    if (!t->node.failed && !dead(t) && !t->node.fenced && !nothing_pending(t)) {
        violation(t, "operations at the tail do not end");
        tell_pending(t);
    }
}

/* With nothing in the way, all that was asked ends, and all sealed files become packs and are freed. */
static void come_to_rest(sim *t) {
    cnk_tier_stats s;
    cnk_wal_stats w;
    sim_world_run(t->node.world, 60 * SIM_SECOND);
    if (dead(t) || t->node.fenced) return;
    if (!nothing_pending(t)) {
        violation(t, "operations do not end");
        tell_pending(t);
    }
    for (int n = 0; n < 60 && !dead(t); n++) {
        cnk_tier_stats_get(t->node.tier, &s);
        cnk_wal_stats_get(t->node.wal, &w);
        if (s.files_waiting + s.files_kept == 0 && w.files_live <= 1) break;
        sim_world_run(t->node.world, SIM_SECOND);
    }
    if (!dead(t) && !t->node.fenced && !t->node.failed && s.files_waiting > 0)
        violation(t, "%llu sealed files are never converted", (unsigned long long)s.files_waiting);
    else if (!dead(t) && !t->node.fenced && !t->node.failed && w.files_live > 1)
        violation(t, "%llu converted files are never freed", (unsigned long long)(w.files_live - 1));
    if (!dead(t) && !t->node.failed && !t->node.fenced && consume_all(t)) wait_at_the_tail(t);
}

static void orderly_stop(sim *t) {
    sweep(t, true);
    sim_node_stop(&t->node);
    if (dead(t)) return;
    sweep(t, true);
    if (t->node.failed || nothing_pending(t)) return;
    violation(t, "operations do not end when the broker is stopped");
    tell_pending(t);
}

static void run_delete_all(sim *t) {
    for (int n = 0; n < NAMES; n++)
        if (t->names[n].now && !t->names[n].admin) start_delete(t, n);
}

/* At the end: without topics, nothing but the metadata takes space. */
static void give_back(sim *t) {
    for (int tries = 0; tries < 10 && !t->node.failed; tries++) {
        for (int n = 0; n < NAMES; n++) resolve(t, n, false);
        task.start = run_delete_all;
        t->here = 0;
        sim_world_on(t->node.world, 0, run_start, t);
        sim_world_run(t->node.world, 30 * SIM_SECOND);
    }
    if (t->node.failed) return;
    for (int n = 0; n < NAMES; n++)
        if (t->names[n].now) violation(t, "topic %s cannot be deleted", t->names[n].text);
    cnk_tier_stats s;
    cnk_wal_stats w;
    cnk_tier_stats_get(t->node.tier, &s);
    cnk_wal_stats_get(t->node.wal, &w);
    if (s.live_bytes > 100000 || s.pack_bytes > 2 * s.live_bytes + s.packs * 16384)
        violation(t, "no topic is left, but %llu packs with %llu bytes, %llu of them live", (unsigned long long)s.packs,
                  (unsigned long long)s.pack_bytes, (unsigned long long)s.live_bytes);
    if (w.files_live > 2) violation(t, "no topic is left, but %llu WAL files", (unsigned long long)w.files_live);
}

static void plan_faults(sim *t) {
    static const int codes[] = {CHRONIK_EIO, CHRONIK_EIO, CHRONIK_ENOSPC};
    static const sim_op ops[] = {SIM_CREATE, SIM_WRITE, SIM_SYNC, SIM_ALLOCATE, SIM_RENAME, SIM_UNLINK, SIM_SYNC_DIR, SIM_OPEN,
                                 SIM_READ};
    if (chance(t, 1, 6)) {
        sim_world_fail_next(t->node.world, ops[below(t, 9)], "packs", codes[below(t, 3)]);
        t->node.faulty = true;
    }
    if (chance(t, 1, 10)) {
        sim_world_fail_in(t->node.world, 1 + below(t, 250), codes[below(t, 3)]);
        t->node.faulty = true;
    }
    if (!t->node.faulty && chance(t, 1, 8)) {
        sim_disk_space_set(t->node.disk, (UINT64_C(1200) << 10) + below(t, 3000) * 1024);
        t->node.tight = true;
    }
}

static void life(sim *t, bool last) {
    boot(t);
    bool early = chance(t, 1, 5);
    if (!last && chance(t, 1, 6)) sim_world_crash_in(t->node.world, 1 + below(t, 60)); /* while it starts */
    if (!last && early) plan_faults(t);
    if (sim_node_open(&t->node) && !t->node.failed) {
        check_start(t);
        if (!last && chance(t, 5, 6)) sim_world_crash_in(t->node.world, 1 + below(t, chance(t, 1, 4) ? 30 : 500));
        if (!t->node.failed && !dead(t) && chance(t, 1, 4)) (void)consume_all(t);
        if (!last && !early) plan_faults(t);
        if (!t->node.failed && !dead(t)) work(t, 60 + below(t, 300));
        if (last || chance(t, 1, 6)) {
            sim_disk_space_set(t->node.disk, UINT64_C(256) << 20);
            if (!t->node.failed && !dead(t) && !t->node.fenced) come_to_rest(t);
            if (last && !t->node.failed) give_back(t);
        }
        if (!t->node.failed && !dead(t) && !t->node.fenced && chance(t, 1, 3)) orderly_stop(t);
    }
    shut(t);
    sim_disk_space_set(t->node.disk, UINT64_C(256) << 20);
}

static void settings(sim *t, sim_run *run) {
    sim_node_init(&t->node, run, &t->rng);
    t->node.wal_options.unsynced_bytes_max = chance(t, 1, 3) ? 60000 : 64 << 20;
    t->node.wal_options.linger_always = chance(t, 1, 6);
    t->node.wal_options.seal_after_ms = chance(t, 1, 4) ? 300 : 1800000;
    t->node.tier_options.calm_bytes_per_s = chance(t, 1, 2) ? 0 : 10 << 20;
    t->node.tier_options.row_cache_bytes = chance(t, 1, 2) ? 0 : 30000;
    t->node.options.fetch_pinned_bytes_max = chance(t, 1, 3) ? 0 : 1 << 20;
    t->node.options.fetch_cold_bytes_max = chance(t, 1, 3) ? 1 : 1 << 20;
    t->node.options.fetch_ahead_bytes_max = chance(t, 1, 3) ? 0 : 1 << 20;
    t->node.options.waiting_parts_max = chance(t, 1, 4) ? 3 : 10000;
}

static bool run_seed(sim_run *run) {
    sim *t = calloc(1, sizeof *t);
    the_sim = t;
    t->seed = run->seed;
    cnk_rng_seed(&t->rng, t->seed * UINT64_C(0x9e3779b97f4a7c15) + 7);
    t->batches = calloc(BATCHES_MAX, sizeof *t->batches);
    for (int n = 0; n < NAMES; n++) snprintf(t->names[n].text, sizeof t->names[n].text, "topic%d", n);
    for (int c = 0; c < CLIENTS; c++) {
        t->clients[c].idempotent = c % 2 == 0;
        for (int n = 0; n < NAMES * PARTITIONS_MAX; n++) t->clients[c].lanes[n / PARTITIONS_MAX][n % PARTITIONS_MAX].producer_id = -1;
    }
    settings(t, run);
    while (sim_node_goes_on(&t->node, WORLDS_MIN, WORLDS_MAX, CALLS_MIN)) life(t, false);
    if (!t->node.failed) life(t, true);
    const bool ok = sim_node_over(&t->node);
    for (int n = 0; n < t->incarnation_count; n++) {
        for (int p = 0; p < PARTITIONS_MAX; p++) free(t->incarnations[n]->logs[p].cells);
        free(t->incarnations[n]);
    }
    cnk_map_free(&t->producer_ids);
    cnk_map_free(&t->streams);
    free(t->batches);
    free(t);
    return ok;
}

/* ---- the program ---- */

static const char *const bugs[] = {"none", "ack-before-sync", "release-early", "rename-not-synced",
                                   "free-without-checkpoint", "checkpoint-forgets-stream", "trim-ahead", "lose-wake", NULL};

static void bug_set(size_t bug) {
    static const struct { enum cnk_wal_bug wal; enum cnk_tier_bug tier; enum cnk_broker_bug broker; } of[] = {
        {CNK_WAL_BUG_NONE, CNK_TIER_BUG_NONE, CNK_BROKER_BUG_NONE},
        {CNK_WAL_BUG_ACK_BEFORE_SYNC, CNK_TIER_BUG_NONE, CNK_BROKER_BUG_NONE},
        {CNK_WAL_BUG_RELEASE_EARLY, CNK_TIER_BUG_PACK_NOT_SYNCED, CNK_BROKER_BUG_NONE}, /* the tier's name of it */
        {CNK_WAL_BUG_NONE, CNK_TIER_BUG_RENAME_NOT_SYNCED, CNK_BROKER_BUG_NONE},
        {CNK_WAL_BUG_FREE_WITHOUT_CHECKPOINT, CNK_TIER_BUG_NONE, CNK_BROKER_BUG_NONE},
        {CNK_WAL_BUG_CHECKPOINT_FORGETS, CNK_TIER_BUG_NONE, CNK_BROKER_BUG_NONE},
        {CNK_WAL_BUG_TRIM_AHEAD, CNK_TIER_BUG_NONE, CNK_BROKER_BUG_NONE},
        {CNK_WAL_BUG_NONE, CNK_TIER_BUG_NONE, CNK_BROKER_BUG_LOSE_WAKE}};
    cnk_wal_bug = of[bug].wal;
    cnk_tier_bug = of[bug].tier;
    cnk_broker_bug = of[bug].broker;
}

static void print_totals(void) {
    printf("%llu batches sent, %llu acknowledged (%llu again), %llu refused, %llu read, %llu partitions read whole; %llu "
           "topics made, %llu times with more partitions, %llu times changed, %llu deleted; %llu logs cut; %llu packs",
           (unsigned long long)totals.produced, (unsigned long long)totals.acked, (unsigned long long)totals.duplicates,
           (unsigned long long)totals.refused, (unsigned long long)totals.read, (unsigned long long)totals.scans,
           (unsigned long long)totals.topics, (unsigned long long)totals.grown, (unsigned long long)totals.altered,
           (unsigned long long)totals.deleted, (unsigned long long)totals.cut, (unsigned long long)totals.packs);
}

int main(int argc, char **argv) {
    static const sim_program program = {"sim_broker", 40, bugs, bug_set, run_seed, print_totals};
    return sim_main(&program, argc, argv);
}
