/* A rope: what has been read from files, in pieces, where it was read: slices of page-aligned chunks, in order.
 *
 * Chunks come from a pool that threads may share, so that pages which the kernel has given once are used again: fresh
 * ones would cost a fault each. A rope belongs to one thread at a time. */
#ifndef CNK_BASE_ROPE_H
#define CNK_BASE_ROPE_H

#include <stddef.h>
#include <sys/uio.h>

#include "base/bytes.h"

#define CNK_ROPE_CHUNK_BYTES_MAX ((size_t)(1u << 20) + (16u << 10)) /* 1 MiB, wherever it begins in its first page */

typedef struct cnk_rope_pool cnk_rope_pool;
typedef struct cnk_rope_pair cnk_rope_pair; /* of large chunks (rope.c) */
/* Keeps up to kept_bytes_max of chunks that nobody uses, and the others of pairs that are in use. NULL: no memory. */
cnk_rope_pool *cnk_rope_pool_new(size_t kept_bytes_max);
/* Gives what nobody uses back to the system, but for the others of such pairs. Any thread. */
void cnk_rope_pool_trim(cnk_rope_pool *pool);
size_t cnk_rope_pool_kept(cnk_rope_pool *pool); /* bytes; any thread */
/* After every rope has been released. NULL-safe. */
void cnk_rope_pool_free(cnk_rope_pool *pool);

typedef struct cnk_rope_chunk {
    uint8_t *data;
    unsigned size_class;
    cnk_rope_pair *pair; /* NULL: it is none of one */
} cnk_rope_chunk;

typedef struct cnk_rope {
    cnk_rope_pool *pool; /* NULL: chunks straight from the system */
    cnk_rope_chunk *chunks;
    size_t chunk_count, chunk_capacity;
    struct iovec *slices;
    size_t slice_count, slice_capacity;
    size_t len;      /* of all slices */
    uint8_t *spare;  /* the last chunk's rest */
    size_t spare_len, expected;
} cnk_rope;

#define CNK_ROPE_INIT(pool) \
    { (pool), NULL, 0, 0, NULL, 0, 0, 0, NULL, 0, 0 }

/* About so many bytes of rooms are going to be asked for: they share chunks. */
void cnk_rope_expect(cnk_rope *rope, size_t bytes);
/* Page-aligned memory that lives until the rope is released; size at most CNK_ROPE_CHUNK_BYTES_MAX. NULL: no memory. */
uint8_t *cnk_rope_room(cnk_rope *rope, size_t size);
/* Appends a slice, which lies in the rope's chunks; one that goes on where the last ends becomes one with it. 0, ENOMEM. */
int cnk_rope_add(cnk_rope *rope, const uint8_t *data, size_t len);
/* Keeps the first `len` bytes. */
void cnk_rope_cut(cnk_rope *rope, size_t len);
/* Copies all slices behind what `out` holds. What the writer says. */
int cnk_rope_write(const cnk_rope *rope, cnk_writer *out);
/* Gives the chunks back; the rope is empty then, as after CNK_ROPE_INIT. */
void cnk_rope_release(cnk_rope *rope);

/* A place in slices: those of a rope, or others. */
typedef struct cnk_slices {
    const struct iovec *slices; /* the one at hand */
    size_t at;                  /* in it */
    size_t left;                /* bytes from here on, of all */
} cnk_slices;
/* The next `len` bytes, of which there are as many; goes on behind them. `to` NULL: only goes on. */
void cnk_slices_copy(cnk_slices *from, void *to, size_t len);
/* The next `len` bytes where they lie, and goes on behind them; NULL: they lie in more than one slice, and it stays. */
const uint8_t *cnk_slices_take(cnk_slices *from, size_t len);
/* Slices of the next `len` bytes, no more than lie there; gives their number, and goes on behind them. */
size_t cnk_slices_cut(cnk_slices *from, size_t len, struct iovec *ret_slices);

#endif
