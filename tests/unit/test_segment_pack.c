/* Packs: what goes in comes out, at every shape; what is damaged is reported and named; no allocation failure hurts. */
#include <check.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <chronik/io_posix.h>

#include "base/crc32c.h"
#include "base/mem.h"
#include "base/rng.h"
#include "segment/pack.h"

static chronik_io *io;
static char dir[64], path[128];
static chronik_error error;
static cnk_rng rng;

static void setup(void) {
    error = (chronik_error)CHRONIK_ERROR_INIT;
    ck_assert_int_eq(chronik_io_posix_new(NULL, &error, &io), 0);
    const char *tmp = getenv("TMPDIR");
    snprintf(dir, sizeof dir, "%s/chronik-pack-XXXXXX", tmp ? tmp : "/tmp");
    ck_assert_ptr_nonnull(mkdtemp(dir));
    snprintf(path, sizeof path, "%s/a.pack", dir);
    cnk_rng_seed(&rng, 7);
}

static void teardown(void) {
    unlink(path);
    ck_assert_int_eq(rmdir(dir), 0);
    chronik_io_posix_free(io);
}

/* ---- a model: streams of entries, and a source in which their payloads are mixed ---- */

typedef struct entry {
    cnk_pack_row row;
    uint64_t src;
} entry;

typedef struct stream {
    uint64_t id;
    entry *entries;
    size_t count;
} stream;

typedef struct model {
    stream *streams;
    size_t stream_count;
    uint8_t *source;
    size_t source_len;
    cnk_pack_list lists[3];
    cnk_pack_list *list_of[3];
} model;

static void entry_make(stream *s, size_t i, uint32_t len) {
    const cnk_pack_row *last = i ? &s->entries[i - 1].row : NULL;
    cnk_pack_row r = {.index = 5, .term = 1, .base_offset = 1000, .max_timestamp = 1700000000000, .len = len};
    if (last) {
        r = *last;
        r.index += cnk_rng_chance(&rng, 1, 50) ? 3 : 1;
        r.term += cnk_rng_chance(&rng, 1, 20) ? 2 : 0;
        r.base_offset += last->count + (cnk_rng_chance(&rng, 1, 50) ? 17 : 0);
        r.max_timestamp = (r.max_timestamp == INT64_MAX ? 0 : r.max_timestamp) + cnk_rng_between(&rng, -3, 10);
        r.len = len;
    }
    if (cnk_rng_chance(&rng, 1, 90)) r.max_timestamp = cnk_rng_chance(&rng, 1, 2) ? -1 : INT64_MAX;
    r.kind = (uint16_t)(cnk_rng_chance(&rng, 1, 10) ? 2 + cnk_rng_below(&rng, 3) : 1);
    if (cnk_rng_chance(&rng, 1, 200)) r.kind = 300;
    r.count = r.kind == 1 ? 1 + (uint32_t)cnk_rng_below(&rng, 500) : 0;
    if (r.kind == 3) r.len = 0;
    for (unsigned b = 0; b < 4; b++)
        if (cnk_rng_chance(&rng, 1, 3)) r.aux[cnk_rng_below(&rng, 16)] = (uint8_t)cnk_rng_next(&rng);
    s->entries[i].row = r;
}

static void model_make(model *m, size_t streams, size_t entries_max, uint32_t len_max) {
    *m = (model){.stream_count = streams, .streams = calloc(streams, sizeof(stream))};
    size_t left = 0;
    for (size_t i = 0; i < streams; i++) {
        stream *s = &m->streams[i];
        s->id = (uint64_t)(i * 7919 % streams) * 3 + 2;
        s->count = 1 + cnk_rng_below(&rng, entries_max);
        s->entries = calloc(s->count, sizeof(entry));
        for (size_t j = 0; j < s->count; j++) {
            entry_make(s, j, (uint32_t)cnk_rng_below(&rng, len_max + 1));
            m->source_len += s->entries[j].row.len + 24;
        }
        left += s->count;
    }
    m->source = malloc(m->source_len);
    cnk_rng_fill(&rng, m->source, m->source_len);
    /* Mixed, but each stream in its order, as in a WAL. */
    size_t *next = calloc(streams, sizeof *next), pos = 0;
    while (left > 0) {
        size_t i = cnk_rng_below(&rng, streams);
        for (size_t burst = 1 + cnk_rng_below(&rng, 8); burst > 0 && next[i] < m->streams[i].count; burst--, left--) {
            entry *e = &m->streams[i].entries[next[i]++];
            pos += cnk_rng_below(&rng, 24);
            e->src = pos;
            e->row.crc = e->row.len ? cnk_crc32c(0, m->source + pos, e->row.len) : 0;
            pos += e->row.len;
        }
    }
    free(next);
}

static int model_list(model *m) {
    for (int i = 0; i < 3; i++) {
        cnk_pack_list_init(&m->lists[i]);
        m->list_of[i] = &m->lists[i];
    }
    int rc = 0;
    for (size_t i = 0; i < m->stream_count && rc == 0; i++) {
        cnk_pack_list *l = &m->lists[i % 3];
        rc = cnk_pack_list_section(l, m->streams[i].id);
        for (size_t j = 0; j < m->streams[i].count && rc == 0; j++)
            rc = cnk_pack_list_row(l, &m->streams[i].entries[j].row, m->streams[i].entries[j].src);
    }
    for (int i = 0; i < 3 && rc == 0; i++) rc = cnk_pack_list_end(&m->lists[i]);
    return rc;
}

static void model_free(model *m) {
    for (size_t i = 0; i < m->stream_count; i++) free(m->streams[i].entries);
    free(m->streams);
    free(m->source);
    for (int i = 0; i < 3; i++) cnk_pack_list_free(&m->lists[i]);
}

/* Puts all copies, in pieces of at most `piece` bytes. */
static int put_all(model *m, cnk_pack_writer *w, uint32_t piece, size_t *ret_passes) {
    const cnk_pack_copy *copies;
    size_t count;
    while (cnk_pack_writer_pass_next(w, &copies, &count)) {
        ++*ret_passes;
        for (size_t i = 0; i < count; i++) {
            ck_assert(i == 0 || copies[i].src >= copies[i - 1].src + copies[i - 1].len);
            uint32_t crc = 0, done = 0;
            while (done < copies[i].len) {
                uint32_t n = copies[i].len - done < piece ? copies[i].len - done : piece;
                int rc = cnk_pack_writer_put(w, &copies[i], done, m->source + copies[i].src + done, n, &crc, &error);
                if (rc == CHRONIK_EAGAIN) {
                    int64_t flushed = cnk_pack_writer_flush(w, 1 << 20, &error);
                    if (flushed < 0) return (int)flushed;
                    ck_assert_int_gt(flushed, 0);
                    continue;
                }
                if (rc) return rc;
                done += n;
            }
        }
    }
    return 0;
}

static int model_write(model *m, size_t pool, uint32_t piece, size_t *ret_passes) {
    cnk_pack_writer *w = NULL;
    int rc = model_list(m);
    if (rc == 0) rc = cnk_pack_writer_new(io, path, 42, m->list_of, 3, pool, NULL, &error, &w);
    if (rc == 0) rc = put_all(m, w, piece, ret_passes);
    if (rc == 0) do
            rc = cnk_pack_writer_finish(w, 1 << 20, &error);
        while (rc == CHRONIK_EAGAIN);
    if (rc == 0) rc = cnk_pack_writer_sync(w, &error);
    cnk_pack_writer_free(w);
    return rc;
}

/* ---- reading it back ---- */

static void rows_same(const cnk_pack_row *a, const cnk_pack_row *b) {
    ck_assert_uint_eq(a->index, b->index);
    ck_assert_uint_eq(a->term, b->term);
    ck_assert_uint_eq(a->kind, b->kind);
    ck_assert_uint_eq(a->count, b->count);
    ck_assert_int_eq(a->base_offset, b->base_offset);
    ck_assert_int_eq(a->max_timestamp, b->max_timestamp);
    ck_assert_mem_eq(a->aux, b->aux, 16);
    ck_assert_uint_eq(a->len, b->len);
    ck_assert_uint_eq(a->crc, b->crc);
}

static void stream_same(const model *m, const cnk_pack *p, const stream *s, uint8_t *block_buf) {
    const cnk_pack_section *sec = cnk_pack_find(p, s->id);
    ck_assert_ptr_nonnull(sec);
    ck_assert_uint_eq(sec->entries, s->count);
    ck_assert_uint_eq(sec->first_index, s->entries[0].row.index);
    ck_assert_uint_eq(sec->last_index, s->entries[s->count - 1].row.index);
    ck_assert_int_eq(sec->first_offset, s->entries[0].row.base_offset);
    uint64_t data = sec->pos + sec->control_bytes;
    size_t i = 0;
    for (uint32_t b = sec->block_first; b < sec->block_first + sec->block_count; b++) {
        const uint8_t *bytes;
        cnk_pack_cursor c;
        ck_assert_int_eq(cnk_pack_block_read(p, b, block_buf, &error, &bytes), 0);
        ck_assert_int_eq(cnk_pack_cursor_init(&c, p, sec, b, bytes), 0);
        int rc;
        for (; (rc = cnk_pack_cursor_next(&c)) == 1; i++) {
            rows_same(&c.row, &s->entries[i].row);
            if (c.row.kind == 1) {
                ck_assert_uint_eq(c.row.pos, data); /* batches lie side by side */
                data += c.row.len;
            }
            if (c.row.len == 0) continue;
            size_t span = CNK_PACK_SPAN(c.row.pos, c.row.len), skew;
            uint8_t *buf = cnk_pages_alloc(span);
            ck_assert_int_eq(cnk_pack_read(p, c.row.pos, c.row.len, buf, &error, &skew), 0);
            ck_assert_mem_eq(buf + skew, m->source + s->entries[i].src, c.row.len);
            cnk_pages_free(buf, span);
        }
        ck_assert_int_eq(rc, 0);
    }
    ck_assert_uint_eq(i, s->count);
    ck_assert_uint_eq(data, sec->pos + sec->control_bytes + sec->data_bytes);
}

/* For each entry: the block that finding names is the one that holds it. */
static void stream_found(const cnk_pack *p, const stream *s) {
    const cnk_pack_section *sec = cnk_pack_find(p, s->id);
    int64_t greatest = INT64_MIN;
    size_t greatest_at = 0;
    for (size_t i = 0; i < s->count; i++) {
        const cnk_pack_row *r = &s->entries[i].row;
        uint32_t b = cnk_pack_block_of_index(p, sec, r->index);
        ck_assert_uint_ne(b, UINT32_MAX);
        ck_assert_uint_le(p->blocks[b].first_index, r->index);
        ck_assert(b + 1 == sec->block_first + sec->block_count || p->blocks[b + 1].first_index > r->index);
        if (r->kind != 1) continue;
        ck_assert_uint_eq(cnk_pack_block_of_offset(p, sec, r->base_offset), b);
        ck_assert_uint_eq(cnk_pack_block_of_offset(p, sec, r->base_offset + r->count - 1), b);
        if (r->max_timestamp > greatest) greatest = r->max_timestamp, greatest_at = b;
    }
    ck_assert_uint_eq(cnk_pack_block_of_offset(p, sec, sec->end_offset), UINT32_MAX);
    ck_assert_uint_eq(cnk_pack_block_of_index(p, sec, sec->last_index + 1), UINT32_MAX);
    if (greatest == INT64_MIN) return;
    ck_assert_uint_eq(cnk_pack_block_of_timestamp(p, sec, greatest), greatest_at);
    if (greatest < INT64_MAX) ck_assert_uint_eq(cnk_pack_block_of_timestamp(p, sec, greatest + 1), UINT32_MAX);
}

static void model_same(const model *m) {
    cnk_pack *p = NULL;
    ck_assert_msg(cnk_pack_open(io, path, &error, &p) == 0, "%s", error.text);
    ck_assert_uint_eq(p->seq, 42);
    ck_assert_uint_eq(p->section_count, m->stream_count);
    uint8_t *block_buf = cnk_pages_alloc(CNK_PACK_BLOCK_BUFFER_BYTES);
    for (size_t i = 0; i < m->stream_count; i++) {
        stream_same(m, p, &m->streams[i], block_buf);
        stream_found(p, &m->streams[i]);
    }
    ck_assert_ptr_null(cnk_pack_find(p, 1));
    ck_assert_ptr_null(cnk_pack_find(p, UINT64_MAX));
    cnk_pages_free(block_buf, CNK_PACK_BLOCK_BUFFER_BYTES);
    cnk_pack_unref(p);
    cnk_pack_report report;
    ck_assert_msg(cnk_pack_check(io, path, NULL, NULL, &error, &report) == 0, "%s", error.text);
    ck_assert_uint_eq(report.sections, m->stream_count);
}

static const struct {
    size_t streams, entries;
    uint32_t len;
    size_t pool;
    uint32_t piece;
} shapes[] = {
    {1, 1, 0, 0, 1000},
    {1, 1, 10, 0, 4},
    {1, 40, 20000, 4 << 20, 1 << 20},
    {3, 300, 9000, 0, 4096},
    {2, 20000, 40, 4 << 20, 1 << 20},
    {100, 60, 3000, 4 << 20, 50000},
    {6000, 6, 300, 4 << 20, 1 << 20},
    {2, 3, 9 << 20, 4 << 20, 1 << 20},
    {1500, 6, 9000, 4 << 20, 1 << 20},
};

START_TEST(shape) {
    model m;
    size_t passes = 0;
    model_make(&m, shapes[_i].streams, shapes[_i].entries, shapes[_i].len);
    ck_assert_msg(model_write(&m, shapes[_i].pool, shapes[_i].piece, &passes) == 0, "%s", error.text);
    if (shapes[_i].streams > 1000) ck_assert_uint_gt(passes, 1);
    if (shapes[_i].streams <= 1000) ck_assert_uint_eq(passes, 1);
    model_same(&m);
    model_free(&m);
}
END_TEST

/* ---- what must be refused ---- */

START_TEST(order_is_demanded) {
    static const cnk_pack_row good = {.index = 10, .term = 3, .kind = 1, .count = 5, .base_offset = 50, .len = 1};
    for (int i = 0; i < 8; i++) {
        cnk_pack_list l;
        cnk_pack_list_init(&l);
        ck_assert_int_eq(cnk_pack_list_section(&l, 2), 0);
        ck_assert_int_eq(cnk_pack_list_row(&l, &good, 0), 0);
        cnk_pack_row r = good;
        r.index = 11;
        r.base_offset = 55;
        switch (i) {
        case 0: r.index = 10; break;
        case 1: r.term = 2; break;
        case 2: r.base_offset = 54; break;
        case 3: r.kind = 0; break;
        case 4: r.kind = 2; break; /* takes offsets, and may not */
        case 5: r.len = CNK_PACK_ENTRY_BYTES_MAX + 1; break;
        case 6: r.base_offset = INT64_MAX - 4; break;
        default: break;
        }
        ck_assert_int_eq(cnk_pack_list_row(&l, &r, 1), i < 7 ? CHRONIK_EINVAL : 0);
        cnk_pack_list_free(&l);
    }
}
END_TEST

START_TEST(a_stream_twice_is_refused) {
    model m;
    size_t passes = 0;
    model_make(&m, 2, 3, 10);
    m.streams[1].id = m.streams[0].id;
    ck_assert_int_eq(model_write(&m, 0, 100, &passes), CHRONIK_EINVAL);
    model_free(&m);
}
END_TEST

START_TEST(a_payload_that_changed_is_not_written) {
    model m;
    size_t passes = 0;
    model_make(&m, 5, 30, 900);
    for (size_t j = 0; j < m.streams[3].count; j++)
        if (m.streams[3].entries[j].row.len > 0) m.source[m.streams[3].entries[j].src] ^= 1;
    ck_assert_int_eq(model_write(&m, 0, 100, &passes), CHRONIK_ECORRUPT);
    model_free(&m);
}
END_TEST

/* ---- damage ---- */

static char *slurp(size_t *ret_len) {
    FILE *f = fopen(path, "rb");
    ck_assert_ptr_nonnull(f);
    fseek(f, 0, SEEK_END);
    *ret_len = (size_t)ftell(f);
    rewind(f);
    char *data = malloc(*ret_len);
    ck_assert_uint_eq(fread(data, 1, *ret_len, f), *ret_len);
    fclose(f);
    return data;
}

static void spit(const char *data, size_t len) {
    FILE *f = fopen(path, "wb");
    ck_assert_uint_eq(fwrite(data, 1, len, f), len);
    fclose(f);
}

static void count_sentence(void *arg, const char *sentence) {
    ck_assert_uint_gt(strlen(sentence), 10);
    ++*(int *)arg;
}

/* Flips a bit anywhere. Padding (zeros that nothing reads) may be damaged unseen; nothing else. */
START_TEST(each_flipped_bit_is_seen) {
    model m;
    size_t passes = 0, len;
    model_make(&m, 6, 60, 300);
    ck_assert_int_eq(model_write(&m, 0, 1000, &passes), 0);
    char *data = slurp(&len);
    uint64_t directory_pos = cnk_load_le64(data + len - 64);
    uint64_t directory_end = directory_pos + cnk_load_le32(data + len - 56);
    for (int i = 0; i < 1000; i++) {
        size_t at = cnk_rng_below(&rng, len);
        if ((at >= 44 && at < 4096) || (at >= directory_end && at < len - 64)) continue;
        char bit = (char)(1 << cnk_rng_below(&rng, 8));
        data[at] ^= bit;
        spit(data, len);
        cnk_pack_report report;
        int sentences = 0, rc = cnk_pack_check(io, path, count_sentence, &sentences, &error, &report);
        ck_assert_msg(rc == CHRONIK_ECORRUPT || rc == CHRONIK_EUNSUPPORTED, "byte %zu: %d", at, rc);
        ck_assert_int_gt(sentences, 0);
        data[at] ^= bit;
    }
    free(data);
    model_free(&m);
}
END_TEST

START_TEST(a_cut_file_is_seen) {
    model m;
    size_t passes = 0, len;
    model_make(&m, 6, 60, 300);
    ck_assert_int_eq(model_write(&m, 0, 1000, &passes), 0);
    char *data = slurp(&len);
    for (size_t cut = 0; cut < len; cut += 1 + len / 97) {
        cnk_pack *p = NULL;
        spit(data, cut);
        ck_assert_int_eq(cnk_pack_open(io, path, &error, &p), CHRONIK_ECORRUPT);
        ck_assert_ptr_null(p);
        ck_assert_ptr_nonnull(strstr(error.text, path));
    }
    free(data);
    model_free(&m);
}
END_TEST

#ifdef CNK_TEST_HOOKS
START_TEST(each_failed_allocation_is_told) {
    model m;
    long n = 0;
    for (int done = 0; !done; n++) {
        size_t passes = 0;
        cnk_rng_seed(&rng, 7);
        model_make(&m, 8, 30, 300);
        unlink(path);
        cnk_mem_fail_at(n);
        int rc = model_write(&m, 4 << 20, 1000, &passes);
        cnk_pack *p = NULL;
        if (rc == 0) rc = cnk_pack_open(io, path, &error, &p);
        cnk_pack_unref(p);
        cnk_pack_report report;
        if (rc == 0) rc = cnk_pack_check(io, path, NULL, NULL, &error, &report);
        cnk_mem_fail_at(-1);
        ck_assert_msg(rc == 0 || rc == CHRONIK_ENOMEM, "allocation %ld: %d", n, rc);
        done = rc == 0;
        model_free(&m);
    }
    ck_assert_int_gt(n, 10);
}
END_TEST
#endif

int main(void) {
    TCase *t = tcase_create("pack");
    tcase_add_checked_fixture(t, setup, teardown);
    tcase_set_timeout(t, 0);
    tcase_add_loop_test(t, shape, 0, (int)(sizeof shapes / sizeof *shapes));
    tcase_add_test(t, order_is_demanded);
    tcase_add_test(t, a_stream_twice_is_refused);
    tcase_add_test(t, a_payload_that_changed_is_not_written);
    tcase_add_test(t, each_flipped_bit_is_seen);
    tcase_add_test(t, a_cut_file_is_seen);
#ifdef CNK_TEST_HOOKS
    tcase_add_test(t, each_failed_allocation_is_told);
#endif
    Suite *s = suite_create("segment");
    suite_add_tcase(s, t);
    SRunner *r = srunner_create(s);
    srunner_run_all(r, CK_NORMAL);
    int failed = srunner_ntests_failed(r);
    srunner_free(r);
    return failed == 0 ? 0 : 1;
}
