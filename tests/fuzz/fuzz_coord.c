/* Records of groups: byte 0 picks key, offset's value or group's value, the rest is read; what can be read is written and
 * read again. */
#include <stdlib.h>

#include "coord/records.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check(bool right) {
    if (!right) abort();
}

static void key(const uint8_t *data, size_t size) {
    cnk_coord_key k, again;
    cnk_writer w;
    if (cnk_coord_key_read(data, size, &k) != 0 || k.kind == CNK_COORD_KEY_OTHER) return;
    cnk_writer_growing(&w, 0);
    if (k.kind == CNK_COORD_KEY_GROUP) cnk_coord_group_key_write(&w, k.group);
    else cnk_coord_offset_key_write(&w, k.group, k.topic, k.partition);
    check(cnk_coord_key_read(w.data, w.len, &again) == 0 && again.kind == k.kind && again.partition == k.partition);
    check(cnk_text_equal(again.group, k.group) && cnk_text_equal(again.topic, k.topic));
    cnk_writer_free(&w);
}

static void offset(const uint8_t *data, size_t size) {
    cnk_coord_offset_value v, again;
    cnk_writer w;
    if (cnk_coord_offset_value_read(data, size, &v) != 0 || v.metadata.len > INT16_MAX) return;
    cnk_writer_growing(&w, 0);
    cnk_coord_offset_value_write(&w, &v);
    check(cnk_coord_offset_value_read(w.data, w.len, &again) == 0);
    check(again.offset == v.offset && again.commit_ms == v.commit_ms && again.metadata.len == v.metadata.len);
    cnk_writer_free(&w);
}

static void group(const uint8_t *data, size_t size) {
    cnk_reader r = cnk_reader_of(data, size);
    int version;
    cnk_coord_group_value v;
    cnk_coord_member_value m;
    size_t read = 0;
    if (cnk_coord_group_value_read(&r, &version, &v) != 0) return;
    check(v.member_count >= 0 && (size_t)v.member_count <= size);
    for (int32_t i = 0; i < v.member_count && cnk_coord_member_value_read(&r, version, &m) == 0; i++)
        read += m.id.len + m.subscription.len + m.assignment.len;
    check(read <= size);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    if (size == 0) return 0;
    switch (data[0] % 3) {
    case 0: key(data + 1, size - 1); break;
    case 1: offset(data + 1, size - 1); break;
    default: group(data + 1, size - 1); break;
    }
    return 0;
}
