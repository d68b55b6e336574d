/* A replica's state in the WAL's checkpoints, and its recovery from there.
 *
 * Little-endian; the checkpoint has a CRC over it:
 *   0 u32 "CREP" · 4 u16 version (1) · 6 u16 must-understand flags (0)
 *   8 the configuration (config.c) · u32 length and bytes of the log's state · u32 length and bytes of the machine's
 * All parts are as of the commit index, which the checkpoint carries as the applied index.
 *
 * Crash rule: entries after the applied index are replayed from the WAL. Runs on the opening thread; may block. */
#include "base/assert.h"
#include "base/error.h"
#include "base/mem.h"
#include "replica/internal.h"

#define MAGIC UINT32_C(0x50455243) /* "CREP" */
#define VERSION 1

typedef struct parts {
    const uint8_t *log, *machine;
    uint32_t log_len, machine_len;
} parts;

static size_t length_open(cnk_writer *w);
static void length_close(cnk_writer *w, size_t at);
static int read_parts(cnk_replica *r, const uint8_t *blob, size_t len, parts *ret_parts);
static int read_config(cnk_replica *r, cnk_reader *in);
static int replay_configs(cnk_replica *r, uint64_t applied, chronik_error *err);
static int replay_commands(cnk_replica *r, uint64_t applied, chronik_error *err);
static int read_payload(const cnk_replica *r, const cnk_wal_place *place, uint8_t **ret_buf, chronik_error *err);
static int damaged(const cnk_replica *r, int code, chronik_error *err);

int cnk_replica_state_write(const cnk_replica *r, cnk_writer *out) {
    cnk_write_le32(out, MAGIC);
    cnk_write_le16(out, VERSION);
    cnk_write_le16(out, 0);
    cnk_replica_config_write(out, cnk_replica_config_of(r));
    size_t at = length_open(out);
    int rc = cnk_log_snapshot(r->log, out);
    if (rc != 0) return rc;
    length_close(out, at);
    at = length_open(out);
    if (r->events->snapshot) rc = r->events->snapshot(r->arg, out);
    if (rc != 0) return rc;
    length_close(out, at);
    return out->error;
}

int cnk_replica_restore(cnk_replica *r, chronik_error *err) {
    const cnk_wal_state *state = cnk_wal_stream_state(r->stream);
    const uint8_t *blob = NULL;
    size_t len = 0;
    uint64_t applied = 0;
    parts p = {0};
    cnk_wal_stream_blob(r->stream, &blob, &len, &applied);
    int rc = len > 0 ? read_parts(r, blob, len, &p) : 0;
    if (rc == 0 && applied > state->last_index) rc = CHRONIK_ECORRUPT;
    if (rc != 0) return damaged(r, rc, err);
    if (p.log && state->released_index == 0) r->config_index = 1; /* the first entry of every stream */
    rc = replay_configs(r, applied, err);
    if (rc != 0) return rc;
    /* A sole voter's durable entries are committed: nobody else can have another opinion (S4 made them durable). */
    r->commit_index = cnk_replica_sole(r) ? state->last_index : applied;
    rc = cnk_log_new(&r->shard->options.log, r->stream, p.log, p.log_len, applied, r->commit_index, err, &r->log);
    if (rc != 0) return rc;
    if (p.machine_len > 0 && r->events->restore) {
        rc = r->events->restore(r->arg, p.machine, p.machine_len, applied);
        if (rc != 0) return damaged(r, rc, err);
    }
    if (r->events->apply) rc = replay_commands(r, applied, err);
    if (rc != 0) return rc;
    cnk_wal_stream_commit_set(r->stream, r->commit_index);
    cnk_wal_stream_blob_forget(r->stream);
    /* What was trimmed after the checkpoint was kept for this: the state covers it now. */
    uint64_t trimmed = state->first_index - 1;
    cnk_wal_stream_release(r->stream, trimmed < r->commit_index ? trimmed : r->commit_index);
    return 0;
}

static size_t length_open(cnk_writer *w) {
    size_t at = w->len;
    cnk_write_le32(w, 0);
    return at;
}

static void length_close(cnk_writer *w, size_t at) {
    if (w->error == 0) cnk_store_le32(w->data + at, (uint32_t)(w->len - at - 4));
}

static int read_parts(cnk_replica *r, const uint8_t *blob, size_t len, parts *ret_parts) {
    cnk_reader in = cnk_reader_of(blob, len);
    uint32_t magic = cnk_read_le32(&in);
    uint16_t version = cnk_read_le16(&in), flags = cnk_read_le16(&in);
    if (in.error != 0 || magic != MAGIC || version != VERSION || flags != 0) return CHRONIK_ECORRUPT;
    int rc = read_config(r, &in);
    if (rc != 0) return rc;
    ret_parts->log_len = cnk_read_le32(&in);
    ret_parts->log = cnk_read_bytes(&in, ret_parts->log_len);
    ret_parts->machine_len = cnk_read_le32(&in);
    ret_parts->machine = cnk_read_bytes(&in, ret_parts->machine_len);
    return in.error != 0 || cnk_reader_left(&in) != 0 ? CHRONIK_ECORRUPT : 0;
}

static int read_config(cnk_replica *r, cnk_reader *in) {
    cnk_replica_config config;
    cnk_replica_shared *shared = NULL;
    int rc = cnk_replica_config_read(in, &config);
    if (rc == 0) rc = cnk_replica_config_share(r->shard, &config, &shared);
    if (rc == 0) cnk_replica_config_set(r, shared);
    return rc;
}

/* The newest configuration in the stream holds, committed or not (Raft, section 6). */
static int replay_configs(cnk_replica *r, uint64_t applied, chronik_error *err) {
    const cnk_wal_state *state = cnk_wal_stream_state(r->stream);
    uint64_t from = applied > state->released_index ? applied : state->released_index;
    for (uint64_t index = from + 1; index <= state->last_index; index++) {
        cnk_wal_place place;
        uint8_t *buf = NULL;
        if (cnk_wal_find_index(r->stream, index, &place) != 0) return damaged(r, CHRONIK_ECORRUPT, err);
        if (place.entry.kind != CNK_ENTRY_CONFIG) continue;
        int rc = read_payload(r, &place, &buf, err);
        if (rc != 0) return rc;
        cnk_reader in = cnk_reader_of(buf, place.entry.len);
        rc = read_config(r, &in);
        cnk_free(buf);
        if (rc != 0) return damaged(r, rc, err);
        r->config_index = index;
    }
    return 0;
}

static int replay_commands(cnk_replica *r, uint64_t applied, chronik_error *err) {
    for (uint64_t index = applied + 1; index <= r->commit_index; index++) {
        cnk_wal_place place;
        uint8_t *buf = NULL;
        if (cnk_wal_find_index(r->stream, index, &place) != 0) return damaged(r, CHRONIK_ECORRUPT, err);
        if (place.entry.kind != CNK_ENTRY_COMMAND || cnk_log_own_command(&place.entry)) continue;
        int rc = read_payload(r, &place, &buf, err);
        if (rc != 0) return rc;
        rc = r->events->apply(r->arg, r, index, buf, place.entry.len);
        cnk_free(buf);
        if (rc != 0) return damaged(r, rc, err);
    }
    return 0;
}

static int read_payload(const cnk_replica *r, const cnk_wal_place *place, uint8_t **ret_buf, chronik_error *err) {
    if (place->entry.len > CNK_REPLICA_COMMAND_BYTES_MAX) return damaged(r, CHRONIK_ECORRUPT, err);
    uint8_t *buf = cnk_malloc(place->entry.len + 1u);
    if (buf == NULL) return damaged(r, CHRONIK_ENOMEM, err);
    int rc = 0;
    if (place->data) {
        memcpy(buf, place->data, place->entry.len);
    } else {
        cnk_wal_file *file = cnk_wal_file_pin(r->shard->options.wal, place->file_seq);
        rc = file ? cnk_wal_file_read(file, place->file_pos, place->entry.len, place->crc, buf, err)
                  : damaged(r, CHRONIK_ECORRUPT, err);
        if (file) cnk_wal_file_unpin(file);
    }
    if (rc == 0)
        *ret_buf = buf;
    else
        cnk_free(buf);
    return rc;
}

static int damaged(const cnk_replica *r, int code, chronik_error *err) {
    return cnk_error(err, code, 0, "stream %llu: %s", (unsigned long long)r->id,
                     code == CHRONIK_ENOMEM
                         ? "no memory to recover it"
                         : "its checkpoint or its entries are damaged or missing; see chronikd fsck");
}
