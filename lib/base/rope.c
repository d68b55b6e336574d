/* Ropes and their pool. A chunk's size is one of CLASSES: 16 KiB doubled again and again, and last CNK_ROPE_CHUNK_BYTES_MAX.
 * In the pool, a free chunk holds the link to the next one of its size; `kept` counts the bytes of all of these. */
#include "base/rope.h"

#include <pthread.h>
#include <string.h>

#include <chronik/error.h>

#include "base/assert.h"
#include "base/mem.h"

enum { SMALLEST_BYTES = 16 << 10, CLASSES = 7 };

struct cnk_rope_pool {
    pthread_mutex_t mutex;
    void *free[CLASSES];
    size_t kept, kept_max;
};

static size_t class_bytes(unsigned size_class) {
    return size_class == CLASSES - 1 ? CNK_ROPE_CHUNK_BYTES_MAX : (size_t)SMALLEST_BYTES << size_class;
}

cnk_rope_pool *cnk_rope_pool_new(size_t kept_bytes_max) {
    cnk_rope_pool *pool = cnk_calloc(1, sizeof *pool);
    if (pool == NULL) return NULL;
    pool->kept_max = kept_bytes_max;
    if (pthread_mutex_init(&pool->mutex, NULL) != 0) {
        cnk_free(pool);
        return NULL;
    }
    return pool;
}

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
    bool keep = false;
    if (pool) {
        pthread_mutex_lock(&pool->mutex);
        keep = pool->kept + bytes <= pool->kept_max;
        if (keep) {
            *(void **)(void *)chunk.data = pool->free[chunk.size_class];
            pool->free[chunk.size_class] = chunk.data;
            pool->kept += bytes;
        }
        pthread_mutex_unlock(&pool->mutex);
    }
    if (!keep) cnk_pages_free(chunk.data, bytes);
}

void cnk_rope_pool_trim(cnk_rope_pool *pool) {
    for (unsigned c = 0; c < CLASSES; c++)
        for (uint8_t *chunk; (chunk = pool_take(pool, c)) != NULL;) cnk_pages_free(chunk, class_bytes(c));
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
    pthread_mutex_destroy(&pool->mutex);
    cnk_free(pool);
}

uint8_t *cnk_rope_room(cnk_rope *rope, size_t size) {
    CNK_ASSERT(size <= CNK_ROPE_CHUNK_BYTES_MAX);
    if (cnk_array_reserve((void **)&rope->chunks, &rope->chunk_capacity, rope->chunk_count + 1, sizeof *rope->chunks))
        return NULL;
    unsigned c = 0;
    while (class_bytes(c) < size) c++;
    uint8_t *data = rope->pool ? pool_take(rope->pool, c) : NULL;
    if (data == NULL) data = cnk_pages_alloc(class_bytes(c));
    if (data) rope->chunks[rope->chunk_count++] = (cnk_rope_chunk){data, c};
    return data;
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
    for (size_t i = 0; i < rope->chunk_count; i++) pool_give(rope->pool, rope->chunks[i]);
    cnk_free(rope->chunks);
    cnk_free(rope->slices);
    *rope = (cnk_rope)CNK_ROPE_INIT(rope->pool);
}

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
