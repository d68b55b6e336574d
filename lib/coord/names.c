/* Which partition coordinates whom, and which topics are the coordinators'. Any thread. */
#include <string.h>

#include "coord/coord.h"

/* Java hashes UTF-16 units: characters beyond the basic plane are two. Bytes that are no UTF-8 count as U+FFFD each. */
static size_t next_character(const uint8_t *p, size_t left, uint32_t *ret_c) {
    uint32_t c = p[0];
    size_t len = c < 0x80 ? 1 : c >= 0xf0 && c < 0xf5 ? 4 : c >= 0xe0 && c < 0xf0 ? 3 : c >= 0xc2 && c < 0xe0 ? 2 : 0;
    *ret_c = 0xfffd;
    if (len == 0 || len > left) return 1;
    if (len > 1) c &= 0x7fu >> len;
    for (size_t i = 1; i < len; i++) {
        if ((p[i] & 0xc0) != 0x80) return 1;
        c = c << 6 | (p[i] & 0x3fu);
    }
    *ret_c = c;
    return len;
}

int32_t cnk_coord_partition_of(cnk_text id, int32_t partitions) {
    uint32_t hash = 0, c;
    for (size_t at = 0; at < id.len;) {
        at += next_character((const uint8_t *)id.p + at, id.len - at, &c);
        if (c >= 0x10000) {
            c -= 0x10000;
            hash = hash * 31 + (0xd800 + (c >> 10));
            c = 0xdc00 + (c & 0x3ff);
        }
        hash = hash * 31 + c;
    }
    uint32_t abs = hash == 0x80000000u ? 0 : hash > 0x80000000u ? 0 - hash : hash; /* Utils.abs */
    return (int32_t)(abs % (uint32_t)partitions);
}

bool cnk_coord_topic_is_internal(const char *name, size_t len) {
    static const char *const names[] = {CNK_COORD_GROUPS_TOPIC, "__transaction_state", "__share_group_state"};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        if (strlen(names[i]) == len && memcmp(names[i], name, len) == 0) return true;
    return false;
}
