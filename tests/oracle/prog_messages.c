/* The library's side of the message oracle: answers lines on stdin, one line each on stdout.
 *
 *     list                         NAME MIN MAX …        all messages and their versions
 *     random NAME VERSION SEED     HEX                   a random message, encoded ("-" where it has no bytes)
 *     recode NAME VERSION HEX      HEX                   decoded and encoded again
 *
 * A failure answers "error CODE-NAME". */
#include <stdio.h>

#include "kafka/messages.h"
#include "random_message.h"

#define LINE_MAX_ (1u << 20)
#define TEXT "%63s"

static const cnk_kafka_message *find(const char *name) {
    for (const cnk_kafka_message *const *m = cnk_kafka_messages; *m; m++)
        if (strcmp((*m)->root->name, name) == 0) return *m;
    return NULL;
}

static void print_hex(const cnk_writer *w) {
    if (w->len == 0) putchar('-');
    for (size_t i = 0; i < w->len; i++) printf("%02x", w->data[i]);
    putchar('\n');
}

static size_t read_hex(const char *text, uint8_t *out) {
    size_t len = 0;
    unsigned byte;
    for (; sscanf(text, "%2x", &byte) == 1 && text[0] != '-'; text += 2) out[len++] = (uint8_t)byte;
    return len;
}

static int make(const cnk_kafka_message *m, int version, uint64_t seed, cnk_arena *arena, cnk_writer *out) {
    uint64_t value[64];
    cnk_rng rng;
    if (m->root->size > sizeof value) abort();
    cnk_rng_seed(&rng, seed);
    random_struct(&rng, arena, m->root, version, (uint8_t *)value);
    return cnk_kafka_encode(m, version, value, out);
}

static int recode(const cnk_kafka_message *m, int version, const uint8_t *data, size_t len, cnk_arena *arena,
                  cnk_writer *out) {
    uint64_t value[64];
    cnk_reader r = cnk_reader_of(data, len);
    const int code = cnk_kafka_decode(m, version, &r, arena, value);
    if (code) return code;
    return cnk_reader_left(&r) ? CHRONIK_EPROTO : cnk_kafka_encode(m, version, value, out);
}

int main(void) {
    char *line = malloc(LINE_MAX_), *hex = malloc(LINE_MAX_);
    uint8_t *bytes = malloc(LINE_MAX_);
    if (!line || !hex || !bytes) return 1;
    while (fgets(line, LINE_MAX_, stdin)) {
        char name[64];
        int version, code = CHRONIK_EINVAL;
        unsigned long long seed;
        cnk_arena arena;
        cnk_writer out;
        cnk_arena_init(&arena, 4096, 0);
        cnk_writer_growing(&out, 0);
        const cnk_kafka_message *m;
        if (strncmp(line, "list", 4) == 0) {
            for (const cnk_kafka_message *const *i = cnk_kafka_messages; *i; i++)
                printf("%s %d %d ", (*i)->root->name, (*i)->version_min, (*i)->version_max);
            putchar('\n');
            code = 1;
        } else if (sscanf(line, "random " TEXT " %d %llu", name, &version, &seed) == 3 && (m = find(name))) {
            code = make(m, version, seed, &arena, &out);
        } else if (sscanf(line, "recode " TEXT " %d %s", name, &version, hex) == 3 && (m = find(name))) {
            code = recode(m, version, bytes, read_hex(hex, bytes), &arena, &out);
        }
        if (code == 0) print_hex(&out);
        else if (code < 0) printf("error %s\n", chronik_error_name(code));
        fflush(stdout);
        cnk_writer_free(&out);
        cnk_arena_free(&arena);
    }
    free(line);
    free(hex);
    free(bytes);
    return 0;
}
