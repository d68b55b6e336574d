/* Memory: the one door to the allocator, so that tests can fail each allocation in turn. No state outside test builds;
 * any thread. An arena belongs to one thread at a time.
 *
 * Arena: a list of chunks, the newest ordinary one first; `used` counts in that one. A request that is larger than a
 * chunk gets a chunk of its own, linked behind the first, so the first one's rest is not lost. `total` and `limit`
 * count the bytes handed out, rounded up to 16. */
#include "base/mem.h"

#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include <chronik/error.h>

#include "base/assert.h"

#if defined(__GLIBC__) && !defined(CNK_TEST_HOOKS)
#include <malloc.h>
#endif

#define ARENA_ALIGN 16u
#define ARENA_CHUNK_MIN 64u
#define ARRAY_BYTES_MIN 64u /* of an array that begins: many hold one thing, and there are some for each partition */
#define HUGE_PAGE_BYTES ((size_t)2 << 20)
#define PAGE_BYTES_MAX ((size_t)64 << 10) /* the largest that systems have */

struct cnk_arena_chunk {
    cnk_arena_chunk *next;
    size_t size; /* of data */
    _Alignas(ARENA_ALIGN) unsigned char data[];
};

#ifdef CNK_TEST_HOOKS
#include <stdatomic.h>

static atomic_long fail_countdown = -1;
static atomic_long allocations;

void cnk_mem_fail_at(long n) { atomic_store(&fail_countdown, n); }
long cnk_mem_count(void) { return atomic_load(&allocations); }

static bool must_fail(void) {
    atomic_fetch_add(&allocations, 1);
    long left = atomic_load(&fail_countdown);
    while (left >= 0)
        if (atomic_compare_exchange_weak(&fail_countdown, &left, left - 1)) return left == 0;
    return false;
}
#else
static inline bool must_fail(void) { return false; }
#endif

void *cnk_malloc(size_t size) {
    if (must_fail()) return NULL;
    return malloc(size ? size : 1);
}

void *cnk_calloc(size_t count, size_t size) {
    if (must_fail()) return NULL;
    if (count == 0 || size == 0) count = size = 1;
    size_t bytes;
    if (__builtin_mul_overflow(count, size, &bytes)) return NULL;
    return calloc(1, bytes);
}

void *cnk_realloc(void *old, size_t size) {
    if (must_fail()) return NULL;
    return realloc(old, size ? size : 1);
}

void cnk_mem_trim(void) {
#if defined(__GLIBC__) && !defined(CNK_TEST_HOOKS)
    (void)malloc_trim(0);
#endif
}

void cnk_free(void *p) { free(p); }

char *cnk_strdup(const char *s) { return cnk_memdup(s, strlen(s) + 1); }

void *cnk_memdup(const void *p, size_t len) {
    void *copy = cnk_malloc(len);
    if (copy && len) memcpy(copy, p, len);
    return copy;
}

/* Direct I/O pays for each page that it pins, and a request holds only so many: with huge pages it costs a fifth. So a
 * large mapping is cut to begin where a huge page can, and asks for them. */
static void *pages_huge(size_t size) {
    char *p = mmap(NULL, size + HUGE_PAGE_BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (p == MAP_FAILED) return NULL;
    size_t before = (size_t)(-(uintptr_t)p % HUGE_PAGE_BYTES), after = HUGE_PAGE_BYTES - before;
    int failed = before ? munmap(p, before) : 0;
    CNK_ASSERT(failed == 0);
    failed = after ? munmap(p + before + size, after) : 0;
    CNK_ASSERT(failed == 0);
#ifdef MADV_HUGEPAGE
    (void)madvise(p + before, size, MADV_HUGEPAGE);
#endif
    return p + before;
}

/* What is mapped for so many bytes: from a huge page on whole pages, for pages_huge cuts there. */
static size_t mapped_bytes(size_t size) {
    if (size >= HUGE_PAGE_BYTES) return (size + PAGE_BYTES_MAX - 1) / PAGE_BYTES_MAX * PAGE_BYTES_MAX;
    return size ? size : 1;
}

void *cnk_pages_alloc(size_t size) {
    if (must_fail()) return NULL;
    if (size >= HUGE_PAGE_BYTES) return pages_huge(mapped_bytes(size));
    void *p = mmap(NULL, mapped_bytes(size), PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    return p == MAP_FAILED ? NULL : p;
}

void cnk_pages_free(void *p, size_t size) {
    if (p == NULL) return;
    int failed = munmap(p, mapped_bytes(size));
    CNK_ASSERT(failed == 0);
}

int cnk_array_reserve(void **items, size_t *capacity, size_t count_needed, size_t item_size) {
    CNK_ASSERT(item_size > 0);
    if (count_needed <= *capacity) return 0;
    size_t most = SIZE_MAX / 2 / item_size;
    if (count_needed > most) return CHRONIK_ENOMEM;
    size_t least = ARRAY_BYTES_MIN / item_size > 1 ? ARRAY_BYTES_MIN / item_size : 1;
    size_t grown = *capacity < least ? least : *capacity;
    while (grown < count_needed) grown += grown / 2 + 1;
    if (grown > most) grown = count_needed;
    void *p = cnk_realloc(*items, grown * item_size);
    if (p == NULL) return CHRONIK_ENOMEM;
    *items = p;
    *capacity = grown;
    return 0;
}

void cnk_arena_init(cnk_arena *arena, size_t chunk_size, size_t limit) {
    *arena = (cnk_arena){.chunk_size = chunk_size < ARENA_CHUNK_MIN ? ARENA_CHUNK_MIN : chunk_size, .limit = limit};
}

static cnk_arena_chunk *chunk_new(size_t size) {
    if (size > SIZE_MAX - sizeof(cnk_arena_chunk)) return NULL;
    cnk_arena_chunk *chunk = cnk_malloc(sizeof *chunk + size);
    if (chunk == NULL) return NULL;
    chunk->next = NULL;
    chunk->size = size;
    return chunk;
}

void *cnk_arena_alloc(cnk_arena *arena, size_t size) {
    if (size > SIZE_MAX - ARENA_ALIGN) return NULL;
    size = size ? (size + ARENA_ALIGN - 1) & ~(size_t)(ARENA_ALIGN - 1) : ARENA_ALIGN;
    if (arena->limit && (arena->total > arena->limit || size > arena->limit - arena->total)) return NULL;
    cnk_arena_chunk *first = arena->chunks;
    if (first == NULL || size > first->size - arena->used) {
        bool own = size > arena->chunk_size;
        cnk_arena_chunk *chunk = chunk_new(own ? size : arena->chunk_size);
        if (chunk == NULL) return NULL;
        if (own && first) {
            chunk->next = first->next;
            first->next = chunk;
            arena->total += size;
            return chunk->data;
        }
        chunk->next = first;
        arena->chunks = first = chunk;
        arena->used = 0;
    }
    void *p = first->data + arena->used;
    arena->used += size;
    arena->total += size;
    return p;
}

void cnk_arena_reset(cnk_arena *arena) {
    cnk_arena_chunk *kept = NULL, *next;
    for (cnk_arena_chunk *c = arena->chunks; c; c = next) {
        next = c->next;
        if (kept == NULL && c->size == arena->chunk_size) kept = c;
        else cnk_free(c);
    }
    if (kept) kept->next = NULL;
#ifdef CNK_TEST_HOOKS
    if (kept) memset(kept->data, 0xdb, kept->size); /* who still looks at it is found out */
#endif
    arena->chunks = kept;
    arena->used = arena->total = 0;
}

void cnk_arena_free(cnk_arena *arena) {
    cnk_arena_chunk *next;
    for (cnk_arena_chunk *c = arena->chunks; c; c = next) {
        next = c->next;
        cnk_free(c);
    }
    arena->chunks = NULL;
    arena->used = arena->total = 0;
}
