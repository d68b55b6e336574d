/* Memory. All allocation of the library goes through here, so that a test can fail each one in turn. */
#ifndef CNK_BASE_MEM_H
#define CNK_BASE_MEM_H

#include <stddef.h>

void *cnk_malloc(size_t size);               /* NULL: out of memory */
void *cnk_calloc(size_t count, size_t size); /* zeroed; NULL also where count * size overflows */
void *cnk_realloc(void *old, size_t size);   /* as realloc; `old` stays valid on failure */
void cnk_free(void *p);                      /* NULL-safe */
char *cnk_strdup(const char *s);
void *cnk_memdup(const void *p, size_t len); /* len 0: a valid pointer */

/* Gives freed memory, which the allocator keeps to itself, back to the system, where it can: for a time at which much was
 * freed, and little will be wanted. Takes milliseconds, and holds up who allocates: in a job. Does nothing in test builds. */
void cnk_mem_trim(void);

/* Page-aligned memory straight from the kernel, zeroed, freed with the same size. From 2 MiB on it comes in huge pages
 * where the system has them, which makes direct I/O far cheaper; the first touch then makes 2 MiB resident. */
void *cnk_pages_alloc(size_t size);
void cnk_pages_free(void *p, size_t size);

/* Grows an array for one more element: *items has room for at least count + 1 elements of `size` bytes on success. */
int cnk_array_reserve(void **items, size_t *capacity, size_t count_needed, size_t item_size);

/* An arena: allocations that are freed together. Chunks of `chunk_size` from cnk_malloc. */
typedef struct cnk_arena_chunk cnk_arena_chunk;
typedef struct cnk_arena {
    cnk_arena_chunk *chunks;
    size_t used, chunk_size, total, limit; /* limit: bytes in all; 0: none. Beyond it allocations fail. */
} cnk_arena;
void cnk_arena_init(cnk_arena *arena, size_t chunk_size, size_t limit);
void *cnk_arena_alloc(cnk_arena *arena, size_t size); /* 16-byte aligned; NULL: no memory or over the limit */
void cnk_arena_reset(cnk_arena *arena);               /* keeps one chunk */
void cnk_arena_free(cnk_arena *arena);

#ifdef CNK_TEST_HOOKS
/* Test builds: fails the n-th allocation from now (0: the next; negative: never) and counts all. Per process. */
void cnk_mem_fail_at(long n);
long cnk_mem_count(void);
#endif

#endif
