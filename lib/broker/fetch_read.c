/* The job that reads an extent: batches of one partition that are not in memory.
 *
 * Batches that lie side by side in a WAL file are read at once, to memory from which they are sent; each is checked
 * against its CRC there. Data that has moved to the cold tier in the meantime makes the job say ENOTFOUND, and whoever waits
 * for it collects once more.
 *
 * The read belongs to its job until `done`, which runs on the shard that began it. */
#include "base/assert.h"
#include "base/crc32c.h"
#include "broker/fetch.h"

#define ALIGNMENT 4096u
#define SPAN_BYTES_MAX (1u << 20) /* read from a file at once */

static int64_t step(chronik_job *job);
static int read_pieces(cnk_cold_read *r);
static size_t span_of(const file_piece *pieces, size_t count);
static int take_pieces(const file_piece *pieces, size_t n, const uint8_t *chunk, uint64_t at, uint64_t end, size_t *i,
                       uint32_t *crc, cnk_rope *rope);
static int read_span(cnk_wal *wal, const file_piece *pieces, size_t n, cnk_rope *rope);
static int read_tier(cnk_cold_read *r);

void cnk_cold_read_start(cnk_cold_read *r, const chronik_loop *loop, void (*when_done)(chronik_job *job)) {
    const chronik_io *io = r->broker->io;
    r->job = (chronik_job){.loop = loop, .step = step, .done = when_done};
    io->jobs_ops->submit(io->jobs, CHRONIK_LANE_READ, &r->job);
}

static int64_t step(chronik_job *job) {
    cnk_cold_read *r = CNK_CONTAINER(job, cnk_cold_read, job);
    r->next = r->offset;
    r->code = r->pieces ? read_pieces(r) : read_tier(r);
    return CHRONIK_JOB_DONE;
}

static int read_tier(cnk_cold_read *r) {
    const cnk_log_cold *cold = r->broker->options.cold;
    return cold->read(cold->self, r->stream, r->offset, r->end, r->bytes_max, r->one_always, &r->rope, &r->next, NULL);
}

/* The pieces that fit; the first one in any case, for the cut has allotted it. What fails after the first ones ends the
 * answer there: the reader asks again from that place. */
static int read_pieces(cnk_cold_read *r) {
    const file_piece *pieces = r->pieces;
    size_t count = 0, bytes = 0;
    while (count < r->piece_count && (count == 0 || bytes + pieces[count].bytes <= r->bytes_max))
        bytes += pieces[count++].bytes;
    cnk_rope_expect(&r->rope, bytes + 2 * ALIGNMENT);
    for (size_t i = 0; i < count;) {
        size_t n = span_of(pieces + i, count - i), before = r->rope.len;
        int rc = read_span(r->broker->wal, pieces + i, n, &r->rope);
        if (rc != 0) {
            cnk_rope_cut(&r->rope, before);
            return i > 0 ? 0 : rc;
        }
        i += n;
        r->next = pieces[i - 1].end_offset;
    }
    return 0;
}

/* How many of the next pieces one read is good for: in one file, ascending, near enough to each other. */
static size_t span_of(const file_piece *pieces, size_t count) {
    uint64_t used = pieces[0].bytes, from = pieces[0].pos;
    size_t n = 1;
    for (; n < count; n++) {
        uint64_t end = pieces[n].pos + pieces[n].bytes;
        used += pieces[n].bytes;
        if (pieces[n].file_seq != pieces[0].file_seq || pieces[n].pos < pieces[n - 1].pos + pieces[n - 1].bytes ||
            end - from > SPAN_BYTES_MAX || end - from > 2 * used + ALIGNMENT)
            break;
    }
    return n;
}

/* What a chunk that was read at `at` holds of the pieces, from *i on; *crc: of the piece that has begun. */
static int take_pieces(const file_piece *pieces, size_t n, const uint8_t *chunk, uint64_t at, uint64_t end, size_t *i,
                       uint32_t *crc, cnk_rope *rope) {
    for (; *i < n && pieces[*i].pos < end; ++*i) {
        uint64_t first = pieces[*i].pos, last = first + pieces[*i].bytes;
        if (first >= at)
            *crc = 0;
        else
            first = at;
        bool whole = last <= end;
        if (!whole) last = end;
        const uint8_t *data = chunk + (first - at);
        *crc = cnk_crc32c(*crc, data, (size_t)(last - first));
        int rc = cnk_rope_add(rope, data, (size_t)(last - first));
        if (rc != 0 || !whole) return rc;
        if (*crc != pieces[*i].crc) return CHRONIK_ECORRUPT;
    }
    return 0;
}

static int read_span(cnk_wal *wal, const file_piece *pieces, size_t n, cnk_rope *rope) {
    uint64_t from = pieces[0].pos & ~(uint64_t)(ALIGNMENT - 1), end = pieces[n - 1].pos + pieces[n - 1].bytes;
    uint64_t left = ((end + ALIGNMENT - 1) & ~(uint64_t)(ALIGNMENT - 1)) - from;
    cnk_wal_file *file = cnk_wal_file_pin(wal, pieces[0].file_seq);
    if (file == NULL) return CHRONIK_ENOTFOUND; /* freed: its data is in the cold tier */
    int rc = 0;
    size_t i = 0;
    uint32_t crc = 0;
    while (rc == 0 && left > 0) {
        size_t len = left < CNK_ROPE_CHUNK_BYTES_MAX ? (size_t)left : CNK_ROPE_CHUNK_BYTES_MAX;
        uint8_t *to = cnk_rope_room(rope, len);
        int64_t got = to ? cnk_wal_file_read_raw(file, from, len, to, NULL) : CHRONIK_ENOMEM;
        rc = got < 0 ? (int)got : take_pieces(pieces, n, to, from, from + (uint64_t)got, &i, &crc, rope);
        from += len;
        left = got == (int64_t)len ? left - len : 0;
    }
    cnk_wal_file_unpin(file);
    return rc == 0 && i < n ? CHRONIK_ECORRUPT : rc;
}
