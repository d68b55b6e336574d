/* UUIDs and their text. No state; any thread.
 *
 * The text: 16 bytes, most significant first, as base64 with the URL alphabet (RFC 4648 section 5), no padding. The
 * last of the 22 characters carries 2 bits; its 4 low bits are 0, and a text where they are not is refused. */
#include "base/uuid.h"

#include <string.h>

#include <chronik/error.h>

static const char alphabet[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";

void cnk_uuid_make(const uint8_t entropy[16], cnk_uuid *ret_uuid) {
    cnk_uuid u;
    memcpy(u.bytes, entropy, sizeof u.bytes);
    u.bytes[6] =
        (uint8_t)((u.bytes[6] & 0x0Fu) | 0x40u); /* version 4; also makes it differ from Kafka's reserved ids */
    u.bytes[8] = (uint8_t)((u.bytes[8] & 0x3Fu) | 0x80u); /* the RFC's variant */
    /* Kafka makes none whose text starts with '-', since such an argument looks like an option. */
    if (u.bytes[0] >> 2 == 62) u.bytes[0] ^= 0x80u;
    *ret_uuid = u;
}

bool cnk_uuid_is_zero(const cnk_uuid *u) {
    static const cnk_uuid zero;
    return cnk_uuid_equal(u, &zero);
}

bool cnk_uuid_equal(const cnk_uuid *a, const cnk_uuid *b) { return memcmp(a->bytes, b->bytes, sizeof a->bytes) == 0; }

void cnk_uuid_format(const cnk_uuid *u, char ret_text[CNK_UUID_TEXT_SIZE]) {
    unsigned bits = 0, held = 0, n = 0;
    for (size_t i = 0; i < sizeof u->bytes; i++) {
        bits = (bits << 8 | u->bytes[i]) & 0xFFFFu;
        for (held += 8; held >= 6; held -= 6) ret_text[n++] = alphabet[bits >> (held - 6) & 63u];
    }
    ret_text[n++] = alphabet[bits << (6 - held) & 63u];
    ret_text[n] = '\0';
}

int cnk_uuid_parse(const char *text, cnk_uuid *ret_uuid) {
    cnk_uuid u;
    unsigned bits = 0, held = 0, n = 0;
    if (strlen(text) != CNK_UUID_TEXT_SIZE - 1) return CHRONIK_EINVAL;
    for (const char *c = text; *c; c++) {
        const char *at = strchr(alphabet, *c);
        if (at == NULL) return CHRONIK_EINVAL;
        bits = (bits << 6 | (unsigned)(at - alphabet)) & 0x3FFFu;
        held += 6;
        if (held < 8) continue;
        held -= 8;
        u.bytes[n++] = (uint8_t)(bits >> held);
    }
    if (bits & ((1u << held) - 1)) return CHRONIK_EINVAL;
    *ret_uuid = u;
    return 0;
}
