/* The metadata's commands and snapshots: byte 0 says whether the first piece is a snapshot; each piece has its length in
 * two bytes before it, and is applied as a command. What is refused changes nothing; what is taken makes an image that is
 * in order, and that comes back the same from its snapshot. */
#include <stdlib.h>
#include <string.h>

#include "base/assert.h"
#include "base/mem.h"
#include "meta/internal.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum { PIECES_MAX = 64 };

static const char *broker_value(void *arg, const char *name) {
    (void)arg, (void)name;
    return NULL;
}
static void published(void *arg, cnk_meta_image *image) { (void)arg, (void)image; }
static const cnk_meta_options options = {broker_value, published, NULL};

static void check_image(const cnk_meta_image *image) {
    size_t partitions = 0;
    for (size_t i = 0; i < image->topic_count; i++) {
        const cnk_meta_topic *t = image->by_name[i];
        CNK_ASSERT(i == 0 || strcmp(image->by_name[i - 1]->name, t->name) < 0);
        CNK_ASSERT(cnk_meta_topic_any(image, t->name, t->name_len) == t && cnk_meta_topic_any_by_id(image, &t->id) == t);
        CNK_ASSERT(t->partition_count <= t->partition_total);
        for (int32_t p = 0; p < t->partition_total; p++) CNK_ASSERT(t->partitions[p].leader != NULL);
        partitions += (size_t)t->partition_total;
    }
    CNK_ASSERT(partitions == image->partition_count);
}

static cnk_writer snapshot_of(cnk_meta *meta) {
    cnk_writer w;
    cnk_writer_growing(&w, 0);
    CNK_ASSERT(cnk_meta_snapshot(meta, &w) == 0);
    return w;
}

/* The image again from its own snapshot. */
static void check_snapshot(const cnk_writer *w) {
    cnk_meta *again;
    CNK_ASSERT(cnk_meta_new(&options, &again) == 0);
    CNK_ASSERT(cnk_meta_restore(again, w->data, w->len, 1) == 0);
    cnk_writer same = snapshot_of(again);
    CNK_ASSERT(same.len == w->len && memcmp(same.data, w->data, w->len) == 0);
    cnk_writer_free(&same);
    cnk_meta_free(again);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    cnk_meta *meta;
    if (size == 0) return 0;
    bool restore = data[0] & 1, taken = false;
    data++, size--;
    CNK_ASSERT(cnk_meta_new(&options, &meta) == 0);
    cnk_writer before = snapshot_of(meta);
    for (uint64_t index = 1; size >= 2 && index <= PIECES_MAX; index++) {
        size_t len = cnk_load_be16(data);
        data += 2, size -= 2;
        if (len > size) len = size;
        uint8_t *piece = malloc(len ? len : 1); /* of its exact size, for the sanitizer */
        CNK_ASSERT(piece != NULL);
        memcpy(piece, data, len);
        int rc = restore && index == 1 ? cnk_meta_restore(meta, piece, len, index) : cnk_meta_apply(meta, NULL, index, piece, len);
        free(piece);
        CNK_ASSERT(rc == 0 || rc == CHRONIK_ECORRUPT || rc == CHRONIK_EUNSUPPORTED || rc == CHRONIK_ENOMEM);
        cnk_writer after = snapshot_of(meta);
        CNK_ASSERT(rc == 0 || (after.len == before.len && memcmp(after.data, before.data, before.len) == 0));
        cnk_writer_free(&before);
        before = after;
        taken |= rc == 0;
        check_image(cnk_meta_image_now(meta));
        data += len, size -= len;
    }
    if (taken) check_snapshot(&before);
    cnk_writer_free(&before);
    cnk_meta_free(meta);
    return 0;
}
