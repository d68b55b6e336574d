/* Hash maps by linear probing, deletion by shifting back (so no tombstones, and a lookup ends at the first free slot).
 * A slot is free where its value is NULL. cnk_hash_u64 is a bijection, so an integer's hash stands for the integer
 * itself and slots of integer maps have no key. A map belongs to one thread at a time.
 *
 * The hashes are not keyed: the same history gives the same order on every run, which simulations need. Whoever feeds
 * keys that a stranger chooses bounds their number. */
#include "base/map.h"

#include <stdbool.h>
#include <string.h>

#include <chronik/error.h>

#include "base/bytes.h"
#include "base/mem.h"

#define FIRST_CAPACITY 16u

void cnk_map_free(cnk_map *m) {
    cnk_free(m->slots);
    *m = (cnk_map){0};
}

/* splitmix64's finaliser (Steele, Lea and Flood 2014), after an odd multiplication so that 0 moves as well. */
uint64_t cnk_hash_u64(uint64_t v) {
    v += UINT64_C(0x9E3779B97F4A7C15);
    v = (v ^ (v >> 30)) * UINT64_C(0xBF58476D1CE4E5B9);
    v = (v ^ (v >> 27)) * UINT64_C(0x94D049BB133111EB);
    return v ^ (v >> 31);
}

/* Multiply and fold, 8 bytes a step; the length goes in first, so that zero padding of the tail is no collision. */
static uint64_t fold(uint64_t a, uint64_t b) {
    __extension__ typedef unsigned __int128 u128;
    u128 product = (u128)a * b;
    return (uint64_t)product ^ (uint64_t)(product >> 64);
}

uint64_t cnk_hash_bytes(const void *p, size_t len) {
    const uint8_t *b = p;
    uint64_t h = UINT64_C(0x9E3779B97F4A7C15) ^ (uint64_t)len * UINT64_C(0xD6E8FEB86659FD93);
    for (; len >= 8; b += 8, len -= 8)
        h = fold(h ^ cnk_load_le64(b), UINT64_C(0xA0761D6478BD642F)) + UINT64_C(0xE7037ED1A0B428DB);
    uint64_t tail = 0;
    if (len) memcpy(&tail, b, len);
    return cnk_hash_u64(fold(h ^ tail, UINT64_C(0x8EBC6AF09C88C6E3)) ^ h);
}

static bool slot_matches(const cnk_map_slot *slot, uint64_t hash, const void *key, size_t len) {
    if (slot->hash != hash || slot->key_len != len) return false;
    return len == 0 || memcmp(slot->key, key, len) == 0;
}

/* The slot of the key, or the free slot where it would go. The table is never full. */
static size_t find(const cnk_map *m, uint64_t hash, const void *key, size_t len) {
    size_t mask = m->capacity - 1, i = (size_t)hash & mask;
    while (m->slots[i].value && !slot_matches(&m->slots[i], hash, key, len)) i = (i + 1) & mask;
    return i;
}

static void *get(const cnk_map *m, uint64_t hash, const void *key, size_t len) {
    return m->count ? m->slots[find(m, hash, key, len)].value : NULL;
}

static int grow(cnk_map *m) {
    size_t capacity = m->capacity ? m->capacity * 2 : FIRST_CAPACITY;
    cnk_map_slot *slots = cnk_calloc(capacity, sizeof *slots);
    if (slots == NULL) return CHRONIK_ENOMEM;
    for (size_t i = 0; i < m->capacity; i++) {
        if (m->slots[i].value == NULL) continue;
        size_t to = (size_t)m->slots[i].hash & (capacity - 1);
        while (slots[to].value) to = (to + 1) & (capacity - 1);
        slots[to] = m->slots[i];
    }
    cnk_free(m->slots);
    m->slots = slots;
    m->capacity = capacity;
    return 0;
}

static int put(cnk_map *m, uint64_t hash, const void *key, size_t len, void *value) {
    if (value == NULL) return CHRONIK_EINVAL;
    size_t i = 0;
    bool found = m->capacity && m->slots[i = find(m, hash, key, len)].value;
    if (!found && (m->count + 1) * 4 > m->capacity * 3) {
        int error = grow(m);
        if (error) return error;
        i = find(m, hash, key, len);
    }
    m->slots[i] = (cnk_map_slot){hash, key, len, value};
    m->count += !found;
    return 0;
}

static void *take(cnk_map *m, uint64_t hash, const void *key, size_t len) {
    if (m->count == 0) return NULL;
    size_t mask = m->capacity - 1, hole = find(m, hash, key, len);
    void *old = m->slots[hole].value;
    if (old == NULL) return NULL;
    for (size_t i = (hole + 1) & mask; m->slots[i].value; i = (i + 1) & mask) {
        size_t home = (size_t)m->slots[i].hash & mask;
        if (((i - home) & mask) < ((i - hole) & mask)) continue; /* it would move in front of its home */
        m->slots[hole] = m->slots[i];
        hole = i;
    }
    m->slots[hole] = (cnk_map_slot){0};
    m->count--;
    return old;
}

void *cnk_map_get(const cnk_map *m, uint64_t key) { return get(m, cnk_hash_u64(key), NULL, 0); }

int cnk_map_put(cnk_map *m, uint64_t key, void *value) { return put(m, cnk_hash_u64(key), NULL, 0, value); }

void *cnk_map_remove(cnk_map *m, uint64_t key) { return take(m, cnk_hash_u64(key), NULL, 0); }

void *cnk_map_get_bytes(const cnk_map *m, const void *key, size_t len) {
    return get(m, cnk_hash_bytes(key, len), key, len);
}

int cnk_map_put_bytes(cnk_map *m, const void *key, size_t len, void *value) {
    return put(m, cnk_hash_bytes(key, len), key, len, value);
}

void *cnk_map_remove_bytes(cnk_map *m, const void *key, size_t len) {
    return take(m, cnk_hash_bytes(key, len), key, len);
}

void *cnk_map_next(const cnk_map *m, size_t *it) {
    while (*it < m->capacity) {
        void *value = m->slots[(*it)++].value;
        if (value) return value;
    }
    return NULL;
}
