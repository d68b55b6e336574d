/* base: errors, assertions, memory, byte cursors, maps, random numbers, UUIDs, metrics. CRC-32C has its own test. */
#include <check.h>
#include <errno.h>
#include <setjmp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/assert.h"
#include "base/bytes.h"
#include "base/error.h"
#include "base/list.h"
#include "base/map.h"
#include "base/mem.h"
#include "base/metric.h"
#include "base/rng.h"
#include "base/rope.h"
#include "base/uuid.h"

/* ---- errors and assertions -------------------------------------------------------------------------------------- */

START_TEST(every_code_has_its_own_number_name_and_text) {
    static const struct {
        int code;
        const char *name, *text;
    } all[] = {
#define X(name, number, text) {CHRONIK_##name, #name, text},
        CHRONIK_ERRORS(X)
#undef X
    };
    for (size_t i = 0; i < sizeof all / sizeof all[0]; i++) {
        ck_assert_int_lt(all[i].code, 0);
        ck_assert_str_eq(chronik_error_name(all[i].code), all[i].name);
        ck_assert_str_eq(chronik_strerror(all[i].code), all[i].text);
        for (size_t j = 0; j < i; j++) ck_assert_int_ne(all[i].code, all[j].code);
    }
    ck_assert_str_eq(chronik_strerror(-12345), "unknown error");
    ck_assert_str_eq(chronik_error_name(7), "?");
    ck_assert_str_eq(chronik_error_name(0), "OK");
}
END_TEST

START_TEST(an_error_is_filled_and_its_code_returned) {
    chronik_error err = CHRONIK_ERROR_INIT;
    ck_assert_int_eq(cnk_error(&err, CHRONIK_EIO, EACCES, "%s: cannot write", "a/b"), CHRONIK_EIO);
    ck_assert_int_eq(err.code, CHRONIK_EIO);
    ck_assert_int_eq(err.sys_errno, EACCES);
    ck_assert_str_eq(err.text, "a/b: cannot write: Permission denied");
    ck_assert_int_eq(cnk_error(&err, CHRONIK_EINVAL, 0, "plain"), CHRONIK_EINVAL);
    ck_assert_str_eq(err.text, "plain");
    ck_assert_int_eq(cnk_error(NULL, CHRONIK_EBUSY, 0, "nobody asks"), CHRONIK_EBUSY);
}
END_TEST

START_TEST(an_error_passes_on_its_cause_once) {
    chronik_error why = CHRONIK_ERROR_INIT, err = CHRONIK_ERROR_INIT;
    cnk_error(&why, CHRONIK_EIO, EACCES, "/x: cannot open");
    ck_assert_int_eq(cnk_error_because(&err, CHRONIK_ECORRUPT, &why), CHRONIK_ECORRUPT);
    ck_assert_int_eq(err.code, CHRONIK_ECORRUPT);
    ck_assert_int_eq(err.sys_errno, EACCES);
    ck_assert_str_eq(err.text, why.text);
    ck_assert_int_eq(cnk_error_because(NULL, CHRONIK_ENOSPC, &why), CHRONIK_ENOSPC);
}
END_TEST

START_TEST(a_long_text_is_cut_at_a_character) {
    chronik_error err;
    char text[400];
    for (size_t shift = 0; shift < 4; shift++) {
        memset(text, 'x', sizeof text);
        for (size_t i = shift; i + 4 < sizeof text; i += 4) memcpy(text + i, "\xF0\x9F\x90\xA6", 4);
        text[sizeof text - 1] = '\0';
        cnk_error(&err, CHRONIK_EIO, 0, "%s", text);
        size_t len = strlen(err.text);
        ck_assert_uint_le(len, sizeof err.text - 1);
        ck_assert_uint_ge(len, sizeof err.text - 4);
        ck_assert_uint_eq((len - shift) % 4, 0); /* whole birds only */
    }
    memset(text, 'y', 246);
    strcpy(text + 246, "\xC3\xA4"); /* 248 bytes: one too many with the NUL */
    cnk_error(&err, CHRONIK_EIO, 0, "%s", text);
    ck_assert_uint_eq(strlen(err.text), 246);
    strcpy(text + 245, "\xC3\xA4");
    cnk_error(&err, CHRONIK_EIO, ENOENT, "%s", text); /* fits to the last byte; the errno's text does not */
    ck_assert_uint_eq(strlen(err.text), 247);
}
END_TEST

START_TEST(errnos_become_codes) {
    static const int table[][2] = {{ENOSPC, CHRONIK_ENOSPC}, {EDQUOT, CHRONIK_ENOSPC},      {ENOENT, CHRONIK_ENOTFOUND},
                                   {EEXIST, CHRONIK_EEXIST}, {ENOMEM, CHRONIK_ENOMEM},      {EAGAIN, CHRONIK_EAGAIN},
                                   {EPIPE, CHRONIK_ECLOSED}, {ECONNRESET, CHRONIK_ECLOSED}, {EIO, CHRONIK_EIO},
                                   {EPERM, CHRONIK_EIO}};
    for (size_t i = 0; i < sizeof table / sizeof table[0]; i++)
        ck_assert_int_eq(cnk_error_from_errno(table[i][0]), table[i][1]);
}
END_TEST

static jmp_buf back;
static const char *said;
static void handler(const char *expression, const char *file, int line) {
    ck_assert_ptr_nonnull(strstr(file, "test_base.c"));
    ck_assert_int_gt(line, 0);
    said = expression;
    longjmp(back, 1);
}

START_TEST(a_failed_assertion_calls_the_handler) {
    chronik_assert_handler_set(handler);
    if (setjmp(back) == 0) {
        CNK_ASSERT(1 + 1 == 2);
        ck_assert_ptr_null(said);
        CNK_ASSERT(1 + 1 == 3);
        ck_abort_msg("the assertion was passed");
    }
    chronik_assert_handler_set(NULL);
    ck_assert_str_eq(said, "1 + 1 == 3");
}
END_TEST

/* ---- memory ----------------------------------------------------------------------------------------------------- */

START_TEST(sizes_of_zero_and_too_much) {
    void *p = cnk_malloc(0), *q = cnk_calloc(0, 8), *r = cnk_memdup("", 0);
    ck_assert(p && q && r);
    cnk_free(p), cnk_free(q), cnk_free(r), cnk_free(NULL);
    volatile size_t huge = SIZE_MAX / 2; /* volatile: the compiler must not judge the call itself */
    ck_assert_ptr_null(cnk_calloc(huge, 3));
    char *s = cnk_strdup("word");
    ck_assert_str_eq(s, "word");
    s = cnk_realloc(s, 10000);
    ck_assert_str_eq(s, "word");
    cnk_free(s);
}
END_TEST

START_TEST(pages_are_aligned_and_zero) {
    unsigned char *p = cnk_pages_alloc(100000);
    ck_assert_ptr_nonnull(p);
    ck_assert_uint_eq((uintptr_t)p % 4096, 0);
    for (size_t i = 0; i < 100000; i++) ck_assert_uint_eq(p[i], 0);
    memset(p, 1, 100000);
    cnk_pages_free(p, 100000);
    cnk_pages_free(NULL, 5);
}
END_TEST

START_TEST(arrays_grow_with_their_content) {
    uint32_t *items = NULL;
    size_t capacity = 0;
    for (uint32_t i = 0; i < 10000; i++) {
        ck_assert_int_eq(cnk_array_reserve((void **)&items, &capacity, i + 1, sizeof *items), 0);
        ck_assert_uint_gt(capacity, i);
        items[i] = i * 3;
    }
    for (uint32_t i = 0; i < 10000; i++) ck_assert_uint_eq(items[i], i * 3);
    ck_assert_int_eq(cnk_array_reserve((void **)&items, &capacity, SIZE_MAX / 2, 8), CHRONIK_ENOMEM);
    ck_assert_uint_eq(items[9999], 9999 * 3);
    cnk_free(items);
}
END_TEST

START_TEST(an_arena_gives_aligned_memory_up_to_its_limit) {
    cnk_arena arena;
    cnk_rng rng;
    struct {
        unsigned char *p;
        size_t len;
    } had[400];
    cnk_rng_seed(&rng, 7);
    cnk_arena_init(&arena, 1024, 0);
    for (int round = 0; round < 3; round++) {
        for (int i = 0; i < 400; i++) {
            had[i].len = cnk_rng_below(&rng, i % 10 == 0 ? 5000 : 200);
            had[i].p = cnk_arena_alloc(&arena, had[i].len);
            ck_assert_ptr_nonnull(had[i].p);
            ck_assert_uint_eq((uintptr_t)had[i].p % 16, 0);
            memset(had[i].p, i & 255, had[i].len);
        }
        for (int i = 0; i < 400; i++) /* nobody wrote into another's */
            for (size_t j = 0; j < had[i].len; j++) ck_assert_uint_eq(had[i].p[j], i & 255);
        cnk_arena_reset(&arena);
        ck_assert_uint_eq(arena.total, 0);
    }
    cnk_arena_free(&arena);
    cnk_arena_init(&arena, 1024, 4096);
    for (int i = 0; i < 4; i++) ck_assert_ptr_nonnull(cnk_arena_alloc(&arena, 1000));
    ck_assert_ptr_null(cnk_arena_alloc(&arena, 1000));
    ck_assert_ptr_null(cnk_arena_alloc(&arena, SIZE_MAX));
    ck_assert_ptr_nonnull(cnk_arena_alloc(&arena, 16));
    cnk_arena_reset(&arena);
    ck_assert_ptr_nonnull(cnk_arena_alloc(&arena, 4096));
    cnk_arena_free(&arena);
}
END_TEST

#ifdef CNK_TEST_HOOKS
START_TEST(the_nth_allocation_fails) {
    long before = cnk_mem_count();
    cnk_mem_fail_at(2);
    void *a = cnk_malloc(8), *b = cnk_calloc(1, 8), *c = cnk_malloc(8), *d = cnk_malloc(8);
    ck_assert(a && b && !c && d);
    ck_assert_int_eq(cnk_mem_count() - before, 4);
    cnk_free(a), cnk_free(b), cnk_free(d);
    cnk_mem_fail_at(0);
    ck_assert_ptr_null(cnk_pages_alloc(4096));
    cnk_mem_fail_at(-1);

    cnk_arena arena;
    cnk_arena_init(&arena, 256, 0);
    cnk_mem_fail_at(0);
    ck_assert_ptr_null(cnk_arena_alloc(&arena, 10));
    ck_assert_ptr_nonnull(cnk_arena_alloc(&arena, 10));
    cnk_mem_fail_at(0);
    ck_assert_ptr_null(cnk_arena_alloc(&arena, 1000));
    ck_assert_ptr_nonnull(cnk_arena_alloc(&arena, 100)); /* from the chunk that is there */
    cnk_arena_free(&arena);

    cnk_map map = {0};
    cnk_mem_fail_at(0);
    ck_assert_int_eq(cnk_map_put(&map, 1, &map), CHRONIK_ENOMEM);
    for (uint64_t i = 0; i < 12; i++) ck_assert_int_eq(cnk_map_put(&map, i, &map), 0);
    cnk_mem_fail_at(0);
    ck_assert_int_eq(cnk_map_put(&map, 12, &map), CHRONIK_ENOMEM);
    ck_assert_uint_eq(map.count, 12);
    for (uint64_t i = 0; i < 12; i++) ck_assert_ptr_eq(cnk_map_get(&map, i), &map);
    cnk_map_free(&map);

    cnk_writer w;
    cnk_writer_growing(&w, 0);
    cnk_mem_fail_at(0);
    cnk_write_u8(&w, 1);
    ck_assert_int_eq(w.error, CHRONIK_ENOMEM);
    cnk_write_u8(&w, 1); /* sticky */
    ck_assert_uint_eq(w.len, 0);
    cnk_writer_free(&w);
    cnk_mem_fail_at(-1);
}
END_TEST
#endif

/* ---- bytes ------------------------------------------------------------------------------------------------------ */

START_TEST(what_is_written_is_read) {
    static const uint64_t values[] = {
        0, 1, 127, 128, 16383, 16384, UINT32_MAX, (uint64_t)UINT32_MAX + 1, INT64_MAX, UINT64_MAX};
    cnk_writer w;
    cnk_writer_growing(&w, 0);
    for (size_t i = 0; i < 10; i++) {
        uint64_t v = values[i];
        cnk_write_u8(&w, (uint8_t)v);
        cnk_write_be16(&w, (uint16_t)v), cnk_write_be32(&w, (uint32_t)v), cnk_write_be64(&w, v);
        cnk_write_le16(&w, (uint16_t)v), cnk_write_le32(&w, (uint32_t)v), cnk_write_le64(&w, v);
        size_t before = w.len;
        cnk_write_uvarint(&w, v);
        ck_assert_uint_eq(w.len - before, cnk_uvarint_size(v));
        before = w.len;
        cnk_write_varint(&w, (int64_t)v);
        ck_assert_uint_eq(w.len - before, cnk_varint_size((int64_t)v));
        cnk_write_varint(&w, -(int64_t)(v >> 1));
    }
    cnk_write_bytes(&w, "tail", 4);
    ck_assert_int_eq(w.error, 0);
    cnk_reader r = cnk_reader_of(w.data, w.len);
    for (size_t i = 0; i < 10; i++) {
        uint64_t v = values[i];
        ck_assert_uint_eq(cnk_read_u8(&r), (uint8_t)v);
        ck_assert_uint_eq(cnk_read_be16(&r), (uint16_t)v);
        ck_assert_uint_eq(cnk_read_be32(&r), (uint32_t)v);
        ck_assert_uint_eq(cnk_read_be64(&r), v);
        ck_assert_uint_eq(cnk_read_le16(&r), (uint16_t)v);
        ck_assert_uint_eq(cnk_read_le32(&r), (uint32_t)v);
        ck_assert_uint_eq(cnk_read_le64(&r), v);
        ck_assert_uint_eq(cnk_read_uvarint(&r), v);
        ck_assert_int_eq(cnk_read_varint(&r), (int64_t)v);
        ck_assert_int_eq(cnk_read_varint(&r), -(int64_t)(v >> 1));
    }
    ck_assert_mem_eq(cnk_read_bytes(&r, 4), "tail", 4);
    ck_assert_int_eq(r.error, 0);
    ck_assert_uint_eq(cnk_reader_left(&r), 0);
    cnk_writer_free(&w);
}
END_TEST

START_TEST(the_bytes_are_the_documented_ones) {
    uint8_t buf[64];
    cnk_writer w;
    cnk_writer_fixed(&w, buf, sizeof buf);
    cnk_write_be32(&w, 0x01020304), cnk_write_le32(&w, 0x01020304), cnk_write_uvarint(&w, 300),
        cnk_write_varint(&w, -1);
    cnk_write_varint(&w, 1), cnk_write_be16(&w, 0xABCD), cnk_write_be64(&w, 0x1122334455667788);
    ck_assert_mem_eq(buf, "\x01\x02\x03\x04\x04\x03\x02\x01\xAC\x02\x01\x02\xAB\xCD\x11\x22\x33\x44\x55\x66\x77\x88",
                     22);
    ck_assert_uint_eq(w.len, 22);
    ck_assert_uint_eq(cnk_load_be16("\x12\x34"), 0x1234);
    ck_assert_uint_eq(cnk_load_le16("\x12\x34"), 0x3412);
}
END_TEST

START_TEST(a_reader_fails_once_and_for_all) {
    static const uint8_t bytes[] = {1, 2, 3};
    cnk_reader r = cnk_reader_of(bytes, 3);
    ck_assert_uint_eq(cnk_read_be32(&r), 0);
    ck_assert_int_eq(r.error, CHRONIK_EPROTO);
    ck_assert_uint_eq(cnk_read_u8(&r), 0); /* though there were three bytes */
    ck_assert_ptr_null(cnk_read_bytes(&r, 0));
    r = cnk_reader_of(NULL, 0);
    ck_assert_ptr_nonnull(cnk_read_bytes(&r, 0));
    ck_assert_int_eq(r.error, 0);
    ck_assert_ptr_null(cnk_read_bytes(&r, SIZE_MAX));
    ck_assert_int_eq(r.error, CHRONIK_EPROTO);
}
END_TEST

START_TEST(varints_that_are_cut_or_too_long_fail) {
    static const struct {
        const char *bytes;
        size_t len;
        bool u32, u64;
    } table[] = {
        {"\x80", 1, false, false},
        {"\xFF\xFF\xFF\xFF\x0F", 5, true, true},
        {"\xFF\xFF\xFF\xFF\x10", 5, false, true}, /* a 33rd bit */
        {"\x80\x80\x80\x80\x80\x01", 6, false, true},
        {"\xFF\xFF\xFF\xFF\xFF\xFF\xFF\xFF\xFF\x01", 10, false, true},
        {"\xFF\xFF\xFF\xFF\xFF\xFF\xFF\xFF\xFF\x02", 10, false, false}, /* a 65th bit */
        {"\x80\x80\x80\x80\x80\x80\x80\x80\x80\x80\x00", 11, false, false},
        {"\x80\x00", 2, true, true}, /* longer than needed is legal */
    };
    for (size_t i = 0; i < sizeof table / sizeof table[0]; i++) {
        cnk_reader r = cnk_reader_of(table[i].bytes, table[i].len);
        cnk_read_uvarint32(&r);
        ck_assert_int_eq(r.error == 0, table[i].u32);
        r = cnk_reader_of(table[i].bytes, table[i].len);
        cnk_read_uvarint(&r);
        ck_assert_int_eq(r.error == 0, table[i].u64);
    }
}
END_TEST

START_TEST(a_writer_keeps_to_its_limit) {
    uint8_t buf[4];
    cnk_writer w;
    cnk_writer_fixed(&w, buf, 4);
    cnk_write_be32(&w, 1);
    ck_assert_int_eq(w.error, 0);
    cnk_write_bytes(&w, NULL, 0);
    ck_assert_int_eq(w.error, 0);
    cnk_write_u8(&w, 1);
    ck_assert_int_eq(w.error, CHRONIK_ETOOLARGE);
    ck_assert_uint_eq(w.len, 4);
    cnk_writer_growing(&w, 1000);
    ck_assert_ptr_nonnull(cnk_write_space(&w, 1000));
    ck_assert_uint_le(w.capacity, 1000);
    ck_assert_ptr_null(cnk_write_space(&w, 1));
    ck_assert_int_eq(w.error, CHRONIK_ETOOLARGE);
    cnk_writer_free(&w);
    cnk_writer_growing(&w, 0);
    ck_assert_ptr_null(cnk_write_space(&w, SIZE_MAX));
    ck_assert_int_eq(w.error, CHRONIK_ETOOLARGE);
    cnk_writer_growing(&w, 0);
    ck_assert_int_eq(cnk_writer_reserve(&w, 100), 0);
    ck_assert_uint_eq(w.len, 0);
    ck_assert_uint_ge(w.capacity, 100);
    cnk_writer_free(&w);
}
END_TEST

/* ---- maps and lists --------------------------------------------------------------------------------------------- */

START_TEST(a_map_agrees_with_a_plain_table) {
    enum { KEYS = 3000, STEPS = 200000 };
    static int values[KEYS];
    static bool there[KEYS];
    cnk_map map = {0};
    cnk_rng rng;
    cnk_rng_seed(&rng, 11);
    size_t count = 0;
    for (int i = 0; i < STEPS; i++) {
        size_t k = cnk_rng_below(&rng, KEYS);
        uint64_t key = (uint64_t)k * 0x100000001; /* high bits matter */
        ck_assert_ptr_eq(cnk_map_get(&map, key), there[k] ? &values[k] : NULL);
        if (cnk_rng_chance(&rng, 1, 2)) {
            ck_assert_int_eq(cnk_map_put(&map, key, &values[k]), 0);
            count += !there[k];
            there[k] = true;
        } else {
            ck_assert_ptr_eq(cnk_map_remove(&map, key), there[k] ? &values[k] : NULL);
            count -= there[k];
            there[k] = false;
        }
        ck_assert_uint_eq(map.count, count);
    }
    size_t it = 0, seen = 0;
    for (int *v; (v = cnk_map_next(&map, &it)); seen++) ck_assert(there[v - values]);
    ck_assert_uint_eq(seen, count);
    ck_assert_int_eq(cnk_map_put(&map, 1, NULL), CHRONIK_EINVAL);
    cnk_map_free(&map);
    ck_assert_ptr_null(cnk_map_get(&map, 0));
}
END_TEST

START_TEST(string_keys_are_compared_whole) {
    cnk_map map = {0};
    char keys[500][8];
    for (int i = 0; i < 500; i++) {
        snprintf(keys[i], sizeof keys[i], "k%d", i);
        ck_assert_int_eq(cnk_map_put_bytes(&map, keys[i], strlen(keys[i]), keys[i]), 0);
    }
    ck_assert_int_eq(cnk_map_put_bytes(&map, "", 0, keys), 0);
    ck_assert_ptr_eq(cnk_map_get_bytes(&map, "", 0), keys);
    ck_assert_ptr_null(cnk_map_get_bytes(&map, "k12\0", 4)); /* the padding is no part of a key */
    ck_assert_ptr_null(cnk_map_get_bytes(&map, "k500", 4));
    for (int i = 0; i < 500; i += 2) ck_assert_ptr_eq(cnk_map_remove_bytes(&map, keys[i], strlen(keys[i])), keys[i]);
    for (int i = 0; i < 500; i++)
        ck_assert_ptr_eq(cnk_map_get_bytes(&map, keys[i], strlen(keys[i])), i % 2 ? keys[i] : NULL);
    cnk_map_free(&map);
}
END_TEST

START_TEST(a_list_knows_what_is_linked) {
    cnk_list head, nodes[3] = {{0}};
    cnk_list_init(&head);
    ck_assert(!cnk_list_linked(&nodes[0]));
    cnk_list_remove(&nodes[0]);
    cnk_list_push_back(&head, &nodes[1]);
    cnk_list_push_back(&head, &nodes[2]);
    cnk_list_push_front(&head, &nodes[0]);
    int n = 0;
    CNK_LIST_EACH(it, &head) {
        ck_assert_ptr_eq(it, &nodes[n++]);
        if (n == 2) cnk_list_remove(it); /* allowed in a walk */
    }
    ck_assert_int_eq(n, 3);
    ck_assert(!cnk_list_linked(&nodes[1]));
    ck_assert_ptr_eq(cnk_list_pop_front(&head), &nodes[0]);
    ck_assert_ptr_eq(cnk_list_pop_front(&head), &nodes[2]);
    ck_assert_ptr_null(cnk_list_pop_front(&head));
}
END_TEST

/* ---- random numbers, UUIDs, metrics ----------------------------------------------------------------------------- */

START_TEST(the_generator_is_xoshiro256starstar) {
    /* From state 1, 2, 3, 4: the reference implementation's first results. */
    static const uint64_t expected[] = {11520, 0, 1509978240, 1215971899390074240};
    cnk_rng rng = {{1, 2, 3, 4}}, other;
    for (size_t i = 0; i < 4; i++) ck_assert_uint_eq(cnk_rng_next(&rng), expected[i]);
    cnk_rng_seed(&rng, 0);
    ck_assert_uint_eq(rng.s[0], UINT64_C(0xE220A8397B1DCDAF)); /* splitmix64's first from 0 */
    cnk_rng_seed(&other, 0);
    uint8_t a[37], b[37];
    cnk_rng_fill(&rng, a, sizeof a);
    cnk_rng_fill(&other, b, sizeof b);
    ck_assert_mem_eq(a, b, sizeof a);
}
END_TEST

START_TEST(ranges_are_kept_and_filled) {
    cnk_rng rng;
    unsigned seen[7] = {0};
    cnk_rng_seed(&rng, 3);
    for (int i = 0; i < 7000; i++) {
        int64_t v = cnk_rng_between(&rng, -3, 3);
        ck_assert(v >= -3 && v <= 3);
        seen[v + 3]++;
    }
    for (int i = 0; i < 7; i++) ck_assert_uint_gt(seen[i], 800);
    ck_assert_uint_eq(cnk_rng_below(&rng, 1), 0);
    for (int i = 0; i < 100; i++) ck_assert(!cnk_rng_chance(&rng, 0, 5) && cnk_rng_chance(&rng, 5, 5));
    cnk_rng_between(&rng, INT64_MIN, INT64_MAX);
    ck_assert_int_eq(cnk_rng_between(&rng, INT64_MIN, INT64_MIN), INT64_MIN);
}
END_TEST

START_TEST(uuids_have_kafkas_text) {
    /* Uuid.toString of Kafka's client for these bytes. */
    static const cnk_uuid u = {
        {0x12, 0x34, 0x56, 0x78, 0x9A, 0xBC, 0x4D, 0xEF, 0x81, 0x23, 0x45, 0x67, 0x89, 0xAB, 0xCD, 0xFF}};
    cnk_uuid v, zero = {{0}};
    char text[CNK_UUID_TEXT_SIZE];
    cnk_uuid_format(&u, text);
    ck_assert_str_eq(text, "EjRWeJq8Te-BI0VniavN_w");
    ck_assert_int_eq(cnk_uuid_parse(text, &v), 0);
    ck_assert(cnk_uuid_equal(&u, &v));
    cnk_uuid_format(&zero, text);
    ck_assert_str_eq(text, "AAAAAAAAAAAAAAAAAAAAAA");
    ck_assert(cnk_uuid_is_zero(&zero) && !cnk_uuid_is_zero(&u));
    static const char *const bad[] = {"",
                                      "EjRWeJq8Te-BI0VniavN_",
                                      "EjRWeJq8Te-BI0VniavN_w=",
                                      "EjRWeJq8Te-BI0VniavN_x",
                                      "EjRWeJq8Te+BI0VniavN_w",
                                      "EjRWeJq8Te BI0VniavN_w"};
    v = u;
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        ck_assert_int_eq(cnk_uuid_parse(bad[i], &v), CHRONIK_EINVAL);
        ck_assert(cnk_uuid_equal(&u, &v));
    }
}
END_TEST

START_TEST(made_uuids_are_version_4_and_no_option) {
    cnk_rng rng;
    cnk_uuid u, v;
    uint8_t entropy[16] = {0};
    char text[CNK_UUID_TEXT_SIZE];
    cnk_uuid_make(entropy, &u);
    ck_assert(!cnk_uuid_is_zero(&u));
    cnk_rng_seed(&rng, 5);
    for (int i = 0; i < 5000; i++) {
        cnk_rng_fill(&rng, entropy, sizeof entropy);
        cnk_uuid_make(entropy, &u);
        ck_assert_uint_eq(u.bytes[6] >> 4, 4);
        ck_assert_uint_eq(u.bytes[8] >> 6, 2);
        cnk_uuid_format(&u, text);
        ck_assert_int_ne(text[0], '-');
        ck_assert_int_eq(cnk_uuid_parse(text, &v), 0);
        ck_assert(cnk_uuid_equal(&u, &v));
    }
}
END_TEST

/* ---- ropes ---- */

START_TEST(slices_are_copied_and_cut_at_any_place) {
    uint8_t bytes[30], copy[30];
    for (uint8_t i = 0; i < 30; i++) bytes[i] = i;
    const struct iovec slices[] = {{bytes, 7}, {bytes + 7, 0}, {bytes + 7, 13}, {bytes + 20, 10}};
    for (size_t from = 0; from <= 30; from++)
        for (size_t len = 0; len <= 30 - from; len++) {
            struct iovec cut[4];
            cnk_slices at = {slices, 0, 30};
            cnk_slices_copy(&at, NULL, from);
            cnk_slices again = at;
            cnk_slices_copy(&at, copy, len);
            ck_assert_int_eq(memcmp(copy, bytes + from, len), 0);
            ck_assert_uint_eq(at.left, 30 - from - len);
            cnk_slices whole = again;
            bool one = (from < 7) == (from + len <= 7) && (from < 20) == (from + len <= 20);
            if (len > 0) ck_assert_ptr_eq(cnk_slices_take(&whole, len), one ? bytes + from : NULL);
            if (len > 0) ck_assert_uint_eq(whole.left, one ? at.left : again.left);
            size_t count = cnk_slices_cut(&again, len, cut), sum = 0;
            for (size_t i = 0; i < count; i++) {
                ck_assert_ptr_eq(cut[i].iov_base, bytes + from + sum);
                ck_assert_uint_gt(cut[i].iov_len, 0);
                sum += cut[i].iov_len;
            }
            ck_assert_uint_eq(sum, len);
            ck_assert_uint_eq(again.left, at.left);
        }
}
END_TEST

START_TEST(ropes_keep_what_was_added_and_give_their_memory_back) {
    cnk_rope_pool *pool = cnk_rope_pool_new(3 << 20);
    ck_assert_ptr_nonnull(pool);
    cnk_rope rope = CNK_ROPE_INIT(pool);
    uint8_t *a = cnk_rope_room(&rope, 100), *b = cnk_rope_room(&rope, CNK_ROPE_CHUNK_BYTES_MAX);
    ck_assert_uint_eq((uintptr_t)a % 4096, 0);
    ck_assert_uint_eq((uintptr_t)b % 4096, 0);
    for (int i = 0; i < 100; i++) a[i] = (uint8_t)i, b[i] = (uint8_t)(100 + i);
    b[CNK_ROPE_CHUNK_BYTES_MAX - 1] = 7;
    ck_assert_int_eq(cnk_rope_add(&rope, a + 10, 20), 0);
    ck_assert_int_eq(cnk_rope_add(&rope, a + 30, 20), 0); /* goes on where the last one ends */
    ck_assert_uint_eq(rope.slice_count, 1);
    ck_assert_int_eq(cnk_rope_add(&rope, b, 50), 0);
    ck_assert_int_eq(cnk_rope_add(&rope, a + 5, 5), 0);
    ck_assert_uint_eq(rope.slice_count, 3);
    ck_assert_uint_eq(rope.len, 95);
    cnk_rope_cut(&rope, 60); /* the last slice, and most of the one before */
    ck_assert_uint_eq(rope.slice_count, 2);
    cnk_writer out;
    cnk_writer_growing(&out, 0);
    ck_assert_int_eq(cnk_rope_write(&rope, &out), 0);
    ck_assert_uint_eq(out.len, 60);
    for (size_t i = 0; i < 60; i++) ck_assert_uint_eq(out.data[i], i < 40 ? 10 + i : 100 + i - 40);
    cnk_writer_free(&out);
    ck_assert_uint_eq(cnk_rope_pool_kept(pool), CNK_ROPE_CHUNK_BYTES_MAX); /* the other one of the pair */
    cnk_rope_release(&rope);
    ck_assert_uint_eq(rope.len + rope.slice_count + rope.chunk_count, 0);
    ck_assert_uint_ge(cnk_rope_pool_kept(pool), CNK_ROPE_CHUNK_BYTES_MAX);
    ck_assert_ptr_eq(cnk_rope_room(&rope, CNK_ROPE_CHUNK_BYTES_MAX - 1), b); /* the same again */
    for (int i = 0; i < 5; i++) ck_assert_ptr_nonnull(cnk_rope_room(&rope, 1 << 20));
    cnk_rope_release(&rope);
    ck_assert_uint_le(cnk_rope_pool_kept(pool), 3 << 20); /* no more than it may keep */
    cnk_rope_pool_trim(pool);
    ck_assert_uint_eq(cnk_rope_pool_kept(pool), 0);
    cnk_rope_pool_free(pool);
}
END_TEST

/* Large chunks come in pairs: the second one is given before another pair is begun, and only whole pairs go. */
START_TEST(large_chunks_come_in_pairs) {
    enum { ONE = CNK_ROPE_CHUNK_BYTES_MAX, ROPES = 5 };
    cnk_rope_pool *pool = cnk_rope_pool_new(4 * ONE);
    cnk_rope ropes[ROPES];
    uint8_t *rooms[ROPES];
    ck_assert_ptr_nonnull(pool);
    for (int i = 0; i < ROPES; i++) {
        ropes[i] = (cnk_rope)CNK_ROPE_INIT(pool);
        rooms[i] = cnk_rope_room(&ropes[i], ONE);
        ck_assert_ptr_nonnull(rooms[i]);
        memset(rooms[i], i, ONE);
        ck_assert_uint_eq(cnk_rope_pool_kept(pool), i % 2 ? 0 : ONE);
        if (i % 2) ck_assert_ptr_eq(rooms[i], rooms[i - 1] + ONE);
    }
    cnk_rope_release(&ropes[0]);
    cnk_rope_release(&ropes[2]);
    cnk_rope_release(&ropes[3]); /* one whole pair, two halves */
    ck_assert_uint_eq(cnk_rope_pool_kept(pool), 4 * ONE);
    uint8_t *half = cnk_rope_room(&ropes[0], ONE - 5000);
    ck_assert(half == rooms[0] || half == rooms[4] + ONE);
    cnk_rope_pool_trim(pool);
    ck_assert_uint_eq(cnk_rope_pool_kept(pool), ONE);
    for (size_t i = 0; i < ONE; i++) ck_assert(rooms[1][i] == 1 && rooms[4][i] == 4);
    for (int i = 0; i < ROPES; i++) cnk_rope_release(&ropes[i]);
    ck_assert_uint_eq(cnk_rope_pool_kept(pool), 4 * ONE);
    for (int i = 0; i < ROPES; i++) ck_assert_ptr_nonnull(cnk_rope_room(&ropes[i], ONE));
    for (int i = 0; i < ROPES; i++) cnk_rope_release(&ropes[i]);
    ck_assert_uint_eq(cnk_rope_pool_kept(pool), 4 * ONE); /* no more than it may keep */
    cnk_rope_pool_trim(pool);
    ck_assert_uint_eq(cnk_rope_pool_kept(pool), 0);
    cnk_rope_pool_free(pool);
}
END_TEST

/* Rooms that were announced lie in one chunk, each on pages of its own; those that were not have one each. */
START_TEST(rooms_that_are_expected_share_a_chunk) {
    cnk_rope rope = CNK_ROPE_INIT(NULL);
    cnk_rope_expect(&rope, 900000);
    uint8_t *first = cnk_rope_room(&rope, 300001), *second = cnk_rope_room(&rope, 500000);
    ck_assert_ptr_eq(second, first + 303104);
    memset(first, 1, 300001);
    memset(second, 2, 500000);
    ck_assert_uint_eq(first[300000], 1);
    ck_assert_ptr_nonnull(cnk_rope_room(&rope, 400000)); /* more than was said */
    ck_assert_uint_eq(rope.chunk_count, 2);
    cnk_rope_release(&rope);
    for (int i = 0; i < 3; i++) ck_assert_ptr_nonnull(cnk_rope_room(&rope, 16384));
    ck_assert_uint_eq(rope.chunk_count, 3);
    cnk_rope_release(&rope);
}
END_TEST

/* The bucket in which the only value lies. */
static size_t bucket_with_one(const uint64_t *buckets, size_t count) {
    size_t found = count;
    for (size_t i = 0; i < count; i++) {
        ck_assert(buckets[i] == 0 || (buckets[i] == 1 && found == count));
        if (buckets[i]) found = i;
    }
    ck_assert_uint_lt(found, count);
    return found;
}

/* Each value lies in the first bucket whose bound is not below it. */
START_TEST(latencies_find_their_bucket) {
    for (size_t b = 0; b < CNK_LATENCY_BUCKETS - 1; b++)
        for (int d = -1; d <= 1; d++) {
            cnk_latency l = {0};
            cnk_latency_counts c = {0};
            uint64_t v = cnk_latency_bounds_ns[b] + (uint64_t)d;
            cnk_latency_add(&l, v);
            cnk_latency_read(&l, &c);
            ck_assert_uint_eq(bucket_with_one(c.buckets, CNK_LATENCY_BUCKETS), b + (d > 0));
            ck_assert_uint_eq(c.sum_ns, v);
        }
    for (unsigned power = 0; power < 64; power++) {
        cnk_latency l = {0};
        cnk_latency_counts c = {0};
        uint64_t v = UINT64_C(1) << power;
        cnk_latency_add(&l, v);
        cnk_latency_read(&l, &c);
        size_t i = bucket_with_one(c.buckets, CNK_LATENCY_BUCKETS);
        ck_assert(i == CNK_LATENCY_BUCKETS - 1 || v <= cnk_latency_bounds_ns[i]);
        ck_assert(i == 0 || v > cnk_latency_bounds_ns[i - 1]);
    }
}
END_TEST

START_TEST(sizes_find_their_bucket) {
    static const uint64_t values[] = {0, 1, 2, 4, 5, 16, 17, 4096, 4097, UINT64_C(1) << 24, (UINT64_C(1) << 24) + 1, UINT64_MAX};
    static const size_t buckets[] = {0, 0, 1, 1, 2, 2, 3, 6, 7, 12, 13, 13};
    for (size_t i = 0; i < sizeof values / sizeof values[0]; i++) {
        cnk_sizes s = {0};
        cnk_sizes_counts c = {0};
        cnk_sizes_add(&s, values[i]);
        cnk_sizes_read(&s, &c);
        ck_assert_uint_eq(bucket_with_one(c.buckets, CNK_SIZES_BUCKETS), buckets[i]);
        ck_assert_uint_eq(c.sum, values[i]);
    }
}
END_TEST

int main(void) {
    Suite *s = suite_create("base");
    TCase *t = tcase_create("base");
    tcase_add_test(t, every_code_has_its_own_number_name_and_text);
    tcase_add_test(t, an_error_is_filled_and_its_code_returned);
    tcase_add_test(t, an_error_passes_on_its_cause_once);
    tcase_add_test(t, a_long_text_is_cut_at_a_character);
    tcase_add_test(t, errnos_become_codes);
    tcase_add_test(t, a_failed_assertion_calls_the_handler);
    tcase_add_test(t, sizes_of_zero_and_too_much);
    tcase_add_test(t, pages_are_aligned_and_zero);
    tcase_add_test(t, arrays_grow_with_their_content);
    tcase_add_test(t, an_arena_gives_aligned_memory_up_to_its_limit);
#ifdef CNK_TEST_HOOKS
    tcase_add_test(t, the_nth_allocation_fails);
#endif
    tcase_add_test(t, what_is_written_is_read);
    tcase_add_test(t, the_bytes_are_the_documented_ones);
    tcase_add_test(t, a_reader_fails_once_and_for_all);
    tcase_add_test(t, varints_that_are_cut_or_too_long_fail);
    tcase_add_test(t, a_writer_keeps_to_its_limit);
    tcase_add_test(t, a_map_agrees_with_a_plain_table);
    tcase_add_test(t, string_keys_are_compared_whole);
    tcase_add_test(t, a_list_knows_what_is_linked);
    tcase_add_test(t, the_generator_is_xoshiro256starstar);
    tcase_add_test(t, ranges_are_kept_and_filled);
    tcase_add_test(t, uuids_have_kafkas_text);
    tcase_add_test(t, made_uuids_are_version_4_and_no_option);
    tcase_add_test(t, slices_are_copied_and_cut_at_any_place);
    tcase_add_test(t, ropes_keep_what_was_added_and_give_their_memory_back);
    tcase_add_test(t, large_chunks_come_in_pairs);
    tcase_add_test(t, rooms_that_are_expected_share_a_chunk);
    tcase_add_test(t, latencies_find_their_bucket);
    tcase_add_test(t, sizes_find_their_bucket);
    suite_add_tcase(s, t);
    SRunner *r = srunner_create(s);
    srunner_set_fork_status(r, CK_NOFORK);
    srunner_run_all(r, CK_NORMAL);
    int failed = srunner_ntests_failed(r);
    srunner_free(r);
    return failed != 0;
}
