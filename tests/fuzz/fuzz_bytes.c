/* Byte cursors, and the texts of UUIDs. The first half of the input is a list of reads, the second what they read.
 * Whatever is read is written again; a reader that did not fail has then been copied, but for varints that were longer
 * than needed, which must read back as the same value. */
#include <string.h>

#include "base/assert.h"
#include "base/bytes.h"
#include "base/uuid.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void copy_one(unsigned what, cnk_reader *r, cnk_writer *w) {
    size_t left = cnk_reader_left(r);
    int error = r->error;
    switch (what % 12) {
    case 0: cnk_write_u8(w, cnk_read_u8(r)); break;
    case 1: cnk_write_be16(w, cnk_read_be16(r)); break;
    case 2: cnk_write_be32(w, cnk_read_be32(r)); break;
    case 3: cnk_write_be64(w, cnk_read_be64(r)); break;
    case 4: cnk_write_le16(w, cnk_read_le16(r)); break;
    case 5: cnk_write_le32(w, cnk_read_le32(r)); break;
    case 6: cnk_write_le64(w, cnk_read_le64(r)); break;
    default: break;
    }
    if (what % 12 == 7 || what % 12 == 8 || what % 12 == 9) {
        size_t before = w->len;
        uint64_t u = 0;
        int64_t s = 0;
        if (what % 12 == 7)
            cnk_write_uvarint(w, u = cnk_read_uvarint(r));
        else if (what % 12 == 8)
            cnk_write_uvarint(w, u = cnk_read_uvarint32(r));
        else
            cnk_write_varint(w, s = cnk_read_varint(r));
        if (r->error == 0 && w->error == 0) {
            cnk_reader again = cnk_reader_of(w->data + before, w->len - before);
            if (what % 12 == 9)
                CNK_ASSERT(cnk_read_varint(&again) == s);
            else
                CNK_ASSERT(cnk_read_uvarint(&again) == u);
            CNK_ASSERT(again.error == 0 && cnk_reader_left(&again) == 0 &&
                       w->len - before <= left - cnk_reader_left(r));
        }
    } else if (what % 12 >= 10) {
        size_t len = what / 12;
        const uint8_t *p = cnk_read_bytes(r, len);
        CNK_ASSERT((p == NULL) == (r->error != 0));
        if (p) cnk_write_bytes(w, p, len);
    }
    CNK_ASSERT(r->error == 0 || (r->error == CHRONIK_EPROTO && cnk_reader_left(r) == 0));
    CNK_ASSERT(error == 0 || r->error == error); /* sticky */
    CNK_ASSERT(cnk_reader_left(r) <= left);
}

static void try_uuid(const uint8_t *data, size_t size) {
    char text[64], again[CNK_UUID_TEXT_SIZE];
    cnk_uuid u;
    size_t n = size < sizeof text - 1 ? size : sizeof text - 1;
    memcpy(text, data, n);
    text[n] = '\0';
    if (cnk_uuid_parse(text, &u)) return;
    cnk_uuid_format(&u, again);
    CNK_ASSERT(strcmp(text, again) == 0);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    size_t half = size / 2;
    uint8_t room[256];
    cnk_reader r = cnk_reader_of(data + half, size - half), fixed_r = r;
    cnk_writer w, fixed;
    try_uuid(data, size);
    cnk_writer_growing(&w, 4096);
    cnk_writer_fixed(&fixed, room, size % sizeof room);
    for (size_t i = 0; i < half; i++) {
        copy_one(data[i], &r, &w);
        copy_one(data[i], &fixed_r, &fixed);
        CNK_ASSERT(fixed.len <= fixed.capacity && w.len <= 4096);
        CNK_ASSERT(fixed.len == 0 || w.error || fixed.error || memcmp(w.data, room, fixed.len) == 0);
    }
    cnk_writer_free(&w);
    return 0;
}
