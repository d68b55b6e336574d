/* Checks a pack from its first byte to its last, for fsck. Reads all of it; takes nothing for granted but the limits.
 */
#include "segment/pack.h"

#include <stdarg.h>
#include <stdio.h>

#include "base/crc32c.h"
#include "base/error.h"
#include "base/mem.h"
#include "segment/pack_format.h"

#define CHECK_READ_BYTES (4u << 20)

typedef struct check {
    cnk_pack *pack;
    void (*say)(void *arg, const char *sentence);
    void *arg;
    uint8_t *block_buf, *buf;
    uint64_t buf_from, buf_len; /* the file's bytes that buf holds */
    cnk_pack_report report;
    chronik_error *err;
} check;

static int check_header(check *k);
static int check_section(check *k, const cnk_pack_section *s);

CHRONIK_PRINTF(2, 3) static void say(check *k, const char *format, ...) {
    char text[400];
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    if (k->say) k->say(k->arg, text);
}

int cnk_pack_check(const chronik_io *io, const char *path, void (*say_fn)(void *arg, const char *sentence),
                   void *say_arg, chronik_error *err, cnk_pack_report *ret_report) {
    check k = {.say = say_fn, .arg = say_arg, .err = err};
    chronik_error why = CHRONIK_ERROR_INIT;
    int rc = cnk_pack_open(io, path, &why, &k.pack);
    if (rc) {
        say(&k, "%s", why.text);
        return cnk_error_because(err, rc, &why);
    }
    k.block_buf = cnk_pages_alloc(CNK_PACK_BLOCK_BUFFER_BYTES);
    k.buf = cnk_pages_alloc(CHECK_READ_BYTES);
    rc = k.block_buf && k.buf ? check_header(&k) : cnk_error(err, CHRONIK_ENOMEM, 0, "%s: no memory to check it", path);
    for (uint32_t i = 0; rc == 0 && i < k.pack->section_count; i++) rc = check_section(&k, &k.pack->sections[i]);
    if (rc == 0 && (k.report.bad_blocks || k.report.bad_entries))
        rc = cnk_error(err, CHRONIK_ECORRUPT, 0, "%s: %llu row blocks and %llu entries are damaged", path,
                       (unsigned long long)k.report.bad_blocks, (unsigned long long)k.report.bad_entries);
    if (rc == 0) *ret_report = k.report;
    if (k.block_buf) cnk_pages_free(k.block_buf, CNK_PACK_BLOCK_BUFFER_BYTES);
    if (k.buf) cnk_pages_free(k.buf, CHECK_READ_BYTES);
    cnk_pack_unref(k.pack);
    return rc;
}

static int check_header(check *k) {
    size_t skew;
    int rc = cnk_pack_read(k->pack, 0, CNK_PACK_ALIGN, k->buf, k->err, &skew);
    if (rc) return rc;
    const uint8_t *h = k->buf;
    if (cnk_load_le64(h) == PACK_MAGIC && cnk_load_le16(h + 8) == PACK_VERSION && cnk_load_le16(h + 10) == 0 &&
        memcmp(h + 16, k->pack->uid, 16) == 0 && cnk_load_le64(h + 32) == k->pack->seq &&
        cnk_load_le32(h + 40) == cnk_crc32c(0, h, 40))
        return 0;
    say(k, "%s: the header is damaged, or of another pack; nothing is lost by that alone", k->pack->path);
    k->report.bad_blocks++;
    return 0;
}

/* The CRC of [pos, pos + len), read in large pieces that go on from one payload to the next. */
static int crc_of(check *k, uint64_t pos, uint32_t len, uint32_t *ret_crc) {
    uint32_t crc = 0;
    while (len > 0) {
        if (pos < k->buf_from || pos >= k->buf_from + k->buf_len) {
            uint64_t from = pos / CNK_PACK_ALIGN * CNK_PACK_ALIGN, left = k->pack->file_bytes - from;
            size_t want = left < CHECK_READ_BYTES ? (size_t)left : CHECK_READ_BYTES, skew;
            k->buf_len = 0;
            int rc = cnk_pack_read(k->pack, from, want, k->buf, k->err, &skew);
            if (rc) return rc;
            k->buf_from = from;
            k->buf_len = want;
        }
        uint64_t have = k->buf_from + k->buf_len - pos;
        uint32_t n = have < len ? (uint32_t)have : len;
        crc = cnk_crc32c(crc, k->buf + (pos - k->buf_from), n);
        pos += n;
        len -= n;
    }
    *ret_crc = crc;
    return 0;
}

static int check_row(check *k, const cnk_pack_section *s, const cnk_pack_row *row) {
    uint32_t crc;
    int rc = crc_of(k, row->pos, row->len, &crc);
    if (rc) return rc;
    k->report.entries++;
    k->report.payload_bytes += row->len;
    if (row->len == 0 || crc == row->crc) return 0;
    k->report.bad_entries++;
    say(k, "%s: stream %016llx, offsets %lld to %lld (index %llu): the payload at %llu fails its checksum",
        k->pack->path, (unsigned long long)s->stream, (long long)row->base_offset,
        (long long)(row->base_offset + row->count - 1), (unsigned long long)row->index, (unsigned long long)row->pos);
    return 0;
}

static int check_rows(check *k, const cnk_pack_section *s, uint32_t block, uint32_t *entries) {
    const uint8_t *bytes;
    cnk_pack_cursor c;
    int rc = cnk_pack_block_read(k->pack, block, k->block_buf, k->err, &bytes);
    if (rc == 0) rc = cnk_pack_cursor_init(&c, k->pack, s, block, bytes);
    if (rc) return rc;
    while ((rc = cnk_pack_cursor_next(&c)) > 0) {
        rc = check_row(k, s, &c.row);
        if (rc) return rc;
        (*entries)++;
    }
    if (rc) return rc;
    const cnk_pack_block_row *b = &k->pack->blocks[block];
    bool last = block + 1 == s->block_first + s->block_count;
    if (c.next_offset != b->end_offset) return CHRONIK_ECORRUPT;
    return !last || (c.row.index == s->last_index && c.row.term == s->last_term && c.next_offset == s->end_offset &&
                     c.data_pos == c.data_end && c.control_pos == c.control_end)
               ? 0
               : CHRONIK_ECORRUPT;
}

static int check_section(check *k, const cnk_pack_section *s) {
    uint32_t entries = 0;
    k->report.sections++;
    for (uint32_t i = s->block_first; i < s->block_first + s->block_count; i++) {
        int rc = check_rows(k, s, i, &entries);
        if (rc == CHRONIK_ECORRUPT) {
            const cnk_pack_block_row *b = &k->pack->blocks[i];
            k->report.bad_blocks++;
            say(k, "%s: stream %016llx, offsets %lld to %lld: the row block at %llu is damaged", k->pack->path,
                (unsigned long long)s->stream, (long long)b->base_offset, (long long)(b->end_offset - 1),
                (unsigned long long)b->pos);
        } else if (rc) {
            return rc;
        }
    }
    return 0;
}
