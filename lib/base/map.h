/* Hash maps: 64-bit integers, or byte strings, to pointers. Open addressing; grows at 3/4 full. Keys of a string map
 * are borrowed: they live in the value. Iteration order is unspecified but the same for the same history. */
#ifndef CNK_BASE_MAP_H
#define CNK_BASE_MAP_H

#include <stddef.h>
#include <stdint.h>

typedef struct cnk_map_slot {
    uint64_t hash;
    const void *key;
    size_t key_len;
    void *value;
} cnk_map_slot;
typedef struct cnk_map {
    cnk_map_slot *slots;
    size_t count, capacity;
} cnk_map; /* zeroed: empty */

void cnk_map_free(cnk_map *m);                          /* the table, not the values */
void *cnk_map_get(const cnk_map *m, uint64_t key);      /* NULL: not there */
int cnk_map_put(cnk_map *m, uint64_t key, void *value); /* value not NULL; replaces; 0 or ENOMEM */
void *cnk_map_remove(cnk_map *m, uint64_t key);         /* the old value or NULL */
void *cnk_map_get_bytes(const cnk_map *m, const void *key, size_t len);
int cnk_map_put_bytes(cnk_map *m, const void *key, size_t len, void *value);
void *cnk_map_remove_bytes(cnk_map *m, const void *key, size_t len);
/* Walks: start with *it = 0; NULL at the end. The map must not change meanwhile. */
void *cnk_map_next(const cnk_map *m, size_t *it);
uint64_t cnk_hash_u64(uint64_t v);
uint64_t cnk_hash_bytes(const void *p, size_t len);

#endif
