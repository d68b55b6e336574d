/* The inside of meta, shared by its source files. */
#ifndef CNK_META_INTERNAL_H
#define CNK_META_INTERNAL_H

#include "meta/meta.h"

/* records.h's format, both ways */
enum {
    RECORD_CLUSTER = 1,  /* uuid cluster id */
    RECORD_COUNTERS = 2, /* snapshots: u64 next stream · i64 next producer id · u32 epoch floor · u32 feature level */
    RECORD_TOPIC = 3,    /* see records.c */
    RECORD_ONLINE = 4,   /* uuid topic id */
    RECORD_DELETE = 5,   /* uuid topic id · u32 epoch floor */
    RECORD_PRODUCER_BLOCK = 6, /* i64 next producer id */
    RECORD_PARTITIONS = 7,     /* these two: see records.c */
    RECORD_CONFIGS = 8
};

/* image.c */
int cnk_meta_image_empty(cnk_meta_image **ret_image);
int cnk_meta_image_copy(const cnk_meta_image *from, size_t extra_topics, cnk_meta_image **ret_image);
int cnk_meta_image_add(cnk_meta_image *image, cnk_meta_topic *topic); /* takes the reference; EEXIST; room was made */
int cnk_meta_image_remove(cnk_meta_image *image, const cnk_uuid *id); /* ENOTFOUND */
int cnk_meta_image_replace(cnk_meta_image *image, cnk_meta_topic *topic); /* takes the reference */
int cnk_meta_topic_new(const char *name, size_t name_len, const cnk_uuid *id, int32_t partitions, size_t configs,
                       cnk_meta_topic **ret_topic);                               /* leaders unknown */
/* Shares the leaders. `added` more partitions, to be filled; with `configs` places for configurations, to be filled, or
 * SIZE_MAX: those of `from`. */
int cnk_meta_topic_clone(const cnk_meta_topic *from, int32_t added, size_t configs, cnk_meta_topic **ret_topic);
void cnk_meta_topic_unref(cnk_meta_topic *topic);

/* records.c */
int cnk_meta_image_apply(cnk_meta_image *image, const cnk_meta_options *options, const uint8_t *command, size_t len);
size_t cnk_meta_count_topics(const uint8_t *command, size_t len);        /* an upper bound */
void cnk_meta_image_write(const cnk_meta_image *image, cnk_writer *out); /* as a command that makes it */

/* topic_config.c */
void cnk_meta_topic_resolve(cnk_meta_topic *topic, const cnk_meta_options *options);

#endif
