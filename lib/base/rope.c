/* Ropes and their pool. A chunk's size is one of CLASSES: 16 KiB doubled again and again, and last CNK_ROPE_CHUNK_BYTES_MAX.
 *
 * In the pool, a free chunk holds the link to the next one of its size. Those of the largest size come in pairs, of which the
 * first 2 MiB are a huge page where the system has them: a direct read of 1 MiB into it has one or two segments, and is one
 * request, instead of 257 and several. Such a pair goes back to the system as a whole; of two that would do, the pool
 * gives from the one that is in use already. `kept` counts the bytes of all free chunks. */
#include "base/rope.h"

#include <pthread.h>
#include <string.h>

#include <chronik/error.h>

#include "base/assert.h"
#include "base/list.h"
#include "base/mem.h"

enum { PAGE_BYTES = 4096, SMALLEST_BYTES = 16 << 10, CLASSES = 7, LARGEST = CLASSES - 1, BOTH = 3 };
#define PAIR_BYTES (2 * CNK_ROPE_CHUNK_BYTES_MAX)

struct cnk_rope_pair {
    cnk_list node; /* in pool->halves or pool->wholes, as one or two of its chunks are free; else in neither */
    uint8_t *data;
    unsigned free; /* a bit for each chunk */
};

struct cnk_rope_pool {
    pthread_mutex_t mutex;
    void *free[LARGEST];
    cnk_list halves, wholes;
    size_t pair_count; /* also those with no free chunk */
    size_t kept, kept_max;
};

static size_t class_bytes(unsigned size_class) {
    return size_class == LARGEST ? CNK_ROPE_CHUNK_BYTES_MAX : (size_t)SMALLEST_BYTES << size_class;
}

cnk_rope_pool *cnk_rope_pool_new(size_t kept_bytes_max) {
    cnk_rope_pool *pool = cnk_calloc(1, sizeof *pool);
    if (pool == NULL) return NULL;
    pool->kept_max = kept_bytes_max;
    cnk_list_init(&pool->halves);
    cnk_list_init(&pool->wholes);
    if (pthread_mutex_init(&pool->mutex, NULL) != 0) {
        cnk_free(pool);
        return NULL;
    }
    return pool;
}

/* ---- chunks of the largest size ---- */

static void pair_free(cnk_rope_pair *pair) {
    cnk_pages_free(pair->data, PAIR_BYTES);
    cnk_free(pair);
}

static cnk_rope_pair *pair_new(void) {
    cnk_rope_pair *pair = cnk_calloc(1, sizeof *pair);
    if (pair && (pair->data = cnk_pages_alloc(PAIR_BYTES)) == NULL) {
        cnk_free(pair);
        return NULL;
    }
    if (pair) pair->free = BOTH;
    return pair;
}

/* A pair with two free chunks leaves the pool. */
static void pair_gone(cnk_rope_pool *pool) {
    pool->kept -= PAIR_BYTES;
    pool->pair_count--;
}

static cnk_rope_chunk pair_take(cnk_rope_pool *pool) {
    pthread_mutex_lock(&pool->mutex);
    cnk_list *node = cnk_list_pop_front(&pool->halves);
    if (node == NULL) node = cnk_list_pop_front(&pool->wholes);
    cnk_rope_pair *pair = node ? CNK_CONTAINER(node, cnk_rope_pair, node) : NULL;
    if (pair == NULL) {
        pthread_mutex_unlock(&pool->mutex);
        pair = pair_new();
        if (pair == NULL) return (cnk_rope_chunk){NULL, LARGEST, NULL};
        pthread_mutex_lock(&pool->mutex);
        pool->kept += PAIR_BYTES;
        pool->pair_count++;
    }
    unsigned second = pair->free & 1 ? 0 : 1;
    pair->free &= ~(1u << second);
    pool->kept -= CNK_ROPE_CHUNK_BYTES_MAX;
    if (pair->free != 0) cnk_list_push_front(&pool->halves, &pair->node);
    pthread_mutex_unlock(&pool->mutex);
    return (cnk_rope_chunk){pair->data + second * CNK_ROPE_CHUNK_BYTES_MAX, LARGEST, pair};
}

static void pair_give(cnk_rope_pool *pool, cnk_rope_chunk chunk) {
    cnk_rope_pair *pair = chunk.pair;
    pthread_mutex_lock(&pool->mutex);
    pair->free |= chunk.data == pair->data ? 1u : 2u;
    pool->kept += CNK_ROPE_CHUNK_BYTES_MAX;
    bool keep = pair->free != BOTH || pool->kept <= pool->kept_max;
    cnk_list_remove(&pair->node);
    if (keep) cnk_list_push_front(pair->free == BOTH ? &pool->wholes : &pool->halves, &pair->node);
    else pair_gone(pool);
    pthread_mutex_unlock(&pool->mutex);
    if (!keep) pair_free(pair);
}

static cnk_rope_pair *whole_take(cnk_rope_pool *pool) {
    pthread_mutex_lock(&pool->mutex);
    cnk_list *node = cnk_list_pop_front(&pool->wholes);
    if (node) pair_gone(pool);
    pthread_mutex_unlock(&pool->mutex);
    return node ? CNK_CONTAINER(node, cnk_rope_pair, node) : NULL;
}

/* ---- the others ---- */

static uint8_t *pool_take(cnk_rope_pool *pool, unsigned size_class) {
    pthread_mutex_lock(&pool->mutex);
    void *chunk = pool->free[size_class];
    if (chunk) {
        pool->free[size_class] = *(void **)chunk;
        pool->kept -= class_bytes(size_class);
    }
    pthread_mutex_unlock(&pool->mutex);
    return chunk;
}

static void pool_give(cnk_rope_pool *pool, cnk_rope_chunk chunk) {
    size_t bytes = class_bytes(chunk.size_class);
    pthread_mutex_lock(&pool->mutex);
    bool keep = pool->kept + bytes <= pool->kept_max;
    if (keep) {
        *(void **)(void *)chunk.data = pool->free[chunk.size_class];
        pool->free[chunk.size_class] = chunk.data;
        pool->kept += bytes;
    }
    pthread_mutex_unlock(&pool->mutex);
    if (!keep) cnk_pages_free(chunk.data, bytes);
}

void cnk_rope_pool_trim(cnk_rope_pool *pool) {
    for (unsigned c = 0; c < LARGEST; c++)
        for (uint8_t *chunk; (chunk = pool_take(pool, c)) != NULL;) cnk_pages_free(chunk, class_bytes(c));
    for (cnk_rope_pair *pair; (pair = whole_take(pool)) != NULL;) pair_free(pair);
}

size_t cnk_rope_pool_kept(cnk_rope_pool *pool) {
    pthread_mutex_lock(&pool->mutex);
    size_t kept = pool->kept;
    pthread_mutex_unlock(&pool->mutex);
    return kept;
}

void cnk_rope_pool_free(cnk_rope_pool *pool) {
    if (pool == NULL) return;
    cnk_rope_pool_trim(pool);
    CNK_ASSERT(pool->pair_count == 0); /* else a rope has not been released */
    pthread_mutex_destroy(&pool->mutex);
    cnk_free(pool);
}

static cnk_rope_chunk chunk_take(cnk_rope_pool *pool, unsigned size_class) {
    if (pool && size_class == LARGEST) return pair_take(pool);
    uint8_t *data = pool ? pool_take(pool, size_class) : NULL;
    return (cnk_rope_chunk){data ? data : cnk_pages_alloc(class_bytes(size_class)), size_class, NULL};
}

static void chunk_give(cnk_rope_pool *pool, cnk_rope_chunk chunk) {
    if (chunk.pair) pair_give(pool, chunk);
    else if (pool) pool_give(pool, chunk);
    else cnk_pages_free(chunk.data, class_bytes(chunk.size_class));
}

/* ---- ropes ---- */

void cnk_rope_expect(cnk_rope *rope, size_t bytes) { rope->expected = bytes; }

uint8_t *cnk_rope_room(cnk_rope *rope, size_t size) {
    CNK_ASSERT(size <= CNK_ROPE_CHUNK_BYTES_MAX);
    if (size > rope->spare_len) {
        size_t want = rope->expected < CNK_ROPE_CHUNK_BYTES_MAX ? rope->expected : CNK_ROPE_CHUNK_BYTES_MAX;
        unsigned c = 0;
        while (class_bytes(c) < size || class_bytes(c) < want) c++;
        if (cnk_array_reserve((void **)&rope->chunks, &rope->chunk_capacity, rope->chunk_count + 1, sizeof *rope->chunks))
            return NULL;
        cnk_rope_chunk chunk = chunk_take(rope->pool, c);
        if (chunk.data == NULL) return NULL;
        rope->chunks[rope->chunk_count++] = chunk;
        rope->spare = chunk.data;
        rope->spare_len = class_bytes(c);
    }
    uint8_t *room = rope->spare;
    size_t pages = (size + PAGE_BYTES - 1) / PAGE_BYTES * PAGE_BYTES; /* each size class is whole pages */
    rope->spare += pages;
    rope->spare_len -= pages;
    rope->expected -= pages < rope->expected ? pages : rope->expected;
    return room;
}

int cnk_rope_add(cnk_rope *rope, const uint8_t *data, size_t len) {
    struct iovec *last = rope->slice_count > 0 ? &rope->slices[rope->slice_count - 1] : NULL;
    if (last && (const uint8_t *)last->iov_base + last->iov_len == data) {
        last->iov_len += len;
    } else {
        if (cnk_array_reserve((void **)&rope->slices, &rope->slice_capacity, rope->slice_count + 1,
                              sizeof *rope->slices))
            return CHRONIK_ENOMEM;
        rope->slices[rope->slice_count++] = (struct iovec){(void *)(uintptr_t)data, len};
    }
    rope->len += len;
    return 0;
}

void cnk_rope_cut(cnk_rope *rope, size_t len) {
    while (rope->len > len) {
        struct iovec *last = &rope->slices[rope->slice_count - 1];
        size_t less = rope->len - len < last->iov_len ? rope->len - len : last->iov_len;
        last->iov_len -= less;
        rope->len -= less;
        if (last->iov_len == 0) rope->slice_count--;
    }
}

int cnk_rope_write(const cnk_rope *rope, cnk_writer *out) {
    for (size_t i = 0; i < rope->slice_count; i++)
        cnk_write_bytes(out, rope->slices[i].iov_base, rope->slices[i].iov_len);
    return out->error;
}

void cnk_rope_release(cnk_rope *rope) {
    for (size_t i = 0; i < rope->chunk_count; i++) chunk_give(rope->pool, rope->chunks[i]);
    cnk_free(rope->chunks);
    cnk_free(rope->slices);
    *rope = (cnk_rope)CNK_ROPE_INIT(rope->pool);
}

/* ---- slices ---- */

/* How many bytes the slice has from here on, of the next one that has any. */
static size_t at_hand(cnk_slices *from, size_t len) {
    CNK_ASSERT(len > 0 && len <= from->left);
    while (from->at == from->slices->iov_len) from->slices++, from->at = 0;
    return from->slices->iov_len - from->at;
}

const uint8_t *cnk_slices_take(cnk_slices *from, size_t len) {
    if (at_hand(from, len) < len) return NULL;
    const uint8_t *data = (const uint8_t *)from->slices->iov_base + from->at;
    from->at += len;
    from->left -= len;
    return data;
}

/* The next run of at most `len` bytes that lie side by side. */
static struct iovec slices_next(cnk_slices *from, size_t len) {
    size_t n = at_hand(from, len);
    struct iovec run = {(uint8_t *)from->slices->iov_base + from->at, n < len ? n : len};
    from->at += run.iov_len;
    from->left -= run.iov_len;
    return run;
}

void cnk_slices_copy(cnk_slices *from, void *to, size_t len) {
    for (size_t done = 0; done < len;) {
        struct iovec run = slices_next(from, len - done);
        if (to) memcpy((uint8_t *)to + done, run.iov_base, run.iov_len);
        done += run.iov_len;
    }
}

size_t cnk_slices_cut(cnk_slices *from, size_t len, struct iovec *ret_slices) {
    size_t count = 0;
    for (size_t done = 0; done < len; done += ret_slices[count++].iov_len) ret_slices[count] = slices_next(from, len - done);
    return count;
}
