/* Writes a pack (pack.h has the byte table and the write order).
 *
 * The payloads come in the order of their source, a WAL file in which many streams are mixed, and go to places that are
 * known beforehand. In between lies a pool of 4 KiB frames, each standing for one block of the pack: a payload is
 * copied into the frames of its blocks, which is the only copy, and full frames that follow each other in the pack are
 * written together. So the source is read once, front to back, the pack is written once, and both bypass the page
 * cache.
 *
 * Invariants: every byte of the file is put exactly once, so at the end no frame is partly filled; a frame is written
 * only when it is full. At most a few frames of each section under way are partly filled; where that is too much for
 * the pool (very many sections, each larger than a few blocks), the sections are written in several passes.
 *
 * Belongs to the job that writes the pack. */
#include "segment/pack.h"

#include <stdlib.h>

#include "base/assert.h"
#include "base/crc32c.h"
#include "base/error.h"
#include "base/mem.h"
#include "segment/pack_format.h"

#define CHUNK_BYTES CNK_PACK_POOL_CHUNK_BYTES
#define FRAME_BYTES_MAX (64u << 10)
#define FRAMES_OF_A_SECTION 8u /* partly filled ones may take an eighth of the pool */
#define CHUNKS_MAX 1024u /* the pool grows beyond its size only where nothing in it is full; 4 GiB is never reached */
#define NO_BLOCK UINT32_MAX
#define WRITE_IOV_MAX 64

typedef struct frame {
    uint32_t block; /* of the pack; NO_BLOCK: free */
    uint32_t filled;
} frame;

typedef struct tail_part {
    const uint8_t *data;
    size_t len;
} tail_part;

struct cnk_pack_writer {
    const chronik_io *io;
    chronik_file *file;
    uint64_t seq;
    uint8_t uid[16];

    cnk_pack_list *const *lists;
    size_t list_count;
    cnk_pack_section *sections; /* of all lists, by position, absolute */
    size_t section_count;
    size_t block_total;
    cnk_pack_copy *copies; /* by section; each pass sorts its own */
    size_t copy_count, copy_next;
    size_t pass_section;

    uint64_t payload_end, directory_pos, file_bytes;
    cnk_writer directory;
    tail_part *tail; /* rows, directory, zeros and trailer, in order */
    size_t tail_count, tail_next;
    uint64_t tail_pos;
    size_t tail_done;
    uint8_t end[CNK_PACK_ALIGN + PACK_TRAILER_BYTES];
    bool tail_made;

    cnk_pack_pool *pool;
    uint32_t frame_bytes, chunk_frames;
    uint8_t *chunks[CHUNKS_MAX];
    uint32_t chunk_count;
    frame *frames;
    size_t frame_capacity;
    uint32_t frame_count, frames_free, frame_hint, frames_full;
    uint32_t *frame_of;                     /* by block of the pack: frame + 1; 0: none */
    uint32_t block_total_file, flush_block; /* blocks of frame_bytes; the last one may be shorter */
};

static int layout(cnk_pack_writer *w, chronik_error *err);
static int make_tail(cnk_pack_writer *w, chronik_error *err);
static int put_bytes(cnk_pack_writer *w, uint64_t pos, const uint8_t *bytes, size_t len, uint32_t *crc);
static int pool_grow(cnk_pack_writer *w);
static void frames_size(cnk_pack_writer *w, size_t pool_bytes);

/* ---- life ---- */

static int put_header(cnk_pack_writer *w) {
    uint8_t h[CNK_PACK_ALIGN] = {0};
    cnk_store_le64(h, PACK_MAGIC);
    cnk_store_le16(h + 8, PACK_VERSION);
    cnk_store_le32(h + 12, CNK_PACK_ALIGN);
    memcpy(h + 16, w->uid, 16);
    cnk_store_le64(h + 32, w->seq);
    cnk_store_le32(h + 40, cnk_crc32c(0, h, 40));
    uint32_t crc = 0;
    return put_bytes(w, 0, h, sizeof h, &crc);
}

int cnk_pack_writer_new(const chronik_io *io, const char *path, uint64_t seq, cnk_pack_list *const *lists,
                        size_t list_count, size_t pool_bytes, cnk_pack_pool *pool, chronik_error *err,
                        cnk_pack_writer **ret_writer) {
    cnk_pack_writer *w = cnk_calloc(1, sizeof *w);
    if (!w) return cnk_error(err, CHRONIK_ENOMEM, 0, "%s: no memory to write a pack", path);
    w->io = io;
    w->seq = seq;
    w->lists = lists;
    w->list_count = list_count;
    w->pool = pool;
    cnk_writer_growing(&w->directory, CNK_PACK_DIRECTORY_BYTES_MAX);
    io->entropy(io->entropy_self, w->uid, sizeof w->uid);
    int rc = layout(w, err);
    if (rc) goto out;
    rc = CHRONIK_ENOMEM;
    if (pool_bytes == 0) pool_bytes = CNK_PACK_POOL_BYTES;
    frames_size(w, pool_bytes);
    w->frame_of = cnk_calloc(w->block_total_file, sizeof *w->frame_of);
    if (!w->frame_of) goto out;
    size_t chunks = pool_bytes / CHUNK_BYTES;
    for (size_t i = 0; i < (chunks ? chunks : 1); i++)
        if (pool_grow(w)) goto out;
    rc = io->disk_ops->open(io->disk, path,
                            CHRONIK_OPEN_READ | CHRONIK_OPEN_WRITE | CHRONIK_OPEN_CREATE | CHRONIK_OPEN_EXCL |
                                CHRONIK_OPEN_DIRECT,
                            err, &w->file);
    if (rc) goto out;
    rc = io->disk_ops->allocate(io->disk, w->file, w->file_bytes, err);
    if (rc) goto out;
    rc = put_header(w);
    if (rc) goto out;
    *ret_writer = w;
    w = NULL;
out:
    if (rc == CHRONIK_ENOMEM) cnk_error(err, rc, 0, "%s: no memory to write a pack", path);
    cnk_pack_writer_free(w);
    return rc;
}

static void chunk_put(cnk_pack_pool *pool, uint8_t *chunk) {
    if (pool && pool->count < sizeof pool->chunks / sizeof *pool->chunks)
        pool->chunks[pool->count++] = chunk;
    else
        cnk_pages_free(chunk, CHUNK_BYTES);
}

void cnk_pack_pool_free(cnk_pack_pool *pool) {
    while (pool->count > 0) cnk_pages_free(pool->chunks[--pool->count], CHUNK_BYTES);
}

void cnk_pack_writer_free(cnk_pack_writer *w) {
    if (!w) return;
    w->io->disk_ops->close(w->io->disk, w->file);
    for (uint32_t i = 0; i < w->chunk_count; i++) chunk_put(w->pool, w->chunks[i]);
    cnk_free(w->frames);
    cnk_free(w->frame_of);
    cnk_free(w->sections);
    cnk_free(w->copies);
    cnk_free(w->tail);
    cnk_writer_free(&w->directory);
    cnk_free(w);
}

uint64_t cnk_pack_writer_file_bytes(const cnk_pack_writer *w) { return w->file_bytes; }

uint64_t cnk_pack_writer_stream_at(const cnk_pack_writer *w, uint64_t dst) {
    for (size_t i = w->section_count; i-- > 0;)
        if (dst >= w->sections[i].pos) return w->sections[i].stream;
    return 0;
}

/* ---- what goes where ---- */

static int section_by_stream(const void *a, const void *b) {
    uint64_t x = ((const cnk_pack_section *)a)->stream, y = ((const cnk_pack_section *)b)->stream;
    return x < y ? -1 : x > y;
}

static int copy_by_source(const void *a, const void *b) {
    uint64_t x = ((const cnk_pack_copy *)a)->src, y = ((const cnk_pack_copy *)b)->src;
    return x < y ? -1 : x > y;
}

static int layout(cnk_pack_writer *w, chronik_error *err) {
    size_t rows = 0;
    for (size_t i = 0; i < w->list_count; i++) {
        CNK_ASSERT(!w->lists[i]->open);
        w->section_count += w->lists[i]->section_count;
        w->copy_count += w->lists[i]->copy_count;
        w->block_total += w->lists[i]->block_count;
        rows += w->lists[i]->rows.len;
    }
    if (w->section_count == 0) return cnk_error(err, CHRONIK_EINVAL, 0, "a pack of nothing");
    uint64_t directory_bytes = PACK_DIRECTORY_HEADER_BYTES + (uint64_t)w->section_count * PACK_SECTION_ROW_BYTES +
                               (uint64_t)w->block_total * PACK_BLOCK_ROW_BYTES;
    if (directory_bytes > CNK_PACK_DIRECTORY_BYTES_MAX)
        return cnk_error(err, CHRONIK_EINVAL, 0, "a pack of %zu sections is over the limit", w->section_count);
    w->sections = cnk_malloc(w->section_count * sizeof *w->sections);
    w->copies = cnk_malloc((w->copy_count ? w->copy_count : 1) * sizeof *w->copies);
    if (!w->sections || !w->copies) return CHRONIK_ENOMEM;

    uint64_t base = CNK_PACK_ALIGN;
    uint32_t block_base = 0;
    size_t s = 0, c = 0;
    for (size_t i = 0; i < w->list_count; i++) {
        cnk_pack_list *l = w->lists[i];
        for (size_t j = 0; j < l->section_count; j++, s++) {
            w->sections[s] = l->sections[j];
            w->sections[s].pos += base;
            w->sections[s].block_first += block_base;
        }
        for (size_t j = 0; j < l->copy_count; j++, c++) {
            w->copies[c] = l->copies[j];
            w->copies[c].dst += base;
        }
        cnk_free(l->copies);
        l->copies = NULL;
        l->copy_count = l->copy_capacity = 0;
        base += l->payload_bytes;
        block_base += (uint32_t)l->block_count;
    }
    w->payload_end = base;
    w->directory_pos = base + rows;
    uint64_t end = w->directory_pos + directory_bytes + PACK_TRAILER_BYTES;
    w->file_bytes = (end + CNK_PACK_ALIGN - 1) / CNK_PACK_ALIGN * CNK_PACK_ALIGN;
    if (w->file_bytes / CNK_PACK_ALIGN >= NO_BLOCK) return cnk_error(err, CHRONIK_EINVAL, 0, "a pack over 16 TiB");
    return 0;
}

bool cnk_pack_writer_pass_next(cnk_pack_writer *w, const cnk_pack_copy **ret_copies, size_t *ret_count) {
    size_t first = w->pass_section, from = w->copy_next;
    if (first == w->section_count) return false;
    uint64_t bytes = 0, small = (uint64_t)w->frame_count * w->frame_bytes / 2;
    size_t i = first;
    for (; i < w->section_count; i++) {
        if (i - first >= CNK_PACK_PASS_SECTIONS_MAX && bytes >= small) break;
        bytes += w->sections[i].control_bytes + w->sections[i].data_bytes;
    }
    w->pass_section = i;
    uint64_t end = i < w->section_count ? w->sections[i].pos : w->payload_end;
    while (w->copy_next < w->copy_count && w->copies[w->copy_next].dst < end) w->copy_next++;
    qsort(w->copies + from, w->copy_next - from, sizeof *w->copies, copy_by_source);
    *ret_copies = w->copies + from;
    *ret_count = w->copy_next - from;
    return true;
}

/* ---- the pool ---- */

/* Large frames make long writes of few pieces, but each section under way has partly filled ones. */
static void frames_size(cnk_pack_writer *w, size_t pool_bytes) {
    size_t sections = w->section_count < CNK_PACK_PASS_SECTIONS_MAX ? w->section_count : CNK_PACK_PASS_SECTIONS_MAX;
    w->frame_bytes = CNK_PACK_ALIGN;
    while (w->frame_bytes < FRAME_BYTES_MAX && w->frame_bytes * 2 * sections * FRAMES_OF_A_SECTION <= pool_bytes)
        w->frame_bytes *= 2;
    w->chunk_frames = CHUNK_BYTES / w->frame_bytes;
    w->block_total_file = (uint32_t)((w->file_bytes + w->frame_bytes - 1) / w->frame_bytes);
}

/* The bytes that make a block full: the file's last one may be shorter than the others. */
static uint32_t block_bytes(const cnk_pack_writer *w, uint32_t block) {
    uint64_t left = w->file_bytes - (uint64_t)block * w->frame_bytes;
    return left < w->frame_bytes ? (uint32_t)left : w->frame_bytes;
}

static uint8_t *frame_data(const cnk_pack_writer *w, uint32_t f) {
    return w->chunks[f / w->chunk_frames] + (size_t)(f % w->chunk_frames) * w->frame_bytes;
}

static int pool_grow(cnk_pack_writer *w) {
    if (w->chunk_count == CHUNKS_MAX) return CHRONIK_ENOMEM;
    if (cnk_array_reserve((void **)&w->frames, &w->frame_capacity, w->frame_count + w->chunk_frames, sizeof *w->frames))
        return CHRONIK_ENOMEM;
    uint8_t *chunk = w->pool && w->pool->count > 0 ? w->pool->chunks[--w->pool->count] : cnk_pages_alloc(CHUNK_BYTES);
    if (!chunk) return CHRONIK_ENOMEM;
    w->chunks[w->chunk_count++] = chunk;
    for (uint32_t i = 0; i < w->chunk_frames; i++) w->frames[w->frame_count + i] = (frame){NO_BLOCK, 0};
    w->frame_hint = w->frame_count;
    w->frame_count += w->chunk_frames;
    w->frames_free += w->chunk_frames;
    return 0;
}

/* The block's frame, or a free one. The caller has made sure that there is one. */
static uint32_t frame_get(cnk_pack_writer *w, uint32_t block) {
    if (w->frame_of[block]) return w->frame_of[block] - 1;
    while (w->frames[w->frame_hint].block != NO_BLOCK) w->frame_hint = (w->frame_hint + 1) % w->frame_count;
    uint32_t f = w->frame_hint;
    w->frame_hint = (f + 1) % w->frame_count;
    w->frames[f] = (frame){block, 0};
    w->frame_of[block] = f + 1;
    w->frames_free--;
    return f;
}

size_t cnk_pack_writer_room(const cnk_pack_writer *w) {
    return w->frames_free > 2 ? (size_t)(w->frames_free - 2) * w->frame_bytes : 0;
}

/* Copies into the frames of [pos, pos + len). Neighbours in the pack that are neighbours in the pool are copied in one
 * go. The room has been checked. */
static void put_frames(cnk_pack_writer *w, uint64_t pos, const uint8_t *bytes, size_t len, uint32_t *crc) {
    while (len > 0) {
        uint32_t skew = (uint32_t)(pos % w->frame_bytes), block = (uint32_t)(pos / w->frame_bytes);
        uint32_t first = frame_get(w, block), last = first;
        size_t run = 0;
        for (;;) {
            size_t n = w->frame_bytes - skew < len - run ? w->frame_bytes - skew : len - run;
            frame *fr = &w->frames[last];
            fr->filled += (uint32_t)n;
            CNK_ASSERT(fr->filled <= block_bytes(w, block));
            if (fr->filled == block_bytes(w, block)) w->frames_full++;
            run += n;
            skew = 0;
            if (run == len || (last + 1) % w->chunk_frames == 0) break;
            uint32_t next = frame_get(w, ++block);
            if (next != last + 1) break;
            last = next;
        }
        *crc = cnk_crc32c_copy(*crc, frame_data(w, first) + pos % w->frame_bytes, bytes, run);
        pos += run;
        bytes += run;
        len -= run;
    }
}

static int put_bytes(cnk_pack_writer *w, uint64_t pos, const uint8_t *bytes, size_t len, uint32_t *crc) {
    if (len == 0) return 0;
    size_t frames = (size_t)((pos + len - 1) / w->frame_bytes - pos / w->frame_bytes + 1);
    while (frames > w->frames_free) {
        /* Only where nothing is full, waiting for a flush would be for ever. */
        if (w->frames_full > 0) return CHRONIK_EAGAIN;
        if (pool_grow(w)) return CHRONIK_ENOMEM;
    }
    put_frames(w, pos, bytes, len, crc);
    return 0;
}

int cnk_pack_writer_put(cnk_pack_writer *w, const cnk_pack_copy *copy, uint32_t done, const void *bytes, uint32_t len,
                        uint32_t *crc, chronik_error *err) {
    CNK_ASSERT(done <= copy->len && len <= copy->len - done);
    int rc = put_bytes(w, copy->dst + done, bytes, len, crc);
    if (rc == CHRONIK_ENOMEM) return cnk_error(err, rc, 0, "no memory for the pool of a pack");
    if (rc) return rc;
    if (done + len == copy->len && *crc != copy->crc)
        return cnk_error(err, CHRONIK_ECORRUPT, 0, "the payload at %llu fails its checksum (%08x, not %08x)",
                         (unsigned long long)copy->src, *crc, copy->crc);
    return 0;
}

/* ---- to the disk ---- */

static bool block_full(const cnk_pack_writer *w, uint32_t block) {
    return w->frame_of[block] && w->frames[w->frame_of[block] - 1].filled == block_bytes(w, block);
}

/* Writes the full blocks from `block` on, as many as follow each other, and frees their frames. Returns their number.
 */
static int64_t write_run(cnk_pack_writer *w, uint32_t block, uint32_t blocks_max, chronik_error *err) {
    struct iovec iov[WRITE_IOV_MAX] = {{NULL, 0}};
    int iov_count = 0;
    uint32_t n = 0;
    for (; n < blocks_max && block + n < w->block_total_file && block_full(w, block + n); n++) {
        uint8_t *data = frame_data(w, w->frame_of[block + n] - 1);
        struct iovec *last = &iov[iov_count - (iov_count > 0)];
        if (iov_count > 0 && (uint8_t *)last->iov_base + last->iov_len == data) {
            last->iov_len += block_bytes(w, block + n);
        } else {
            if (iov_count == WRITE_IOV_MAX) break;
            iov[iov_count++] = (struct iovec){data, block_bytes(w, block + n)};
        }
    }
    int rc = w->io->disk_ops->write(w->io->disk, w->file, iov, iov_count, (uint64_t)block * w->frame_bytes, err);
    if (rc) return rc;
    for (uint32_t i = 0; i < n; i++) {
        uint32_t f = w->frame_of[block + i] - 1;
        w->frame_of[block + i] = 0;
        w->frames[f].block = NO_BLOCK;
    }
    w->frames_free += n;
    w->frames_full -= n;
    return n;
}

int64_t cnk_pack_writer_flush(cnk_pack_writer *w, size_t bytes_max, chronik_error *err) {
    uint32_t want = (uint32_t)(bytes_max / w->frame_bytes), done = 0;
    if (want == 0) want = 1;
    while (w->frames_full > 0 && done < want) {
        while (!block_full(w, w->flush_block)) w->flush_block = (w->flush_block + 1) % w->block_total_file;
        int64_t n = write_run(w, w->flush_block, want - done, err);
        if (n < 0) return n;
        done += (uint32_t)n;
        w->flush_block = (uint32_t)((w->flush_block + n) % w->block_total_file);
    }
    return (int64_t)done * w->frame_bytes;
}

int cnk_pack_writer_finish(cnk_pack_writer *w, size_t bytes_max, chronik_error *err) {
    int rc = w->tail_made ? 0 : make_tail(w, err);
    if (rc) return rc;
    int64_t n = cnk_pack_writer_flush(w, bytes_max, err);
    if (n < 0) return (int)n;
    while (w->tail_next < w->tail_count) {
        const tail_part *part = &w->tail[w->tail_next];
        size_t room = cnk_pack_writer_room(w), len = part->len - w->tail_done;
        if (len > 0 && room == 0) return CHRONIK_EAGAIN;
        if (len > room) len = room;
        uint32_t crc = 0;
        rc = put_bytes(w, w->tail_pos, part->data + w->tail_done, len, &crc);
        if (rc == CHRONIK_ENOMEM) return cnk_error(err, rc, 0, "no memory for the pool of a pack");
        if (rc) return rc;
        w->tail_pos += len;
        w->tail_done += len;
        if (w->tail_done < part->len) continue;
        w->tail_next++;
        w->tail_done = 0;
    }
    if (w->frames_full > 0) return CHRONIK_EAGAIN;
    CNK_ASSERT(w->tail_pos == w->file_bytes && w->frames_free == w->frame_count);
    return 0;
}

int cnk_pack_writer_sync(cnk_pack_writer *w, chronik_error *err) {
    CNK_ASSERT(w->tail_made && w->frames_free == w->frame_count);
    return w->io->disk_ops->sync(w->io->disk, w->file, err);
}

/* ---- rows, directory, trailer ---- */

void cnk_pack_section_row_write(cnk_writer *d, const cnk_pack_section *s) {
    cnk_write_le64(d, s->stream);
    cnk_write_le64(d, s->first_index);
    cnk_write_le64(d, s->last_index);
    cnk_write_le64(d, (uint64_t)s->first_offset);
    cnk_write_le64(d, (uint64_t)s->end_offset);
    cnk_write_le64(d, (uint64_t)s->max_timestamp);
    cnk_write_le64(d, s->pos);
    cnk_write_le64(d, s->control_bytes);
    cnk_write_le64(d, s->data_bytes);
    cnk_write_le32(d, s->block_first);
    cnk_write_le32(d, s->block_count);
    cnk_write_le32(d, s->first_term);
    cnk_write_le32(d, s->last_term);
    cnk_write_le32(d, s->entries);
    cnk_write_le32(d, 0);
}

static void write_block_row(cnk_writer *d, const cnk_pack_block_row *b, uint64_t base) {
    cnk_write_le64(d, base + b->pos);
    cnk_write_le32(d, b->len);
    cnk_write_le32(d, b->rows);
    cnk_write_le64(d, b->first_index);
    cnk_write_le64(d, (uint64_t)b->base_offset);
    cnk_write_le64(d, (uint64_t)b->end_offset);
    cnk_write_le64(d, (uint64_t)b->max_timestamp);
    cnk_write_le64(d, b->data_pos);
    cnk_write_le32(d, b->crc);
    cnk_write_le32(d, 0);
}

static int make_directory(cnk_pack_writer *w, chronik_error *err) {
    qsort(w->sections, w->section_count, sizeof *w->sections, section_by_stream);
    for (size_t i = 1; i < w->section_count; i++)
        if (w->sections[i].stream == w->sections[i - 1].stream)
            return cnk_error(err, CHRONIK_EINVAL, 0, "stream %016llx is in the pack twice",
                             (unsigned long long)w->sections[i].stream);
    cnk_writer *d = &w->directory;
    cnk_write_le32(d, 0);
    cnk_write_le32(d, 0);
    cnk_write_le16(d, PACK_BLOCK_DIRECTORY);
    cnk_write_le16(d, 0);
    cnk_write_le32(d, (uint32_t)w->section_count);
    cnk_write_le32(d, PACK_SECTION_ROW_BYTES);
    cnk_write_le32(d, (uint32_t)w->block_total);
    cnk_write_le32(d, PACK_BLOCK_ROW_BYTES);
    cnk_write_le32(d, 0);
    for (size_t i = 0; i < w->section_count; i++) cnk_pack_section_row_write(d, &w->sections[i]);
    uint64_t base = w->payload_end;
    for (size_t i = 0; i < w->list_count; i++) {
        const cnk_pack_list *l = w->lists[i];
        for (size_t j = 0; j < l->block_count; j++) write_block_row(d, &l->blocks[j], base);
        base += l->rows.len;
    }
    CNK_ASSERT(base == w->directory_pos);
    if (d->error) return cnk_error(err, d->error, 0, "no memory for the directory of a pack");
    cnk_store_le32(d->data + 4, (uint32_t)d->len);
    cnk_store_le32(d->data, cnk_crc32c(0, d->data + 4, d->len - 4));
    return 0;
}

/* Zeros and the trailer; returns their length. */
static size_t make_end(cnk_pack_writer *w) {
    size_t len = (size_t)(w->file_bytes - w->directory_pos - w->directory.len);
    CNK_ASSERT(len >= PACK_TRAILER_BYTES && len <= sizeof w->end);
    uint8_t *t = w->end + len - PACK_TRAILER_BYTES;
    cnk_store_le64(t, w->directory_pos);
    cnk_store_le32(t + 8, (uint32_t)w->directory.len);
    cnk_store_le32(t + 12, cnk_load_le32(w->directory.data));
    memcpy(t + 16, w->uid, 16);
    cnk_store_le64(t + 32, w->seq);
    cnk_store_le64(t + 40, w->file_bytes);
    cnk_store_le16(t + 48, PACK_VERSION);
    cnk_store_le16(t + 50, 0);
    cnk_store_le32(t + 52, cnk_crc32c(0, t, 52));
    cnk_store_le64(t + 56, PACK_TRAILER_MAGIC);
    return len;
}

static int make_tail(cnk_pack_writer *w, chronik_error *err) {
    CNK_ASSERT(w->pass_section == w->section_count);
    int rc = make_directory(w, err);
    if (rc) return rc;
    w->tail = cnk_malloc((w->list_count + 2) * sizeof *w->tail);
    if (!w->tail) return cnk_error(err, CHRONIK_ENOMEM, 0, "no memory for the directory of a pack");
    for (size_t i = 0; i < w->list_count; i++)
        w->tail[w->tail_count++] = (tail_part){w->lists[i]->rows.data, w->lists[i]->rows.len};
    w->tail[w->tail_count++] = (tail_part){w->directory.data, w->directory.len};
    w->tail[w->tail_count++] = (tail_part){w->end, make_end(w)};
    w->tail_pos = w->payload_end;
    w->tail_made = true;
    return 0;
}
