/* The catalog file: what the packs of the directory hold, so that a start need not open them. A cache, never the truth.
 *
 * packs/catalog. All integers are little-endian; every CRC is CRC-32C. Records follow each other to the end of the file.
 *
 *   HEADER, 40 bytes at 0
 *     0 u64 magic "CHRNCATA"   8 u16 version = 1   10 u16 must-understand bits = 0   12 u32 bytes = 40
 *    16 16B uid of this file  32 u32 zero         36 u32 crc of bytes 0..36
 *   RECORD
 *     0 u32 crc of the file's uid, the record's position (u64), and bytes 4..length   4 u32 length
 *     8 u16 kind   10 u16 must-understand bits = 0   12 what the kind says
 *     kind 1, PACK: u32 zero, and from 16 on a pack's description (segment/pack.h)
 *     kind 2, GONE: u32 zero, 16 u64 seq of a pack that has been deleted
 *
 * Crash rule. A record is appended after what it tells is durable, and is not synced itself. What is not a whole record with
 * the right CRC ends the file, whatever lies behind it: the CRC covers the position and the file's uid, so that what a
 * lost write leaves, or an older file in the same blocks, is none. A file that is written anew gets its name after its sync.
 * A later PACK of the same seq counts, not an earlier one; GONE ends either.
 *
 * Version rule (S14). Header and rows may grow at their ends. An unknown version or must-understand bit ends the file, as
 * damage does; a kind that is not known, without such a bit, is passed over. The start that finds the file to end early
 * removes it (tier.c), so that nothing behind that place can come back when it has become wrong.
 *
 * Threads. Everything is the job's while one is under way, else home's, at the start its caller's; `wrong` is
 * everybody's. */
#include <stdio.h>
#include <string.h>

#include "base/crc32c.h"
#include "base/error.h"
#include "base/mem.h"
#include "tier/internal.h"

#define MAGIC UINT64_C(0x415441434e524843) /* "CHRNCATA" */
#define VERSION 1u
#define HEADER_BYTES 40u
#define RECORD_BYTES 16u /* before the description, or the seq */
#define READ_BYTES ((size_t)1 << 20)
#define WRITE_BYTES ((size_t)1 << 20)
/* More than that, and more than half, is of packs that are gone: the file is written anew. */
#ifdef CNK_TEST_HOOKS
#define GARBAGE_BYTES UINT64_C(1000)
#else
#define GARBAGE_BYTES (UINT64_C(64) << 10)
#endif

/* Memory for reading and writing is the kernel's own, so that none of it stays behind. */
#define PAGES_BYTES(len) (((len) + 4095) / 4096 * 4096)

enum { KIND_PACK = 1, KIND_GONE = 2 };

char *cnk_tier_catalog_path(const char *dir, const char *suffix) {
    size_t size = strlen(dir) + strlen(suffix) + sizeof "/catalog";
    char *path = cnk_malloc(size);
    if (path) snprintf(path, size, "%s/catalog%s", dir, suffix);
    return path;
}

static uint32_t record_crc(const uint8_t uid[16], uint64_t pos, const uint8_t *record, size_t len) {
    uint8_t seed[24];
    memcpy(seed, uid, 16);
    cnk_store_le64(seed + 16, pos);
    return cnk_crc32c(cnk_crc32c(0, seed, sizeof seed), record + 4, len - 4);
}

/* ---- reading ---- */

typedef struct input {
    const chronik_io *io;
    chronik_file *file;
    const char *path;
    uint64_t file_bytes, pos; /* of `data`'s first byte */
    uint8_t *data;
    size_t at, have, capacity;
    chronik_error *err;
} input;

static int cut(const input *in, int code, const char *what) {
    return cnk_error(in->err, code, 0, "%s: %s at %llu", in->path, what, (unsigned long long)(in->pos + in->at));
}

/* Makes the next `len` bytes, which the file has, lie at data + at. */
static int need(input *in, size_t len) {
    if (in->have - in->at >= len) return 0;
    uint8_t *data = in->data;
    size_t capacity = in->capacity;
    if (len > capacity) {
        capacity = len > READ_BYTES ? PAGES_BYTES(len) : READ_BYTES;
        data = cnk_pages_alloc(capacity);
        if (!data) return cut(in, CHRONIK_ENOMEM, "no memory for a record");
    }
    if (in->have > in->at) memmove(data, in->data + in->at, in->have - in->at);
    if (in->data && data != in->data) cnk_pages_free(in->data, in->capacity);
    in->data = data;
    in->capacity = capacity;
    in->pos += in->at;
    in->have -= in->at;
    in->at = 0;
    uint64_t left = in->file_bytes - in->pos - in->have;
    size_t want = in->capacity - in->have < left ? in->capacity - in->have : (size_t)left;
    int64_t n = in->io->disk_ops->read(in->io->disk, in->file, in->data + in->have, want, in->pos + in->have, in->err);
    if (n < 0) return (int)n;
    in->have += (size_t)n;
    return (size_t)n == want ? 0 : cut(in, CHRONIK_ECORRUPT, "it became shorter while it was read: the record");
}

static int read_header(input *in, tier_catalog *c) {
    if (in->file_bytes < HEADER_BYTES) return cut(in, CHRONIK_ECORRUPT, "no header");
    int rc = need(in, HEADER_BYTES);
    if (rc) return rc;
    cnk_reader r = cnk_reader_of(in->data, HEADER_BYTES);
    uint64_t magic = cnk_read_le64(&r);
    uint16_t version = cnk_read_le16(&r), must = cnk_read_le16(&r);
    uint32_t bytes = cnk_read_le32(&r);
    if (magic != MAGIC || cnk_load_le32(in->data + 36) != cnk_crc32c(0, in->data, 36))
        return cut(in, CHRONIK_ECORRUPT, "the header is damaged, or of another kind of file,");
    if (version != VERSION || must) return cut(in, CHRONIK_EUNSUPPORTED, "a header of a newer version");
    if (bytes < HEADER_BYTES || bytes > in->file_bytes) return cut(in, CHRONIK_ECORRUPT, "an impossible header");
    memcpy(c->uid, cnk_read_bytes(&r, sizeof c->uid), sizeof c->uid);
    rc = need(in, bytes);
    in->at += bytes;
    return rc;
}

static void forget(cnk_map *packs, uint64_t seq) { cnk_pack_unref(cnk_map_remove(packs, seq)); }

static int take_pack(input *in, const char *dir, const uint8_t *bytes, size_t len, cnk_map *packs, uint64_t *seq_max) {
    cnk_pack *p = NULL;
    int rc = cnk_pack_described(in->io, bytes, len, &p);
    if (rc == CHRONIK_ECORRUPT || (rc == 0 && (p->seq == 0 || p->seq == UINT64_MAX)))
        rc = cut(in, CHRONIK_ECORRUPT, "an impossible pack");
    if (rc == 0 && !(p->path = cnk_tier_path(dir, p->seq, ".pack"))) rc = CHRONIK_ENOMEM;
    if (rc == 0) {
        forget(packs, p->seq);
        if (p->seq > *seq_max) *seq_max = p->seq;
        rc = cnk_map_put(packs, p->seq, p);
    }
    if (rc) cnk_pack_unref(p);
    if (rc == CHRONIK_ENOMEM) return cut(in, rc, "no memory for the record");
    if (rc == CHRONIK_EUNSUPPORTED) return cut(in, rc, "a pack of a newer version");
    return rc;
}

static int read_record(input *in, const tier_catalog *c, const char *dir, cnk_map *packs, uint64_t *seq_max) {
    uint64_t left = in->file_bytes - in->pos - in->at;
    int rc = left < RECORD_BYTES ? cut(in, CHRONIK_ECORRUPT, "the record is cut short") : need(in, RECORD_BYTES);
    if (rc) return rc;
    uint32_t len = cnk_load_le32(in->data + in->at + 4);
    if (len < RECORD_BYTES || len > left || len > CNK_PACK_DIRECTORY_BYTES_MAX)
        return cut(in, CHRONIK_ECORRUPT, "the record is cut short or damaged");
    rc = need(in, len);
    if (rc) return rc;
    const uint8_t *record = in->data + in->at;
    if (cnk_load_le32(record) != record_crc(c->uid, in->pos + in->at, record, len))
        return cut(in, CHRONIK_ECORRUPT, "the record fails its checksum");
    uint16_t kind = cnk_load_le16(record + 8), must = cnk_load_le16(record + 10);
    if (must) return cut(in, CHRONIK_EUNSUPPORTED, "a record of a newer version");
    if (kind == KIND_PACK) {
        rc = take_pack(in, dir, record + RECORD_BYTES, len - RECORD_BYTES, packs, seq_max);
    } else if (kind == KIND_GONE && len >= RECORD_BYTES + 8) {
        uint64_t seq = cnk_load_le64(record + RECORD_BYTES);
        forget(packs, seq);
        if (seq > *seq_max && seq != UINT64_MAX) *seq_max = seq;
    }
    in->at += len;
    return rc;
}

int cnk_tier_catalog_read(const chronik_io *io, const char *dir, tier_catalog *c, cnk_map *packs, uint64_t *ret_seq_max,
                          chronik_error *err) {
    char *path = cnk_tier_catalog_path(dir, "");
    if (!path) return cnk_error(err, CHRONIK_ENOMEM, 0, "%s: no memory to read the catalog", dir);
    input in = {.io = io, .path = path, .err = err};
    uint64_t seq_max = 0;
    int rc = io->disk_ops->open(io->disk, path, CHRONIK_OPEN_READ, err, &in.file);
    if (rc == 0) rc = io->disk_ops->size_get(io->disk, in.file, err, &in.file_bytes);
    if (rc == 0) rc = read_header(&in, c);
    while (rc == 0 && in.pos + in.at < in.file_bytes) rc = read_record(&in, c, dir, packs, &seq_max);
    c->bytes = in.file_bytes;
    c->whole = rc == 0;
    *ret_seq_max = seq_max;
    io->disk_ops->close(io->disk, in.file);
    if (in.data) cnk_pages_free(in.data, in.capacity);
    cnk_free(path);
    return rc;
}

void cnk_tier_catalog_packs_free(cnk_map *packs) {
    size_t it = 0;
    for (cnk_pack *p; (p = cnk_map_next(packs, &it));) cnk_pack_unref(p);
    cnk_map_free(packs);
}

/* ---- writing: jobs ---- */

static size_t pack_record_bytes(const cnk_pack *p) {
    return RECORD_BYTES + CNK_PACK_DESCRIPTION_BYTES(p->section_count);
}

/* A writer of room for so many bytes; to be given to room_free, whatever is returned. */
static int room_get(cnk_writer *w, size_t len) {
    uint8_t *pages = cnk_pages_alloc(PAGES_BYTES(len));
    cnk_writer_fixed(w, pages, pages ? PAGES_BYTES(len) : 0);
    return pages ? 0 : CHRONIK_ENOMEM;
}

static void room_free(cnk_writer *w) {
    if (w->data) cnk_pages_free(w->data, w->capacity);
}

static size_t record_begin(cnk_writer *w) {
    size_t from = w->len;
    uint8_t *head = cnk_write_space(w, RECORD_BYTES);
    if (head) memset(head, 0, RECORD_BYTES);
    return from;
}

/* The record that began at `from` in the writer, whose first byte goes to `pos` in the file, is all there. */
static void record_end(cnk_writer *w, const uint8_t uid[16], uint64_t pos, size_t from, uint16_t kind) {
    if (w->error) return;
    uint8_t *record = w->data + from;
    size_t len = w->len - from;
    cnk_store_le32(record + 4, (uint32_t)len);
    cnk_store_le16(record + 8, kind);
    cnk_store_le32(record, record_crc(uid, pos + from, record, len));
}

static void write_pack(cnk_writer *w, const uint8_t uid[16], uint64_t pos, const cnk_pack *p) {
    size_t from = record_begin(w);
    cnk_pack_describe(p, w);
    record_end(w, uid, pos, from, KIND_PACK);
}

static void write_gone(cnk_writer *w, const uint8_t uid[16], uint64_t pos, uint64_t seq) {
    size_t from = record_begin(w);
    cnk_write_le64(w, seq);
    record_end(w, uid, pos, from, KIND_GONE);
}

static int write_all(const chronik_io *io, chronik_file *file, const cnk_writer *w, uint64_t pos, chronik_error *err) {
    struct iovec iov = {w->data, w->len};
    if (w->error) return cnk_error(err, w->error, 0, "no memory to write the catalog");
    return io->disk_ops->write(io->disk, file, &iov, 1, pos, err);
}

void cnk_tier_catalog_failed(cnk_tier *t) {
    cnk_tier_lock(t);
    t->stats.catalog_failures++;
    cnk_tier_unlock(t);
}

void cnk_tier_catalog_note(cnk_tier *t, const cnk_pack *made, const cnk_pack *gone) {
    tier_catalog *c = &t->catalog;
    const chronik_io *io = t->io;
    cnk_writer w;
    chronik_file *file = NULL;
    if (!c->whole || atomic_load(&c->wrong)) {
        c->due = true;
        return;
    }
    int rc = room_get(&w, (made ? pack_record_bytes(made) : 0) + RECORD_BYTES + 8);
    if (made) write_pack(&w, c->uid, c->bytes, made);
    if (gone) write_gone(&w, c->uid, c->bytes, gone->seq);
    char *path = cnk_tier_catalog_path(t->dir, "");
    if (rc == 0) rc = path ? io->disk_ops->open(io->disk, path, CHRONIK_OPEN_WRITE, NULL, &file) : CHRONIK_ENOMEM;
    if (rc == 0) rc = write_all(io, file, &w, c->bytes, NULL);
    io->disk_ops->close(io->disk, file);
    c->bytes += w.len;
    if (rc) {
        c->whole = false;
        c->due = true;
        cnk_tier_catalog_failed(t);
    }
    room_free(&w);
    cnk_free(path);
}

bool cnk_tier_catalog_due(cnk_tier *t) {
    tier_catalog *c = &t->catalog;
    uint64_t live = HEADER_BYTES;
    if (atomic_load(&c->wrong)) return false;
    if (c->due) return true;
    CNK_LIST_EACH(it, &t->packs) live += pack_record_bytes(CNK_CONTAINER(it, tier_pack, link)->pack);
    return c->whole && c->bytes > 2 * live && c->bytes - live > GARBAGE_BYTES;
}

static int anew_begin(tier_job *j) {
    const chronik_io *io = j->tier->io;
    uint8_t header[HEADER_BYTES] = {0};
    cnk_writer w;
    j->path = cnk_tier_catalog_path(j->tier->dir, "");
    j->temporary = cnk_tier_catalog_path(j->tier->dir, ".tmp");
    if (!j->path || !j->temporary) return CHRONIK_ENOMEM;
    io->entropy(io->entropy_self, j->catalog_uid, sizeof j->catalog_uid);
    cnk_store_le64(header, MAGIC);
    cnk_store_le16(header + 8, VERSION);
    cnk_store_le32(header + 12, HEADER_BYTES);
    memcpy(header + 16, j->catalog_uid, sizeof j->catalog_uid);
    cnk_store_le32(header + 36, cnk_crc32c(0, header, 36));
    cnk_writer_fixed(&w, header, sizeof header);
    w.len = sizeof header;
    io->disk_ops->unlink(io->disk, j->temporary, NULL); /* of an attempt that failed */
    int rc = io->disk_ops->open(io->disk, j->temporary, CHRONIK_OPEN_WRITE | CHRONIK_OPEN_CREATE | CHRONIK_OPEN_EXCL,
                                &j->error, &j->catalog);
    if (rc == 0) rc = write_all(io, j->catalog, &w, 0, &j->error);
    j->catalog_bytes = HEADER_BYTES;
    j->catalog_next = j->tier->packs.next;
    return rc ? rc : CHRONIK_EAGAIN;
}

static int anew_end(tier_job *j) {
    const chronik_io *io = j->tier->io;
    tier_catalog *c = &j->tier->catalog;
    int rc = io->disk_ops->sync(io->disk, j->catalog, &j->error);
    io->disk_ops->close(io->disk, j->catalog);
    j->catalog = NULL;
    if (rc == 0) rc = io->disk_ops->rename(io->disk, j->temporary, j->path, &j->error);
    if (rc) return rc;
    memcpy(c->uid, j->catalog_uid, sizeof c->uid);
    c->bytes = j->catalog_bytes;
    c->whole = true;
    if (atomic_load(&c->wrong)) io->disk_ops->unlink(io->disk, j->path, NULL); /* found while it was being written */
    return 0;
}

int cnk_tier_catalog_step(tier_job *j) {
    cnk_list *end = &j->tier->packs;
    cnk_writer w;
    if (!j->catalog) return anew_begin(j);
    if (j->catalog_next == end) return anew_end(j);
    size_t len = 0;
    for (cnk_list *l = j->catalog_next; l != end && len < WRITE_BYTES; l = l->next)
        len += pack_record_bytes(CNK_CONTAINER(l, tier_pack, link)->pack);
    int rc = room_get(&w, len);
    for (; rc == 0 && j->catalog_next != end && w.len < len; j->catalog_next = j->catalog_next->next)
        write_pack(&w, j->catalog_uid, j->catalog_bytes, CNK_CONTAINER(j->catalog_next, tier_pack, link)->pack);
    if (rc == 0) rc = write_all(j->tier->io, j->catalog, &w, j->catalog_bytes, &j->error);
    j->catalog_bytes += w.len;
    room_free(&w);
    return rc ? rc : CHRONIK_EAGAIN;
}

void cnk_tier_catalog_distrust(cnk_tier *t) {
    char *path = cnk_tier_catalog_path(t->dir, "");
    atomic_store(&t->catalog.wrong, true);
    if (path) t->io->disk_ops->unlink(t->io->disk, path, NULL);
    cnk_free(path);
}
