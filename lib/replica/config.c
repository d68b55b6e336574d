/* A group's configuration as bytes (R5): the payload of a CONFIG entry, and a part of the checkpoint's state.
 *
 * Little-endian:
 *   0 u8 version (1) · 1 u8 old voters · 2 u8 new voters · 3 u8 flags (0)
 *   4 each voter, the old ones first: i32 node id · 16 bytes directory id
 * Old voters are there while the group passes from one set to the next; today there are none.
 *
 * Crash rule: an entry like any other; the newest one in the stream holds, committed or not. */
#include "base/assert.h"
#include "base/mem.h"
#include "replica/internal.h"

#define VERSION 1
#define HEAD_BYTES 4u
#define VOTER_BYTES 20u

static void write_voters(cnk_writer *w, const cnk_voters *v);
static void read_voters(cnk_reader *r, uint8_t count, cnk_voters *ret);

size_t cnk_replica_config_size(const cnk_replica_config *config) {
    return HEAD_BYTES + VOTER_BYTES * ((size_t)config->old.count + config->new_.count);
}

void cnk_replica_config_write(cnk_writer *w, const cnk_replica_config *config) {
    cnk_write_u8(w, VERSION);
    cnk_write_u8(w, config->old.count);
    cnk_write_u8(w, config->new_.count);
    cnk_write_u8(w, 0);
    write_voters(w, &config->old);
    write_voters(w, &config->new_);
}

int cnk_replica_config_read(cnk_reader *r, cnk_replica_config *ret_config) {
    uint8_t version = cnk_read_u8(r), olds = cnk_read_u8(r), news = cnk_read_u8(r), flags = cnk_read_u8(r);
    if (r->error != 0 || version != VERSION || flags != 0 || olds > CNK_REPLICA_VOTERS_MAX ||
        news > CNK_REPLICA_VOTERS_MAX)
        return CHRONIK_ECORRUPT;
    cnk_replica_config config = {0};
    read_voters(r, olds, &config.old);
    read_voters(r, news, &config.new_);
    if (r->error != 0) return CHRONIK_ECORRUPT;
    *ret_config = config;
    return 0;
}

static bool same_voters(const cnk_voters *a, const cnk_voters *b) {
    if (a->count != b->count) return false;
    for (size_t i = 0; i < a->count; i++)
        if (a->voter[i].node != b->voter[i].node || !cnk_uuid_equal(&a->voter[i].directory, &b->voter[i].directory))
            return false;
    return true;
}

int cnk_replica_config_share(cnk_replica_shard *shard, const cnk_replica_config *config, cnk_replica_shared **ret_shared) {
    cnk_replica_shared *found = NULL;
    CNK_LIST_EACH(node, &shard->configs) {
        cnk_replica_shared *s = CNK_CONTAINER(node, cnk_replica_shared, node);
        if (same_voters(&s->config.old, &config->old) && same_voters(&s->config.new_, &config->new_)) {
            found = s;
            break;
        }
    }
    if (found == NULL) {
        found = cnk_calloc(1, sizeof *found);
        if (found == NULL) return CHRONIK_ENOMEM;
        found->config = *config;
    }
    found->refs++;
    cnk_list_remove(&found->node);
    cnk_list_push_front(&shard->configs, &found->node);
    *ret_shared = found;
    return 0;
}

void cnk_replica_config_unref(cnk_replica_shared *shared) {
    if (shared == NULL || --shared->refs > 0) return;
    cnk_list_remove(&shared->node);
    cnk_free(shared);
}

void cnk_replica_config_set(cnk_replica *r, cnk_replica_shared *shared) {
    cnk_replica_config_unref(r->config);
    r->config = shared;
}

static void write_voters(cnk_writer *w, const cnk_voters *v) {
    for (size_t i = 0; i < v->count; i++) {
        cnk_write_le32(w, (uint32_t)v->voter[i].node);
        cnk_write_bytes(w, v->voter[i].directory.bytes, sizeof v->voter[i].directory.bytes);
    }
}

static void read_voters(cnk_reader *r, uint8_t count, cnk_voters *ret) {
    ret->count = count;
    for (size_t i = 0; i < count; i++) {
        ret->voter[i].node = (int32_t)cnk_read_le32(r);
        const uint8_t *id = cnk_read_bytes(r, sizeof ret->voter[i].directory.bytes);
        if (id) memcpy(ret->voter[i].directory.bytes, id, sizeof ret->voter[i].directory.bytes);
    }
}
