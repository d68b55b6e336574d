/* Every message and version through the interpreter: byte 0 picks the message, byte 1 the version, the rest is decoded.
 * What decodes must encode, and that decode to the same. Produce requests also go through the decoder by hand. */
#include <stdlib.h>

#include "../oracle/random_message.h"
#include "../unit/kafka_fake_broker.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check(bool right) {
    if (!right) abort();
}

static void again(const cnk_kafka_message *m, int version, const void *value, cnk_arena *arena) {
    uint64_t other[64];
    cnk_writer w;
    check(m->root->size <= sizeof other);
    cnk_writer_growing(&w, 0);
    const int code = cnk_kafka_encode(m, version, value, &w);
    if (code == CHRONIK_EINVAL) { /* a string over 32767 bytes, which flexible versions can carry */
        cnk_writer_free(&w);
        return;
    }
    check(code == 0);
    cnk_reader r = cnk_reader_of(w.data, w.len);
    check(cnk_kafka_decode(m, version, &r, arena, other) == 0 && cnk_reader_left(&r) == 0);
    check(equal_struct(m->root, value, (const uint8_t *)other));
    cnk_writer_free(&w);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    uint64_t value[64];
    size_t count = 0;
    cnk_arena arena;
    if (size < 2) return 0;
    while (cnk_kafka_messages[count]) count++;
    const cnk_kafka_message *m = cnk_kafka_messages[data[0] % count];
    const int version = m->version_min + data[1] % (m->version_max - m->version_min + 1);
    check(m->root->size <= sizeof value);
    cnk_arena_init(&arena, 4096, CNK_KAFKA_ARENA_BASE + CNK_KAFKA_ARENA_FACTOR * size);
    cnk_reader r = cnk_reader_of(data + 2, size - 2);
    const int code = cnk_kafka_decode(m, version, &r, &arena, value);
    check(code == 0 || code == CHRONIK_EPROTO || code == CHRONIK_ENOMEM);
    arena.limit = 0;
    if (m == &cnk_produce_request_message) {
        cnk_kafka_produce_request request;
        cnk_reader p = cnk_reader_of(data + 2, size - 2);
        const int by_hand = cnk_kafka_produce_decode(&p, version, &arena, &request);
        check((code == 0) == (by_hand == 0) || code == CHRONIK_ENOMEM);
        check(code != 0 || cnk_reader_left(&p) == cnk_reader_left(&r));
    }
    if (code == 0) again(m, version, value, &arena);
    cnk_arena_free(&arena);
    return 0;
}
