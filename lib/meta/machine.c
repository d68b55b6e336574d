/* The metadata's state machine: committed image, head, and what lies between.
 *
 * Invariants
 *  - `now` is the image at the last applied entry; `ahead` holds one image for each proposed command, in order of
 * index;
 *    the last of them, or `now`, is the head.
 *  - A command is applied to a copy of the head before it is proposed; its commit publishes that copy and cannot fail.
 *
 * Owner: the thread of the metadata's shard. */
#include "base/assert.h"
#include "base/list.h"
#include "base/mem.h"
#include "meta/internal.h"

typedef struct ahead {
    cnk_list node;
    uint64_t index;
    cnk_meta_image *image;
} ahead;

struct cnk_meta {
    cnk_meta_options options;
    cnk_meta_image *now;
    cnk_list ahead; /* bounded: the callers' operations are */
};

static int apply_to_copy(const cnk_meta *meta, const cnk_meta_image *from, const uint8_t *command, size_t len,
                         cnk_meta_image **ret_image);
static void ahead_free(ahead *a);

int cnk_meta_new(const cnk_meta_options *options, cnk_meta **ret_meta) {
    cnk_meta *meta = cnk_calloc(1, sizeof *meta);
    if (meta == NULL) return CHRONIK_ENOMEM;
    meta->options = *options;
    cnk_list_init(&meta->ahead);
    if (cnk_meta_image_empty(&meta->now) != 0) {
        cnk_free(meta);
        return CHRONIK_ENOMEM;
    }
    *ret_meta = meta;
    return 0;
}

void cnk_meta_free(cnk_meta *meta) {
    if (meta == NULL) return;
    CNK_LIST_EACH(node, &meta->ahead) ahead_free(CNK_CONTAINER(node, ahead, node));
    cnk_meta_image_unref(meta->now);
    cnk_free(meta);
}

cnk_meta_image *cnk_meta_image_now(const cnk_meta *meta) { return meta->now; }

cnk_meta_image *cnk_meta_image_head(const cnk_meta *meta) {
    return cnk_list_empty(&meta->ahead) ? meta->now : CNK_CONTAINER(meta->ahead.prev, ahead, node)->image;
}

int cnk_meta_propose(cnk_meta *meta, cnk_replica *replica, const cnk_meta_command *command, uint64_t *ret_index) {
    const cnk_writer *bytes = &command->bytes;
    if (bytes->error != 0) return bytes->error;
    ahead *a = cnk_calloc(1, sizeof *a);
    if (a == NULL) return CHRONIK_ENOMEM;
    int rc = apply_to_copy(meta, cnk_meta_image_head(meta), bytes->data, bytes->len, &a->image);
    if (rc == 0) rc = cnk_replica_propose_command(replica, bytes->data, bytes->len, &a->index);
    if (rc != 0) {
        ahead_free(a);
        return rc;
    }
    a->image->version = a->index;
    cnk_list_push_back(&meta->ahead, &a->node);
    *ret_index = a->index;
    return 0;
}

int cnk_meta_apply(void *arg, cnk_replica *replica, uint64_t index, const uint8_t *command, size_t len) {
    cnk_meta *meta = arg;
    (void)replica;
    cnk_meta_image *image = NULL;
    if (cnk_list_empty(&meta->ahead)) { /* recovery, or another leader's command */
        int rc = apply_to_copy(meta, meta->now, command, len, &image);
        if (rc != 0) return rc;
        image->version = index;
        cnk_meta_image_unref(meta->now);
        meta->now = image;
        return 0;
    }
    ahead *a = CNK_CONTAINER(cnk_list_pop_front(&meta->ahead), ahead, node);
    CNK_ASSERT(a->index == index);
    cnk_meta_image_unref(meta->now);
    meta->now = a->image;
    a->image = NULL;
    ahead_free(a);
    meta->options.published(meta->options.arg, meta->now);
    return 0;
}

int cnk_meta_snapshot(void *arg, cnk_writer *out) {
    cnk_meta *meta = arg;
    cnk_meta_image_write(meta->now, out);
    return out->error;
}

int cnk_meta_restore(void *arg, const uint8_t *state, size_t len, uint64_t applied_index) {
    cnk_meta *meta = arg;
    cnk_meta_image *empty = NULL, *image = NULL;
    int rc = cnk_meta_image_empty(&empty);
    if (rc == 0) rc = apply_to_copy(meta, empty, state, len, &image);
    cnk_meta_image_unref(empty);
    if (rc != 0) return rc;
    image->version = applied_index;
    cnk_meta_image_unref(meta->now);
    meta->now = image;
    return 0;
}

void cnk_meta_truncated(cnk_meta *meta, uint64_t last_index_kept) {
    while (!cnk_list_empty(&meta->ahead)) {
        ahead *a = CNK_CONTAINER(meta->ahead.prev, ahead, node);
        if (a->index <= last_index_kept) return;
        cnk_list_remove(&a->node);
        ahead_free(a);
    }
}

static int apply_to_copy(const cnk_meta *meta, const cnk_meta_image *from, const uint8_t *command, size_t len,
                         cnk_meta_image **ret_image) {
    cnk_meta_image *image = NULL;
    int rc = cnk_meta_image_copy(from, cnk_meta_count_topics(command, len), &image);
    if (rc == 0) rc = cnk_meta_image_apply(image, &meta->options, command, len);
    if (rc == 0 && image->partition_count > CNK_META_PARTITIONS_MAX && image->partition_count > from->partition_count)
        rc = CHRONIK_ETOOLARGE;
    if (rc != 0) {
        cnk_meta_image_unref(image);
        return rc;
    }
    *ret_image = image;
    return 0;
}

static void ahead_free(ahead *a) {
    cnk_meta_image_unref(a->image);
    cnk_free(a);
}
