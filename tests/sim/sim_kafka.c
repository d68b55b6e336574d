/* Proves the protocol over a whole broker by simulation: idempotent producers with several requests in flight; readers with
 * full fetches, with sessions that add and forget partitions, and of old, who know nothing of batches; a topic whose batches
 * the broker compresses; sockets that give and take bytes in pieces, connections that break in the middle of anything, limits
 * so small that all of them are met; kills, power cuts and orderly stops between them, and another number of shards at each
 * start.
 *
 *     sim_kafka [--seeds N] [--from S] [--bug NAME] [--trace] [--coverage] [--keep-going]
 *
 * The model knows for each partition which batch stands at which offset, as far as an acknowledgement or an answer has told:
 *  - answers come in the order of the requests, and whole; nobody is thrown out who keeps to the protocol;
 *  - an acknowledged batch is read at its offset, each batch once, each reader reads the same, without a gap;
 *  - the first batch that a producer has not seen acknowledged is never refused as out of order;
 *  - with nothing in the way, all that was asked is answered, and who waits for data has all that is there.
 * With --bug a known mistake is put back; the run then succeeds when it is found, and says after how many seeds.
 *
 * Exit code 0: all seeds clean (or the bug found). The last line is `N passed, M failed`. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/rng.h"
#include "codec/codec.h"
#include "kafka/conn.h"
#include "record/message_set.h"
#include "record/record.h"
#include "sim/node_sim.h"
#include "wal/internal.h"

#include "../unit/kafka_client.h"

enum {
    TOPICS = 2,
    PARTITIONS = 3,
    LOGS = TOPICS * PARTITIONS,
    PRODUCERS = 3,
    READERS = 4,
    PEERS = PRODUCERS + READERS,
    IN_FLIGHT = 5, /* batches of a lane that are not acknowledged: max.in.flight.requests */
    UNDERWAY_MAX = 12,
    BATCHES_MAX = 20000,
    RECORDS_MAX = 30, /* in a batch */
    VALUE_MAX = 20000,
    OLD_MAX = 700000, /* who gets no more than he asks for has to ask for the largest batch */
    KEY_BYTES = 5, /* the batch's number, and the record's in it */
    WORLDS_MIN = 4,
    WORLDS_MAX = 20,
    CALLS_MIN = 400,
    TAIL_ROUNDS = 10,
    REST_MS = 3000,
    LONG_WAIT_MS = 60000 /* of a reader at rest: far more than REST_MS */
};
#define T0 INT64_C(1500000000000) /* the records of batch n are of T0 + n */

typedef struct batch {
    uint8_t log, producer;
    uint16_t count;
    uint32_t value_len;
    int32_t sequence;
    int64_t offset; /* -1: nobody has told */
    bool acked, read;
} batch;

typedef struct log_model {
    uint32_t *batches; /* as they were read, from the start */
    size_t count, capacity;
    int64_t end;       /* behind the last one read */
    int64_t acked_end; /* behind the last one acknowledged */
} log_model;

typedef struct lane { /* a producer's way to a partition */
    uint32_t queue[IN_FLIGHT];
    int queued, sent, unanswered; /* sent: so many of the queue, from its start */
    bool resync;                  /* one was refused: all that was sent is answered, before it is sent again */
    int32_t next_sequence;
} lane;

typedef struct place { /* a reader's, in a partition */
    bool wanted, known, changed; /* known: to the session; changed: since it was told */
    size_t index;                /* of the next batch in the model */
    int done;                    /* records of it that have been read */
    int64_t offset;
} place;

typedef struct underway { /* a request without an answer */
    int32_t correlation;
    int16_t api;
    int version;
    bool full; /* a Fetch that makes a session */
    int64_t ends[LOGS]; /* a Fetch's or ListOffsets': what was known when it was sent */
} underway;

typedef struct peer {
    int number;
    bool reader, open;
    unsigned shard;
    client c;
    cnk_writer out;
    size_t out_at;
    int32_t correlation;
    underway queue[UNDERWAY_MAX];
    int queued;
    /* a producer's */
    int64_t producer_id;
    bool asking;
    lane lanes[LOGS];
    /* a reader's */
    int version;
    bool sessions, fetching;
    int32_t session_id, session_epoch;
    place places[LOGS];
} peer;

typedef struct sim {
    uint64_t seed;
    cnk_rng rng;
    sim_node node;
    cnk_kafka_options kafka_options;
    cnk_kafka *kafka[SIM_NODE_SHARDS_MAX];
    cnk_uuid ids[TOPICS];
    cnk_topic_setting compression; /* of the second topic */
    bool made;
    bool calm, quiet, rested; /* nothing is in the way; nothing new is produced; for so long that all has settled */
    bool quiesced; /* what run_quiesce has found */
    peer peers[PEERS];
    log_model logs[LOGS];
    batch *batches;
    uint32_t batch_count;
} sim;

static sim *the_sim;
static struct {
    uint64_t produced, acked, refused, fetches, incremental, batches_read, cuts, closed, sessions_lost, rounds;
} totals;

#define violation(t, ...) sim_node_wrong(&(t)->node, __VA_ARGS__)
#define say(t, ...) sim_node_say(&(t)->node, __VA_ARGS__)

static uint64_t below(sim *t, uint64_t n) { return cnk_rng_below(&t->rng, n); }
static bool chance(sim *t, uint32_t a, uint32_t b) { return cnk_rng_chance(&t->rng, a, b); }
static bool dead(const sim *t) { return sim_node_dead(&t->node); }

/* ---- batches and logs ------------------------------------------------------------------------------------------- */

/* Record i of the batch. */
static void record_of(const sim *t, uint32_t number, int i, uint8_t *ret_key, uint8_t *ret_value) {
    cnk_rng rng;
    cnk_store_be32(ret_key, number);
    ret_key[4] = (uint8_t)i;
    cnk_rng_seed(&rng, t->seed * 1000003 + number * 32 + (uint64_t)i);
    cnk_rng_fill(&rng, ret_value, t->batches[number].value_len);
}

static void build(const sim *t, uint32_t number, cnk_writer *out) {
    static uint8_t value[VALUE_MAX];
    const batch *b = &t->batches[number];
    uint8_t key[KEY_BYTES];
    cnk_batch_builder builder;
    cnk_batch_builder_init(&builder, CNK_CODEC_NONE, CNK_CODEC_LEVEL_DEFAULT, 0);
    cnk_batch_builder_producer(&builder, t->peers[b->producer].producer_id, 0, b->sequence);
    for (int i = 0; i < b->count; i++) {
        record_of(t, number, i, key, value);
        const cnk_record_spec r = {.timestamp = T0 + number, .key = key, .key_len = KEY_BYTES, .value = value, .value_len = b->value_len};
        if (cnk_batch_builder_add(&builder, &r)) abort();
    }
    cnk_writer_growing(out, 0);
    if (cnk_batch_builder_finish(&builder, out)) abort();
    cnk_batch_builder_free(&builder);
}

static uint32_t batch_new(sim *t, int producer, int log) {
    if (t->batch_count + 1 >= BATCHES_MAX) return 0;
    batch *b = &t->batches[++t->batch_count];
    *b = (batch){.log = (uint8_t)log, .producer = (uint8_t)producer, .offset = -1};
    b->count = (uint16_t)(1 + below(t, chance(t, 1, 6) ? RECORDS_MAX : 4));
    b->value_len = (uint32_t)below(t, chance(t, 1, 20) && b->count < 5 ? VALUE_MAX : chance(t, 1, 3) ? 3000 : 200);
    lane *l = &t->peers[producer].lanes[log];
    b->sequence = l->next_sequence;
    l->next_sequence += b->count;
    return t->batch_count;
}

/* An acknowledgement or an answer says that the batch is at this offset. */
static void placed(sim *t, uint32_t number, int64_t offset, const char *says) {
    batch *b = &t->batches[number];
    if (b->offset >= 0 && b->offset != offset)
        violation(t, "log %d: batch %u is at offset %lld, says %s, and was at %lld", b->log, number, (long long)offset, says,
                  (long long)b->offset);
    b->offset = offset;
}

/* The next record of a reader: what its producer made of it, and where others have read it. */
static void read_record(sim *t, int log, place *at, int64_t offset, const uint8_t *key, int64_t key_len, const uint8_t *value,
                        int64_t value_len) {
    static uint8_t same[VALUE_MAX];
    uint8_t same_key[KEY_BYTES];
    log_model *l = &t->logs[log];
    const uint32_t number = key_len == KEY_BYTES ? cnk_load_be32(key) : 0;
    if (offset != at->offset) {
        violation(t, "log %d: a fetch from %lld goes on with %lld", log, (long long)at->offset, (long long)offset);
        return;
    }
    if (number == 0 || number > t->batch_count || t->batches[number].log != log || key[4] != at->done) {
        violation(t, "log %d: offset %lld: a record that nobody sent there", log, (long long)offset);
        return;
    }
    batch *b = &t->batches[number];
    record_of(t, number, at->done, same_key, same);
    if (value_len != b->value_len || memcmp(value, same, b->value_len) != 0)
        violation(t, "log %d: offset %lld: other bytes than were sent", log, (long long)offset);
    placed(t, number, offset - at->done, "an answer");
    if (at->index < l->count && l->batches[at->index] != number)
        violation(t, "log %d: offset %lld: batch %u, and others read %u", log, (long long)offset, number, l->batches[at->index]);
    at->offset++;
    if (++at->done < b->count) return;
    at->done = 0;
    totals.batches_read++;
    if (at->index++ < l->count) return;
    if (b->read) violation(t, "log %d: batch %u is there twice", log, number);
    b->read = true;
    if (l->count == l->capacity) l->batches = realloc(l->batches, (l->capacity = 2 * l->capacity + 64) * sizeof *l->batches);
    l->batches[l->count++] = number;
    l->end = at->offset;
}

static void read_batches(sim *t, int log, place *at, const uint8_t *data, size_t len) {
    for (size_t done = 0; done < len && !t->node.failed;) {
        cnk_batch b;
        cnk_records records;
        cnk_record r;
        if (cnk_batch_parse(data + done, len - done, &b) || cnk_records_open(&b, UINT32_MAX, &records)) {
            violation(t, "log %d: what follows %lld is no batch", log, (long long)at->offset);
            return;
        }
        if (done == 0 && b.base_offset != at->offset - at->done)
            violation(t, "log %d: a fetch from %lld goes on with a batch at %lld", log, (long long)at->offset, (long long)b.base_offset);
        int more = 0;
        while (!t->node.failed && (more = cnk_records_next(&records, &r)) == 1)
            if (r.offset >= at->offset) read_record(t, log, at, r.offset, r.key, r.key_len, r.value, r.value_len);
        if (more < 0) violation(t, "log %d: the batch in front of %lld is malformed", log, (long long)at->offset);
        cnk_records_close(&records);
        done += b.len;
    }
}

/* Compressed messages; in format 1 their offsets end with the wrapper's. */
static void read_wrapper(sim *t, int log, place *at, const cnk_message *wrapper) {
    cnk_writer opened;
    cnk_writer_growing(&opened, 0);
    const unsigned codec = cnk_message_codec(wrapper);
    const int rc = codec == CNK_CODEC_LZ4 && wrapper->magic == 0
                       ? cnk_codec_lz4_old_decompress(wrapper->value, wrapper->value_len, UINT32_MAX, &opened)
                       : cnk_codec_decompress(codec, wrapper->value, wrapper->value_len, UINT32_MAX, &opened);
    if (rc) violation(t, "log %d: the messages in front of %lld cannot be opened", log, (long long)wrapper->offset);
    int64_t shift = 0;
    for (int pass = wrapper->magic == 0; pass < 2 && !t->node.failed; pass++) { /* the first: the last one's offset */
        cnk_reader set = cnk_reader_of(opened.data, opened.len);
        cnk_message m;
        int64_t last = 0;
        while (cnk_message_next(&set, &m) == 1 && !t->node.failed) {
            if (!cnk_message_crc_valid(&m) || cnk_message_open(&m)) violation(t, "log %d: a malformed message in a wrapper", log);
            else if (pass == 1 && m.offset + shift >= at->offset)
                read_record(t, log, at, m.offset + shift, m.key, m.key_len, m.value, m.value_len);
            last = m.offset;
        }
        shift = wrapper->offset - last;
    }
    cnk_writer_free(&opened);
}

/* Formats 0 and 1: records one by one, the last one cut off. */
static void read_set(sim *t, int log, place *at, const uint8_t *data, size_t len, int version) {
    cnk_reader set = cnk_reader_of(data, len);
    cnk_message m;
    int more;
    while ((more = cnk_message_next(&set, &m)) == 1 && !t->node.failed) {
        if (m.magic != (version >= 2) || !cnk_message_crc_valid(&m) || cnk_message_open(&m)) {
            violation(t, "log %d: what follows %lld is no message", log, (long long)at->offset);
            return;
        }
        if (cnk_message_codec(&m)) read_wrapper(t, log, at, &m);
        else if (m.offset >= at->offset) read_record(t, log, at, m.offset, m.key, m.key_len, m.value, m.value_len);
    }
    if (more < 0) violation(t, "log %d: what follows %lld is no message set", log, (long long)at->offset);
}

/* ---- requests ---------------------------------------------------------------------------------------------------- */

static const char *const names[TOPICS] = {"first", "second"};

static cnk_kafka_string name_of(int topic) { return (cnk_kafka_string){names[topic], (int32_t)strlen(names[topic])}; }

static underway *ask(peer *p, int16_t api, int version, const void *message) {
    cnk_writer w;
    client_frame(&w, api, version, ++p->correlation, message);
    cnk_write_bytes(&p->out, w.data, w.len);
    if (p->out.error) abort();
    cnk_writer_free(&w);
    underway *u = &p->queue[p->queued++];
    *u = (underway){.correlation = p->correlation, .api = api, .version = version};
    return u;
}

static void ask_producer_id(sim *t, peer *p) {
    cnk_init_producer_id_request m;
    cnk_kafka_defaults(cnk_init_producer_id_request_message.root, &m);
    m.transactional_id = CNK_KAFKA_STRING_NULL;
    m.transaction_timeout_ms = 1000;
    (void)ask(p, CNK_KAFKA_API_INIT_PRODUCER_ID, (int)below(t, 5), &m);
    p->asking = true;
}

/* What others do with their connections, too. */
static void ask_something(sim *t, peer *p) {
    if (chance(t, 1, 2)) {
        cnk_metadata_request m;
        cnk_kafka_defaults(cnk_metadata_request_message.root, &m);
        m.topics.count = -1;
        (void)ask(p, CNK_KAFKA_API_METADATA, 1 + (int)below(t, 12), &m);
        return;
    }
    cnk_list_offsets_request m;
    cnk_list_offsets_request_list_offsets_topic topics[TOPICS];
    cnk_list_offsets_request_list_offsets_partition parts[LOGS];
    cnk_kafka_defaults(cnk_list_offsets_request_message.root, &m);
    for (int n = 0; n < LOGS; n++)
        parts[n] = (cnk_list_offsets_request_list_offsets_partition){n % PARTITIONS, -1, -1, 1};
    for (int n = 0; n < TOPICS; n++) {
        topics[n].name = name_of(n);
        topics[n].partitions.items = &parts[n * PARTITIONS];
        topics[n].partitions.count = PARTITIONS;
    }
    m.topics.items = topics;
    m.topics.count = TOPICS;
    underway *u = ask(p, CNK_KAFKA_API_LIST_OFFSETS, 1 + (int)below(t, 7), &m);
    for (int n = 0; n < LOGS; n++) u->ends[n] = t->logs[n].acked_end > t->logs[n].end ? t->logs[n].acked_end : t->logs[n].end;
}

/* ---- producers -------------------------------------------------------------------------------------------------- */

static void ask_produce(sim *t, peer *p) {
    cnk_produce_request m;
    cnk_produce_request_topic_produce_data topics[TOPICS];
    cnk_produce_request_partition_produce_data parts[LOGS];
    cnk_writer data[LOGS];
    const int version = 3 + (int)below(t, 11);
    int count = 0, topic_count = 0;
    cnk_kafka_defaults(cnk_produce_request_message.root, &m);
    m.transactional_id = CNK_KAFKA_STRING_NULL;
    m.acks = -1;
    m.timeout_ms = chance(t, 1, 6) ? (int32_t)below(t, 700) : 30000;
    for (int topic = 0; topic < TOPICS; topic++) {
        const int first = count;
        for (int n = 0; n < PARTITIONS; n++) {
            const int log = topic * PARTITIONS + n;
            lane *l = &p->lanes[log];
            if (!chance(t, 1, 3) || l->resync) continue;
            if (l->sent == l->queued && l->queued < IN_FLIGHT && !t->quiet) {
                uint32_t number = batch_new(t, p->number, log);
                if (number) l->queue[l->queued++] = number;
            }
            if (l->sent == l->queued) continue;
            const uint32_t number = l->queue[l->sent++];
            l->unanswered++;
            build(t, number, &data[count]);
            parts[count] = (cnk_produce_request_partition_produce_data){n, {data[count].data, (int32_t)data[count].len}};
            count++;
            totals.produced++;
            say(t, "producer %d sends batch %u (%d records, sequence %d) to log %d", p->number, number, t->batches[number].count,
                t->batches[number].sequence, log);
        }
        if (count == first) continue;
        cnk_produce_request_topic_produce_data *to = &topics[topic_count++];
        memset(to, 0, sizeof *to);
        if (version < 13) to->name = name_of(topic);
        else to->topic_id = t->ids[topic];
        to->partition_data.items = &parts[first];
        to->partition_data.count = count - first;
    }
    if (count == 0) return;
    m.topic_data.items = topics;
    m.topic_data.count = topic_count;
    (void)ask(p, CNK_KAFKA_API_PRODUCE, version, &m);
    for (int n = 0; n < count; n++) cnk_writer_free(&data[n]);
}

static int topic_of(const sim *t, cnk_kafka_string name, const cnk_uuid *id, bool by_id) {
    for (int n = 0; n < TOPICS; n++)
        if (by_id ? !memcmp(id, &t->ids[n], sizeof *id)
                  : name.len == (int32_t)strlen(names[n]) && !memcmp(name.data, names[n], (size_t)name.len))
            return n;
    return -1;
}

/* Of the first batch that is not acknowledged. */
static void first_answered(sim *t, peer *p, int log, int16_t error, int64_t offset) {
    lane *l = &p->lanes[log];
    const uint32_t number = l->queue[0];
    batch *b = &t->batches[number];
    say(t, "batch %u is answered: error %d, offset %lld", number, error, (long long)offset);
    if (error == 0 || error == CNK_KAFKA_DUPLICATE_SEQUENCE_NUMBER) {
        b->acked = true;
        totals.acked++;
        if (offset >= 0) {
            placed(t, number, offset, "its acknowledgement");
            if (offset + b->count > t->logs[log].acked_end) t->logs[log].acked_end = offset + b->count;
        }
        memmove(&l->queue[0], &l->queue[1], (size_t)--l->queued * sizeof l->queue[0]);
        l->sent--;
        return;
    }
    totals.refused++;
    l->resync = true;
    const bool retriable = error == CNK_KAFKA_REQUEST_TIMED_OUT || error == CNK_KAFKA_NOT_LEADER_OR_FOLLOWER;
    if (error == CNK_KAFKA_OUT_OF_ORDER_SEQUENCE_NUMBER)
        violation(t, "producer %d, log %d: batch %u, sequence %d, is the first that is not acknowledged, and out of order",
                  p->number, log, number, b->sequence);
    else if (!retriable && !t->node.faulty && !t->node.stopping && !t->node.fenced)
        violation(t, "producer %d, log %d: batch %u: error %d", p->number, log, number, error);
}

static void answered(sim *t, peer *p, int log, int16_t error, int64_t offset) {
    lane *l = &p->lanes[log];
    if (l->unanswered == 0) {
        violation(t, "producer %d: an answer for log %d, and nothing is under way", p->number, log);
        return;
    }
    l->unanswered--;
    if (!l->resync) first_answered(t, p, log, error, offset);
    if (l->resync && l->unanswered == 0) {
        l->resync = false;
        l->sent = 0;
    }
}

static void on_produced(sim *t, peer *p, const underway *u, const cnk_produce_response *m) {
    for (int32_t i = 0; i < m->responses.count; i++) {
        const cnk_produce_response_topic_produce_response *r = &m->responses.items[i];
        const int topic = topic_of(t, r->name, &r->topic_id, u->version >= 13);
        for (int32_t n = 0; n < r->partition_responses.count; n++) {
            const cnk_produce_response_partition_produce_response *part = &r->partition_responses.items[n];
            if (topic < 0 || part->index < 0 || part->index >= PARTITIONS) violation(t, "an answer for a partition that was not asked for");
            else answered(t, p, topic * PARTITIONS + part->index, part->error_code, part->base_offset);
        }
    }
}

/* ---- readers ----------------------------------------------------------------------------------------------------- */

static void want_others(sim *t, peer *p) {
    bool any = false;
    for (int n = 0; n < LOGS; n++) any |= (p->places[n].wanted = chance(t, 2, 3));
    if (!any) p->places[below(t, LOGS)].wanted = true;
}

static void ask_fetch(sim *t, peer *p) {
    cnk_fetch_request m;
    cnk_fetch_request_fetch_topic topics[TOPICS];
    cnk_fetch_request_fetch_partition parts[LOGS];
    cnk_fetch_request_forgotten_topic forgotten[TOPICS];
    int32_t forget[LOGS];
    const bool incremental = p->session_id != 0;
    int count = 0, forget_count = 0;
    cnk_kafka_defaults(cnk_fetch_request_message.root, &m);
    m.topics.items = topics;
    m.forgotten_topics_data.items = forgotten;
    for (int topic = 0; topic < TOPICS; topic++) {
        const int first = count, forget_first = forget_count;
        for (int n = 0; n < PARTITIONS; n++) {
            place *at = &p->places[topic * PARTITIONS + n];
            if (incremental && at->known && !at->wanted) forget[forget_count++] = n;
            if (at->wanted && (!incremental || !at->known || at->changed))
                parts[count++] = (cnk_fetch_request_fetch_partition){
                    .partition = n, .current_leader_epoch = -1, .fetch_offset = at->offset, .last_fetched_epoch = -1, .log_start_offset = -1,
                    .partition_max_bytes = p->version < 3         ? OLD_MAX
                                           : chance(t, 1, 2) ? (int32_t)below(t, 5000)
                                                             : (int32_t)below(t, 100000),
                    .high_watermark = INT64_MAX};
            at->known = at->wanted && p->sessions;
            at->changed = false;
        }
        const cnk_kafka_string name = p->version < 13 ? name_of(topic) : (cnk_kafka_string){"", 0};
        if (count > first) {
            cnk_fetch_request_fetch_topic *to = &topics[m.topics.count++];
            *to = (cnk_fetch_request_fetch_topic){.topic = name, .topic_id = t->ids[topic]};
            to->partitions.items = &parts[first];
            to->partitions.count = count - first;
        }
        if (forget_count > forget_first) {
            cnk_fetch_request_forgotten_topic *to = &forgotten[m.forgotten_topics_data.count++];
            *to = (cnk_fetch_request_forgotten_topic){.topic = name, .topic_id = t->ids[topic]};
            to->partitions.items = &forget[forget_first];
            to->partitions.count = forget_count - forget_first;
        }
    }
    m.max_wait_ms = t->calm ? LONG_WAIT_MS : (int32_t)below(t, 1500);
    m.min_bytes = t->calm ? 1 : (int32_t)below(t, 3000);
    m.max_bytes = 1 + (int32_t)below(t, 100000);
    m.session_id = p->session_id;
    m.session_epoch = p->sessions ? p->session_epoch : -1;
    totals.fetches++;
    totals.incremental += incremental;
    underway *u = ask(p, CNK_KAFKA_API_FETCH, p->version, &m);
    u->full = !incremental;
    for (int n = 0; n < LOGS; n++) u->ends[n] = t->logs[n].acked_end;
    p->fetching = true;
    say(t, "reader %d fetches: session %d, epoch %d, %d partitions, %d forgotten, up to %d ms", p->number, m.session_id,
        m.session_epoch, count, forget_count, m.max_wait_ms);
}

static void session_anew(peer *p) {
    p->session_id = p->session_epoch = 0;
    for (int n = 0; n < LOGS; n++) p->places[n].known = false;
}

static void fetched_part(sim *t, peer *p, const underway *u, int log, const cnk_fetch_response_partition_data *part) {
    place *at = &p->places[log];
    if (part->error_code) {
        const bool expected = part->error_code == CNK_KAFKA_KAFKA_STORAGE_ERROR || part->error_code == CNK_KAFKA_NOT_LEADER_OR_FOLLOWER;
        if (!t->node.stopping && !(expected && t->node.faulty))
            violation(t, "reader %d, log %d: error %d at offset %lld", p->number, log, part->error_code, (long long)at->offset);
        return;
    }
    if (part->high_watermark < u->ends[log])
        violation(t, "reader %d, log %d: high watermark %lld, after %lld was acknowledged", p->number, log,
                  (long long)part->high_watermark, (long long)u->ends[log]);
    const int64_t before = at->offset;
    if (part->records.len > 0 && u->version < 4) read_set(t, log, at, part->records.data, (size_t)part->records.len, u->version);
    else if (part->records.len > 0) read_batches(t, log, at, part->records.data, (size_t)part->records.len);
    at->changed |= at->offset != before;
    if (at->offset > part->high_watermark)
        violation(t, "reader %d, log %d: read to %lld, above the high watermark %lld", p->number, log, (long long)at->offset,
                  (long long)part->high_watermark);
}

static void on_fetched(sim *t, peer *p, const underway *u, const cnk_fetch_response *m) {
    p->fetching = false;
    say(t, "reader %d: error %d, session %d, %d topics", p->number, m->error_code, m->session_id, m->responses.count);
    if (m->error_code) {
        if (m->error_code != CNK_KAFKA_FETCH_SESSION_ID_NOT_FOUND || u->full)
            violation(t, "reader %d: a fetch is refused: %d", p->number, m->error_code);
        totals.sessions_lost++;
        session_anew(p);
        return;
    }
    if (p->sessions && u->full) {
        p->session_id = m->session_id;
        p->session_epoch = m->session_id != 0;
        if (m->session_id == 0) session_anew(p);
    } else if (p->sessions) {
        if (m->session_id != p->session_id && m->session_id != 0)
            violation(t, "reader %d: session %d, and asked for %d", p->number, m->session_id, p->session_id);
        p->session_epoch++;
        if (m->session_id == 0) session_anew(p);
    }
    for (int32_t i = 0; i < m->responses.count; i++) {
        const cnk_fetch_response_fetchable_topic_response *r = &m->responses.items[i];
        const int topic = topic_of(t, r->topic, &r->topic_id, u->version >= 13);
        for (int32_t n = 0; n < r->partitions.count && !t->node.failed; n++) {
            const cnk_fetch_response_partition_data *part = &r->partitions.items[n];
            if (topic < 0 || part->partition_index < 0 || part->partition_index >= PARTITIONS ||
                !p->places[topic * PARTITIONS + part->partition_index].wanted)
                violation(t, "reader %d: an answer for a partition that was not asked for", p->number);
            else fetched_part(t, p, u, topic * PARTITIONS + part->partition_index, part);
        }
    }
}

/* ---- answers ----------------------------------------------------------------------------------------------------- */

static void on_listed(sim *t, const underway *u, const cnk_list_offsets_response *m) {
    for (int32_t i = 0; i < m->topics.count; i++) {
        const int topic = topic_of(t, m->topics.items[i].name, NULL, false);
        for (int32_t n = 0; n < m->topics.items[i].partitions.count; n++) {
            const cnk_list_offsets_response_list_offsets_partition_response *part = &m->topics.items[i].partitions.items[n];
            if (topic < 0 || part->partition_index < 0 || part->partition_index >= PARTITIONS)
                violation(t, "an offset of a partition that was not asked for");
            else if (part->error_code == 0 && part->offset < u->ends[topic * PARTITIONS + part->partition_index])
                violation(t, "log %d ends at %lld, after %lld was acknowledged or read", topic * PARTITIONS + part->partition_index,
                          (long long)part->offset, (long long)u->ends[topic * PARTITIONS + part->partition_index]);
        }
    }
}

static void on_answer(sim *t, peer *p, int32_t correlation, cnk_reader *body) {
    const underway u = p->queue[0];
    union {
        cnk_produce_response produce;
        cnk_fetch_response fetch;
        cnk_init_producer_id_response id;
        cnk_list_offsets_response list;
        cnk_metadata_response metadata;
    } m;
    if (p->queued == 0 || u.correlation != correlation) {
        violation(t, "peer %d: an answer to request %d, the next is %d", p->number, correlation, p->queued ? u.correlation : -1);
        return;
    }
    memmove(&p->queue[0], &p->queue[1], (size_t)--p->queued * sizeof p->queue[0]);
    if (!client_decode(&p->c, u.api, u.version, body, &m)) {
        violation(t, "peer %d: a malformed answer to request %d, api %d version %d", p->number, correlation, u.api, u.version);
        return;
    }
    switch (u.api) {
    case CNK_KAFKA_API_PRODUCE:
        on_produced(t, p, &u, &m.produce);
        break;
    case CNK_KAFKA_API_FETCH:
        on_fetched(t, p, &u, &m.fetch);
        break;
    case CNK_KAFKA_API_LIST_OFFSETS:
        on_listed(t, &u, &m.list);
        break;
    case CNK_KAFKA_API_INIT_PRODUCER_ID:
        p->asking = false;
        if (m.id.error_code == 0) p->producer_id = m.id.producer_id;
        break;
    default:
        if (m.metadata.topics.count != TOPICS && !t->node.stopping)
            violation(t, "Metadata tells of %d topics", m.metadata.topics.count);
    }
    cnk_arena_reset(&p->c.arena);
}

/* ---- connections ------------------------------------------------------------------------------------------------- */

/* Whatever was under way is lost with it. */
static void disconnected(peer *p) {
    client_close(&p->c);
    cnk_writer_free(&p->out);
    p->open = false;
    p->queued = 0;
    p->asking = p->fetching = false;
    for (int n = 0; n < LOGS; n++) {
        p->lanes[n].sent = p->lanes[n].unanswered = 0;
        p->lanes[n].resync = false;
        p->places[n].changed = false;
    }
    session_anew(p);
}

static void connect_peer(sim *t, peer *p) {
    p->shard = (unsigned)below(t, t->node.shards);
    p->version = chance(t, 1, 4) ? (int)below(t, 4) : 4 + (int)below(t, 14);
    p->sessions = p->version >= 7 && chance(t, 2, 3);
    if (p->reader && !t->calm) want_others(t, p);
}

static void think(sim *t, peer *p) {
    if (p->queued >= UNDERWAY_MAX - 2) return;
    if (chance(t, 1, 12)) ask_something(t, p);
    if (p->reader) {
        if (p->fetching) return;
        if (!t->calm && chance(t, 1, 8)) want_others(t, p);
        ask_fetch(t, p);
    } else if (p->producer_id < 0) {
        if (!p->asking) ask_producer_id(t, p);
    } else if (chance(t, 1, 2)) {
        ask_produce(t, p);
    }
}

/* What the socket gives and takes, as far as it likes; on the shard's thread. */
static void run_peer(void *arg) {
    peer *p = arg;
    sim *t = the_sim;
    if (!p->open) {
        cnk_writer_growing(&p->out, 0);
        p->out_at = 0;
        client_open(&p->c, t->kafka[p->shard]);
        p->open = true;
    }
    think(t, p);
    cnk_kafka_conn_turn(p->c.conn);
    const size_t left = p->out.len - p->out_at, some = t->calm || chance(t, 1, 2) ? left : below(t, left + 1);
    p->out_at += client_feed(&p->c, p->out.data + p->out_at, some, chance(t, 1, 4) ? 1 + below(t, 100) : 0);
    if (p->out_at == p->out.len) p->out.len = p->out_at = 0;
    if (t->calm || chance(t, 2, 3)) client_drain(&p->c, chance(t, 1, 3) ? 1 + below(t, 3000) : SIZE_MAX);
    cnk_reader body;
    for (int64_t id; !t->node.failed && (id = client_next(&p->c, &body)) >= 0;) on_answer(t, p, (int32_t)id, &body);
    if (!t->node.failed && cnk_kafka_conn_wants(p->c.conn) & CNK_CONN_CLOSE) {
        const cnk_kafka_why why = cnk_kafka_conn_why(p->c.conn);
        if ((why == CNK_KAFKA_PROTOCOL || t->rested) && !t->node.stopping && !dead(t))
            violation(t, "peer %d is thrown out: %d", p->number, why);
        totals.closed++;
        disconnected(p);
    }
}

static void run_cut(void *arg) { disconnected(arg); }

static void turn(sim *t, peer *p) {
    if (dead(t)) return;
    if (!p->open) connect_peer(t, p);
    sim_world_on(t->node.world, p->shard, run_peer, p);
}

static void cut(sim *t, peer *p) {
    if (!p->open) return;
    sim_world_on(t->node.world, p->shard, run_cut, p);
    totals.cuts++;
}

/* ---- driving ----------------------------------------------------------------------------------------------------- */

static void work(sim *t, uint64_t steps) {
    for (uint64_t n = 0; n < steps && !t->node.failed && !dead(t) && !t->node.fenced; n++) {
        peer *p = &t->peers[below(t, PEERS)];
        turn(t, p);
        if (chance(t, 1, 150)) cut(t, p);
        const uint64_t ns = chance(t, 1, 80)  ? SIM_SECOND
                            : chance(t, 1, 8) ? below(t, 10 * SIM_MILLISECOND)
                                              : below(t, 400) * SIM_MICROSECOND;
        if (chance(t, 2, 3)) sim_world_run(t->node.world, ns);
    }
}

static void all_turn(sim *t, uint64_t ms) {
    for (uint64_t n = 0; n < ms && !t->node.failed && !dead(t); n++) {
        for (int p = 0; p < PEERS; p++) turn(t, &t->peers[p]);
        sim_world_run(t->node.world, SIM_MILLISECOND + below(t, SIM_MILLISECOND));
    }
}

/* Every reader has what was acknowledged, and every batch is answered. */
static void check_rest(sim *t) {
    for (int n = 0; n < PRODUCERS; n++)
        for (int log = 0; log < LOGS; log++)
            if (t->peers[n].lanes[log].queued > 0)
                violation(t, "producer %d, log %d: %d batches are not acknowledged", n, log, t->peers[n].lanes[log].queued);
    for (int n = PRODUCERS; n < PEERS; n++)
        for (int log = 0; log < LOGS; log++)
            if (t->peers[n].places[log].wanted && t->peers[n].places[log].offset < t->logs[log].acked_end)
                violation(t, "reader %d, log %d: waits at %lld, and %lld is acknowledged", n, log,
                          (long long)t->peers[n].places[log].offset, (long long)t->logs[log].acked_end);
    for (uint32_t n = 1; n <= t->batch_count && !t->node.failed; n++)
        if (t->batches[n].acked && !t->batches[n].read)
            violation(t, "log %d: batch %u was acknowledged, and nobody has read it", t->batches[n].log, n);
}

static void come_to_rest(sim *t) {
    t->calm = t->quiet = true;
    for (int n = PRODUCERS; n < PEERS; n++)
        for (int log = 0; log < LOGS; log++) t->peers[n].places[log].wanted |= n == PRODUCERS; /* one reads all */
    all_turn(t, 3 * REST_MS);
    if (!t->node.failed && !dead(t)) check_rest(t);
    t->rested = true;
    for (int n = 0; n < TAIL_ROUNDS && !t->node.failed && !dead(t); n++) {
        totals.rounds++;
        t->quiet = false;
        for (int steps = 1 + (int)below(t, 6); steps > 0; steps--) {
            turn(t, &t->peers[below(t, PEERS)]);
            if (chance(t, 1, 2)) sim_world_run(t->node.world, below(t, 300) * SIM_MICROSECOND);
        }
        t->quiet = true;
        all_turn(t, REST_MS / 10);
        if (!t->node.failed && !dead(t)) check_rest(t);
    }
    t->calm = t->quiet = t->rested = false;
}

/* ---- worlds ------------------------------------------------------------------------------------------------------ */

static void on_crowded(void *arg, cnk_shard *shard) {
    (void)arg;
    cnk_kafka *k = the_sim->kafka[cnk_shard_index(shard)];
    if (k) cnk_kafka_crowded(k);
}

static cnk_create_topic making[TOPICS];
static cnk_create_topics make;
static bool make_done;
static void on_made(cnk_create_topics *op) {
    (void)op;
    make_done = true;
}
static bool is_made(void *arg) {
    (void)arg;
    return make_done;
}
static void run_make(void *arg) {
    sim *t = arg;
    for (int n = 0; n < TOPICS; n++)
        making[n] = (cnk_create_topic){.name = {names[n], strlen(names[n])}, .partitions = PARTITIONS, .replication = -1,
                                       .settings = &t->compression, .setting_count = (size_t)n};
    make = (cnk_create_topics){.timeout_ms = 20000, .topics = making, .topic_count = TOPICS, .done = on_made, .arg = t};
    make_done = false;
    if (cnk_broker_create_topics(cnk_broker_shard(t->node.broker, 0), &make) < 0) abort();
}

static void make_topics(sim *t) {
    sim_world_on(t->node.world, 0, run_make, t);
    if (!sim_world_run_until(t->node.world, is_made, t, 60 * SIM_SECOND)) {
        violation(t, "topics are not made");
        return;
    }
    const cnk_meta_image *image = cnk_shard_image(cnk_broker_shard(t->node.broker, 0));
    for (int n = 0; n < TOPICS; n++) t->ids[n] = cnk_meta_topic_any(image, names[n], strlen(names[n]))->id;
    t->made = true;
}

static bool start(sim *t) {
    if (!sim_node_open(&t->node)) return false;
    for (unsigned n = 0; n < t->node.shards; n++)
        if (cnk_kafka_new(cnk_broker_shard(t->node.broker, n), &t->kafka_options, &t->kafka[n])) abort();
    if (!t->made) make_topics(t);
    return !t->node.failed && !dead(t);
}

static unsigned asked_shard;
static void run_quiesce(void *arg) {
    sim *t = arg;
    cnk_kafka *k = t->kafka[asked_shard];
    t->quiesced = cnk_kafka_conn_count(k) == 0 && cnk_kafka_quiesce(k);
    if (!t->quiesced) return;
    cnk_kafka_free(k);
    t->kafka[asked_shard] = NULL;
}

/* As a node does before it stops its broker. */
static void close_kafka(sim *t) {
    for (int n = 0; n < PEERS; n++)
        if (t->peers[n].open) sim_world_on(t->node.world, t->peers[n].shard, run_cut, &t->peers[n]);
    for (asked_shard = 0; asked_shard < t->node.shards; asked_shard++)
        for (int n = 0; t->kafka[asked_shard]; n++) {
            if (n == 10000) {
                violation(t, "operations of connections that were closed do not end");
                return;
            }
            sim_world_on(t->node.world, asked_shard, run_quiesce, t);
            if (dead(t) && !t->node.killed) return; /* died just now */
            if (!t->quiesced) sim_world_run(t->node.world, 10 * SIM_MILLISECOND);
        }
}

static void life(sim *t, bool last) {
    sim_node_boot(&t->node);
    const bool first = !t->made;
    if (!last && !first && chance(t, 1, 8)) sim_world_crash_in(t->node.world, 1 + below(t, 60)); /* while it starts */
    if (!last && !first && chance(t, 1, 10)) {
        sim_world_fail_in(t->node.world, 1 + below(t, 250), chance(t, 1, 2) ? CHRONIK_EIO : CHRONIK_ENOSPC);
        t->node.faulty = true;
    }
    if (start(t)) {
        if (!last && chance(t, 4, 5)) sim_world_crash_in(t->node.world, 1 + below(t, chance(t, 1, 4) ? 30 : 500));
        work(t, 200 + below(t, 800));
        if (last || chance(t, 1, 6)) {
            if (last) sim_world_crash_in(t->node.world, 0);
            if (!t->node.failed && !dead(t) && !t->node.fenced && !t->node.faulty) come_to_rest(t);
        }
        if (!t->node.failed && !dead(t) && !t->node.fenced && chance(t, 1, 3)) {
            close_kafka(t);
            if (!t->node.failed && !dead(t)) sim_node_stop(&t->node);
        }
    }
    sim_node_kill(&t->node);
    if (t->node.broker) close_kafka(t);
    sim_node_end(&t->node);
    sim_node_free(&t->node);
}

static void settings(sim *t, sim_run *run) {
    sim_node_init(&t->node, run, &t->rng);
    t->node.options.crowded = on_crowded;
    t->node.options.fetch_pinned_bytes_max = chance(t, 1, 3) ? 0 : 1 << 20;
    t->node.options.fetch_cold_bytes_max = chance(t, 1, 3) ? 1 : 1 << 20;
    t->node.options.fetch_ahead_bytes_max = chance(t, 1, 3) ? 0 : 1 << 20;
    static const char *const types[] = {"producer", "lz4", "gzip", "snappy", "uncompressed"};
    const char *type = types[below(t, 5)];
    t->compression = (cnk_topic_setting){{"compression.type", 16}, {type, strlen(type)}};
    t->kafka_options = (cnk_kafka_options)CNK_KAFKA_OPTIONS_INIT;
    t->kafka_options.frame_bytes_max = 600000;
    t->kafka_options.produce_bytes_max = 600000;
    t->kafka_options.control_bytes_max = 600000;
    t->kafka_options.pipelined_max = 1 + (uint32_t)below(t, 10);
    t->kafka_options.output_bytes_max = 1 + below(t, 100000);
    t->kafka_options.chunk_bytes = chance(t, 1, 2) ? 4096 : 256 << 10;
    t->kafka_options.session_slots = chance(t, 1, 4) ? (uint32_t)below(t, 3) : 1000;
    t->kafka_options.session_seed = below(t, UINT64_MAX);
}

static bool run_seed(sim_run *run) {
    sim *t = calloc(1, sizeof *t);
    the_sim = t;
    t->seed = run->seed;
    cnk_rng_seed(&t->rng, t->seed * UINT64_C(0x9e3779b97f4a7c15) + 13);
    t->batches = calloc(BATCHES_MAX, sizeof *t->batches);
    for (int n = 0; n < PEERS; n++) {
        t->peers[n].number = n;
        t->peers[n].reader = n >= PRODUCERS;
        t->peers[n].producer_id = -1;
    }
    settings(t, run);
    while (sim_node_goes_on(&t->node, WORLDS_MIN, WORLDS_MAX, CALLS_MIN)) life(t, false);
    if (!t->node.failed) life(t, true);
    const bool ok = sim_node_over(&t->node);
    for (int n = 0; n < LOGS; n++) free(t->logs[n].batches);
    free(t->batches);
    free(t);
    return ok;
}

/* ---- the program ------------------------------------------------------------------------------------------------ */

static const char *const bugs[] = {"none", "ack-before-sync", "lose-wake", "watch-blind", NULL};

static void bug_set(size_t bug) {
    static const struct { enum cnk_wal_bug wal; enum cnk_broker_bug broker; } of[] = {
        {CNK_WAL_BUG_NONE, CNK_BROKER_BUG_NONE},
        {CNK_WAL_BUG_ACK_BEFORE_SYNC, CNK_BROKER_BUG_NONE},
        {CNK_WAL_BUG_NONE, CNK_BROKER_BUG_LOSE_WAKE},
        {CNK_WAL_BUG_NONE, CNK_BROKER_BUG_WATCH_BLIND}};
    cnk_wal_bug = of[bug].wal;
    cnk_broker_bug = of[bug].broker;
}

static void print_totals(void) {
    printf("%llu batches sent, %llu acknowledged, %llu refused; %llu fetches, %llu of them incremental, %llu sessions lost, %llu batches "
           "read; %llu connections cut, %llu closed; %llu rounds at the tail",
           (unsigned long long)totals.produced, (unsigned long long)totals.acked, (unsigned long long)totals.refused,
           (unsigned long long)totals.fetches, (unsigned long long)totals.incremental, (unsigned long long)totals.sessions_lost,
           (unsigned long long)totals.batches_read, (unsigned long long)totals.cuts, (unsigned long long)totals.closed,
           (unsigned long long)totals.rounds);
}

int main(int argc, char **argv) {
    static const sim_program program = {"sim_kafka", 40, bugs, bug_set, run_seed, print_totals};
    return sim_main(&program, argc, argv);
}
