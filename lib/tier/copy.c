/* The job that writes a pack, from sealed WAL files or from an older pack, or deletes one, or writes the catalog file anew.
 *
 * A step is at most one read of CNK_TIER_READ_BYTES, the copies out of it, and the writes that make room for them, so
 * that other jobs of the lane come in between; while nothing presses, steps are spread to keep to calm_bytes_per_s.
 *
 *   OPEN ─► COPY ─► FINISH (rows, directory, sync) ─► NAME (rename, sync the directory, open, note it) ─► END
 *     └───────┴────────┴─ any failure ──────────────────────────────────────────────────────────►
 *
 * Whatever fails before the rename leaves nothing but a temporary file, which is removed here or at the next start. */
#include "base/assert.h"
#include "base/error.h"
#include "base/mem.h"
#include "tier/internal.h"

#define GAP_BYTES (256u << 10) /* what is not wanted is read over, where it is shorter than this */

static int64_t job_step(chronik_job *job);
static int step_open(tier_job *j);
static int step_copy(tier_job *j);
static int step_finish(tier_job *j);
static int step_name(tier_job *j);
static int step_delete(tier_job *j);

void cnk_tier_job_submit(cnk_tier *t) {
    tier_job *j = &t->job;
    t->worked = true;
    j->tier = t;
    j->step = STEP_OPEN;
    j->code = 0;
    j->error = (chronik_error)CHRONIK_ERROR_INIT;
    j->job = (chronik_job){.loop = t->ports[0]->loop, .step = job_step, .done = cnk_tier_job_done};
    t->io->jobs_ops->submit(t->io->jobs, CHRONIK_LANE_BACKGROUND, &j->job);
}

/* Lets go of all that the job held but `made`. */
void cnk_tier_job_clear(tier_job *j) {
    cnk_pack_writer_free(j->writer);
    if (j->tier) j->tier->io->disk_ops->close(j->tier->io->disk, j->catalog);
    if (j->buf) cnk_pages_free(j->buf, CNK_TIER_READ_BYTES);
    for (size_t i = 0; j->files && i < j->source_count; i++)
        if (j->files[i]) cnk_wal_file_unpin(j->files[i]);
    cnk_free(j->sources);
    cnk_free(j->files);
    cnk_free(j->live);
    cnk_free(j->path);
    cnk_free(j->temporary);
    cnk_pack_list_free(&j->list);
    cnk_pack *made = j->made;
    *j = (tier_job){.made = made};
    cnk_pack_list_init(&j->list);
}

static void remove_temporary(tier_job *j) {
    const chronik_io *io = j->tier->io;
    cnk_pack_writer_free(j->writer); /* closes the file */
    j->writer = NULL;
    io->disk_ops->close(io->disk, j->catalog);
    j->catalog = NULL;
    if (j->temporary) io->disk_ops->unlink(io->disk, j->temporary, NULL);
    if (j->step == STEP_NAME) io->disk_ops->unlink(io->disk, j->path, NULL);
}

static int64_t pace(const tier_job *j, uint64_t begun_ns) {
    uint64_t rate = j->tier->options.calm_bytes_per_s;
    if (rate == 0 || j->step != STEP_COPY || atomic_load_explicit(&j->tier->hurry, memory_order_relaxed)) return 0;
    uint64_t took = j->tier->io->jobs_ops->now_ns(j->tier->io->jobs) - begun_ns;
    uint64_t wanted = (uint64_t)CNK_TIER_READ_BYTES * UINT64_C(1000000000) / rate;
    return wanted > took ? (int64_t)(wanted - took) : 0;
}

static int64_t job_step(chronik_job *job) {
    tier_job *j = CNK_CONTAINER(job, tier_job, job);
    static int (*const steps[])(tier_job *) = {step_open, step_copy, step_finish, step_name};
    uint64_t begun_ns = j->tier->io->jobs_ops->now_ns(j->tier->io->jobs);
    int rc = atomic_load_explicit(&j->tier->stopping, memory_order_relaxed) ? CHRONIK_ESHUTDOWN
             : j->what == JOB_DELETE                                        ? step_delete(j)
             : j->what == JOB_CATALOG                                       ? cnk_tier_catalog_step(j)
                                                                            : steps[j->step](j);
    if (rc == CHRONIK_EAGAIN) return pace(j, begun_ns);
    if (rc) {
        j->code = rc;
        if (!j->error.code) j->error.code = rc;
        if (j->what != JOB_DELETE && !j->made) remove_temporary(j);
        return CHRONIK_JOB_DONE;
    }
    if (j->what == JOB_DELETE || j->what == JOB_CATALOG || ++j->step == STEP_END) return CHRONIK_JOB_DONE;
    return 0;
}

/* ---- OPEN ---- */

static int pin_sources(tier_job *j) {
    for (size_t i = 0; i < j->source_count; i++) {
        j->files[i] = cnk_wal_file_pin(j->tier->wal, j->sources[i]);
        if (!j->files[i])
            return cnk_error(&j->error, CHRONIK_EIO, 0, "WAL file %u, which is to be converted, is gone",
                             j->sources[i]);
    }
    return 0;
}

static int list_section(tier_job *j, const cnk_pack_section *s, uint8_t *buf) {
    const cnk_pack *pack = j->old->pack;
    int rc = cnk_pack_list_section(&j->list, s->stream);
    for (uint32_t b = s->block_first; rc == 0 && b < s->block_first + s->block_count; b++) {
        const uint8_t *bytes = NULL;
        cnk_pack_cursor c;
        rc = cnk_pack_block_read(pack, b, buf, &j->error, &bytes);
        if (rc == 0) rc = cnk_pack_cursor_init(&c, pack, s, b, bytes);
        while (rc == 0 && (rc = cnk_pack_cursor_next(&c)) > 0) rc = cnk_pack_list_row(&j->list, &c.row, c.row.pos);
    }
    return rc;
}

/* The rows of an old pack's sections that are to be kept. */
static int list_old_pack(tier_job *j) {
    uint8_t *buf = cnk_pages_alloc(CNK_PACK_BLOCK_BUFFER_BYTES);
    if (!buf) return CHRONIK_ENOMEM;
    int rc = cnk_tier_pack_load(j->tier, j->old->pack, &j->error);
    for (size_t i = 0; i < j->live_count && rc == 0; i++)
        rc = list_section(j, cnk_pack_find(j->old->pack, j->live[i]), buf);
    if (rc == 0) rc = cnk_pack_list_end(&j->list);
    cnk_pages_free(buf, CNK_PACK_BLOCK_BUFFER_BYTES);
    j->lists[0] = &j->list;
    j->list_count = 1;
    return rc;
}

static int step_open(tier_job *j) {
    const chronik_io *io = j->tier->io;
    const char *dir = j->tier->dir;
    j->path = cnk_tier_path(dir, j->seq, ".pack");
    j->temporary = cnk_tier_path(dir, j->seq, ".tmp");
    j->buf = cnk_pages_alloc(CNK_TIER_READ_BYTES);
    if (!j->path || !j->temporary || !j->buf)
        return cnk_error(&j->error, CHRONIK_ENOMEM, 0, "no memory to write a pack");
    int rc = j->what == JOB_REWRITE ? list_old_pack(j) : pin_sources(j);
    if (rc == CHRONIK_EINVAL) rc = CHRONIK_ECORRUPT; /* the old rows break the rules of order */
    if (rc) return rc;
    io->disk_ops->unlink(io->disk, j->temporary, NULL); /* of an attempt that failed */
    return cnk_pack_writer_new(io, j->temporary, j->seq, j->lists, j->list_count, j->tier->options.pool_bytes,
                               &j->tier->pool, &j->error, &j->writer);
}

/* ---- COPY ---- */

static uint64_t source_pos(const cnk_pack_copy *c) { return c->src & ((UINT64_C(1) << TIER_SOURCE_SHIFT) - 1); }

static int64_t source_read(tier_job *j, uint64_t source, uint64_t pos, size_t len) {
    if (j->what == JOB_CONVERT) return cnk_wal_file_read_raw(j->files[source], pos, len, j->buf, &j->error);
    uint64_t left = j->old->pack->file_bytes - pos;
    size_t skew, n = left < len ? (size_t)left : len;
    int rc = cnk_pack_read(j->old->pack, pos, n, j->buf, &j->error, &skew);
    return rc ? rc : (int64_t)n;
}

/* The end of what is read next, from copy_next on: as far as the copies go without a long gap, within the buffer. */
static uint64_t read_end(const tier_job *j, uint64_t from) {
    uint64_t end = from;
    for (size_t i = j->copy_next; i < j->copy_count; i++) {
        const cnk_pack_copy *c = &j->copies[i];
        uint64_t pos = source_pos(c);
        if (c->src >> TIER_SOURCE_SHIFT != j->copies[j->copy_next].src >> TIER_SOURCE_SHIFT) break;
        if (i > j->copy_next && pos > end + GAP_BYTES) break;
        if (pos + c->len > end) end = pos + c->len;
        if (end >= from + CNK_TIER_READ_BYTES) return from + CNK_TIER_READ_BYTES;
    }
    return (end + CNK_PACK_ALIGN - 1) / CNK_PACK_ALIGN * CNK_PACK_ALIGN;
}

/* Makes room for what one read can bring. What is full goes to the disk, in the pack's order, round and round. */
static int make_room(tier_job *j) {
    while (cnk_pack_writer_room(j->writer) < CNK_TIER_READ_BYTES) {
        int64_t n = cnk_pack_writer_flush(j->writer, CNK_TIER_READ_BYTES, &j->error);
        if (n < 0) return (int)n;
        if (n == 0) break; /* nothing is full: the pool will grow */
    }
    return 0;
}

/* Puts what the buffer, which begins at `from`, has of the next copies. */
static int put_copies(tier_job *j, uint64_t source, uint64_t from, uint64_t end) {
    while (j->copy_next < j->copy_count) {
        const cnk_pack_copy *c = &j->copies[j->copy_next];
        uint64_t pos = source_pos(c) + j->copy_done;
        if (c->src >> TIER_SOURCE_SHIFT != source || pos >= end) break;
        CNK_ASSERT(pos >= from);
        uint32_t n = c->len - j->copy_done;
        if (n > end - pos) n = (uint32_t)(end - pos);
        int rc = cnk_pack_writer_put(j->writer, c, j->copy_done, j->buf + (pos - from), n, &j->copy_crc, &j->error);
        if (rc == CHRONIK_EAGAIN) {
            int64_t flushed = cnk_pack_writer_flush(j->writer, CNK_TIER_READ_BYTES, &j->error);
            if (flushed < 0) return (int)flushed;
            continue;
        }
        if (rc == CHRONIK_ECORRUPT) j->bad_stream = cnk_pack_writer_stream_at(j->writer, c->dst);
        if (rc) return rc;
        j->copy_done += n;
        if (j->copy_done < c->len) break;
        j->copy_next++;
        j->copy_done = j->copy_crc = 0;
    }
    return 0;
}

static int step_copy(tier_job *j) {
    if (j->copy_next == j->copy_count) {
        j->copy_next = j->copy_count = 0;
        return cnk_pack_writer_pass_next(j->writer, &j->copies, &j->copy_count) ? CHRONIK_EAGAIN : 0;
    }
    const cnk_pack_copy *c = &j->copies[j->copy_next];
    uint64_t source = c->src >> TIER_SOURCE_SHIFT, pos = source_pos(c) + j->copy_done;
    uint64_t from = pos / CNK_PACK_ALIGN * CNK_PACK_ALIGN, end = read_end(j, from);
    int rc = make_room(j);
    if (rc) return rc;
    int64_t n = source_read(j, source, from, (size_t)(end - from));
    if (n < 0) return (int)n;
    if (from + (uint64_t)n <= pos)
        return cnk_error(&j->error, CHRONIK_ECORRUPT, 0, "the source of a pack ends at %llu, before its entries do",
                         (unsigned long long)(from + (uint64_t)n));
    rc = put_copies(j, source, from, from + (uint64_t)n);
    return rc ? rc : CHRONIK_EAGAIN;
}

/* ---- FINISH, NAME, DELETE ---- */

static int step_finish(tier_job *j) {
    int rc = cnk_pack_writer_finish(j->writer, CNK_TIER_READ_BYTES, &j->error);
    if (rc == 0 && !TIER_BUG(PACK_NOT_SYNCED)) rc = cnk_pack_writer_sync(j->writer, &j->error);
    return rc;
}

static int unlink_pack(const chronik_io *io, const cnk_pack *pack, chronik_error *err) {
    int rc = io->disk_ops->unlink(io->disk, pack->path, err);
    return rc == CHRONIK_ENOTFOUND ? 0 : rc;
}

/* Where the directory cannot be synced, the pack may or may not be there after a crash: its source is kept, and the
 * next attempt writes under another name. */
static int step_name(tier_job *j) {
    const chronik_io *io = j->tier->io;
    cnk_pack_writer_free(j->writer);
    j->writer = NULL;
    int rc = io->disk_ops->rename(io->disk, j->temporary, j->path, &j->error);
    if (rc == 0 && !TIER_BUG(RENAME_NOT_SYNCED)) rc = io->disk_ops->sync_dir(io->disk, j->tier->dir, &j->error);
    if (rc == 0) rc = cnk_pack_open(io, j->path, &j->error, &j->made);
    if (rc) return rc;
    /* An old one that stays is found at the next start: then the new one's sections are there already. */
    bool gone = j->what == JOB_REWRITE && !TIER_BUG(NAME_USED_TWICE) && unlink_pack(io, j->old->pack, NULL) == 0;
    cnk_tier_catalog_note(j->tier, j->made, gone ? j->old->pack : NULL);
    return 0;
}

/* It is opened first, since readers may have found it before it died. A deletion that a crash undoes is done again at the
 * next start. */
static int step_delete(tier_job *j) {
    int rc = cnk_tier_pack_load(j->tier, j->old->pack, &j->error);
    if (rc == 0) rc = unlink_pack(j->tier->io, j->old->pack, &j->error);
    if (rc == 0) cnk_tier_catalog_note(j->tier, NULL, j->old->pack);
    return rc;
}
