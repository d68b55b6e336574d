/* meta: the cluster's metadata: an event-sourced state machine on stream 1, and its immutable image.
 *
 * The image is a value: made on the metadata's shard when commands commit, never changed afterwards, shared by all
 * threads, freed with its last reference. Each request takes one reference and uses that version throughout (T7).
 * What changes without a commit, who leads a partition and since when (R13), stands in a cnk_meta_leader that all
 * versions of a partition share; its fields are atomics, written by the partition's shard.
 *
 * Formats stand in records.h. */
#ifndef CNK_META_META_H
#define CNK_META_META_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <chronik/io.h>

#include "base/metric.h"
#include "base/uuid.h"
#include "replica/replica.h"

/* Named limits (T8). */
#define CNK_TOPIC_NAME_MAX 249         /* bytes; Kafka's */
#define CNK_TOPIC_PARTITIONS_MAX 10000 /* of one topic */
#define CNK_META_PARTITIONS_MAX 200000 /* of all topics */
#define CNK_META_REPLICAS_MAX 15       /* of one partition */
#define CNK_META_COMMAND_BYTES_MAX (8u << 20)
#define CNK_META_CONFIG_VALUE_MAX 32767 /* bytes */
#define CNK_META_PRODUCER_BLOCK 1000    /* producer ids in a durable block */
#define CNK_META_STREAM UINT64_C(1)     /* the metadata's own stream; partitions' start at 2 */

/* ---- topic configuration ---------------------------------------------------------------------------------------- */

typedef enum cnk_config_type { /* Kafka's numbers (DescribeConfigs 3) */
                               CNK_CONFIG_BOOLEAN = 1,
                               CNK_CONFIG_STRING = 2,
                               CNK_CONFIG_INT = 3,
                               CNK_CONFIG_SHORT = 4,
                               CNK_CONFIG_LONG = 5,
                               CNK_CONFIG_DOUBLE = 6,
                               CNK_CONFIG_LIST = 7,
                               CNK_CONFIG_CLASS = 8,
                               CNK_CONFIG_PASSWORD = 9
} cnk_config_type;

#define CNK_TOPIC_CODEC_PRODUCER 0xffu

/* The topic options as the data path uses them; every topic of an image has them resolved. */
typedef struct cnk_topic_settings {
    uint32_t max_message_bytes;
    int64_t timestamp_before_max_ms, timestamp_after_max_ms;
    bool append_time; /* message.timestamp.type=LogAppendTime */
    bool compact;     /* cleanup.policy contains compact */
    bool delete_;     /* cleanup.policy contains delete */
    uint8_t codec;    /* compression.type: CNK_TOPIC_CODEC_PRODUCER, else the codec's number */
    int codec_level;  /* for that codec */
    int32_t min_insync_replicas;
    int64_t retention_ms, retention_bytes;
    bool searchable;
} cnk_topic_settings;

/* One row of the table of topic options (topic_config.c). */
typedef struct cnk_topic_option {
    const char *name;
    cnk_config_type type;
    const char *default_value;  /* as text; lists comma-separated; never NULL */
    const char *broker_name;    /* the broker option that gives the default (a synonym), or NULL */
    double low, high;           /* numbers: the allowed range */
    const char *const *choices; /* strings and lists: allowed words, NULL-terminated; NULL: any */
    const char *doc;
} cnk_topic_option;

size_t cnk_topic_option_count(void);
const cnk_topic_option *cnk_topic_option_at(size_t i); /* sorted by name */
const cnk_topic_option *cnk_topic_option_find(const char *name, size_t len);
/* 0, or EINVALIDCONFIG with a sentence in err. */
int cnk_topic_option_check(const cnk_topic_option *option, const char *value, size_t len, chronik_error *err);

/* ---- the image -------------------------------------------------------------------------------------------------- */

/* Soft state of a partition (R13), and what has passed through it, shared by all images that hold it. Written by the
 * partition's shard. */
typedef struct cnk_meta_leader {
    atomic_int_least32_t node;  /* -1: none yet, or the replica is lost */
    atomic_int_least32_t epoch; /* -1: unknown */
    cnk_counter messages_in, bytes_in, bytes_out; /* appended by producers, answered to consumers, since the start */
} cnk_meta_leader;

typedef struct cnk_meta_leaders { /* of a topic; where partitions were added, of those, with the earlier ones' behind */
    atomic_uint refs;
    int32_t led; /* the topic's partitions up to it have been seen to lead; the metadata's shard's */
    struct cnk_meta_leaders *base; /* a reference; NULL: none */
    cnk_meta_leader at[];
} cnk_meta_leaders;

void cnk_meta_leaders_ref(cnk_meta_leaders *leaders);   /* any thread */
void cnk_meta_leaders_unref(cnk_meta_leaders *leaders); /* any thread; NULL-safe */

typedef enum cnk_partition_state { CNK_PARTITION_CREATING = 0, CNK_PARTITION_ONLINE = 1 } cnk_partition_state; /* R4 */

typedef struct cnk_meta_partition {
    uint64_t stream;
    cnk_partition_state state;
    uint8_t replica_count;
    int32_t replicas[CNK_META_REPLICAS_MAX]; /* node ids; the first is preferred */
    cnk_meta_leader *leader;                 /* never NULL */
} cnk_meta_partition;

typedef struct cnk_meta_config {
    char *name, *value;
} cnk_meta_config; /* set on the topic itself */

typedef struct cnk_meta_topic {
    atomic_uint refs;
    cnk_uuid id;
    const char *name; /* NUL-terminated */
    uint16_t name_len;
    bool internal;
    bool online;          /* visible to clients, with its first partition_count partitions */
    uint32_t epoch_floor; /* leader epochs of its partitions are above it (R7) */
    int32_t partition_count; /* that clients see, once the topic is online */
    int32_t partition_total; /* with those that are being added, which come last */
    cnk_meta_partition *partitions;
    cnk_meta_leaders *leaders;
    size_t config_count;
    cnk_meta_config *configs;    /* sorted by name */
    cnk_topic_settings settings; /* resolved: topic, then broker default, then Kafka's */
} cnk_meta_topic;

typedef struct cnk_meta_image {
    atomic_uint refs;
    uint64_t version; /* the index of the last entry applied */
    cnk_uuid cluster_id;
    size_t topic_count;
    cnk_meta_topic **by_name; /* sorted bytewise; also topics that are still being created */
    cnk_meta_topic **by_id;   /* sorted */
    int64_t next_producer_id; /* the first id that no block holds */
    uint64_t next_stream;
    uint32_t epoch_floor; /* above every leader epoch that a deleted topic had */
    size_t partition_count; /* of all topics, also those that are being created */
    uint32_t feature_level; /* of our own formats and commands (R16) */
} cnk_meta_image;

cnk_meta_image *cnk_meta_image_ref(cnk_meta_image *image); /* any thread; returns it */
void cnk_meta_image_unref(cnk_meta_image *image);          /* any thread; NULL-safe */

/* Topics that clients may see: NULL where there is none, or it is being created. Borrowed from the image. */
const cnk_meta_topic *cnk_meta_topic_by_name(const cnk_meta_image *image, const char *name, size_t len);
const cnk_meta_topic *cnk_meta_topic_by_id(const cnk_meta_image *image, const cnk_uuid *id);
/* The value set on the topic itself; NULL: not set. */
const char *cnk_meta_topic_config(const cnk_meta_topic *topic, const char *name);

/* It is online, and nothing is being added to it. */
static inline bool cnk_meta_topic_whole(const cnk_meta_topic *topic) {
    return topic->online && topic->partition_count == topic->partition_total;
}

/* Also topics that are being created. */
const cnk_meta_topic *cnk_meta_topic_any(const cnk_meta_image *image, const char *name, size_t len);
const cnk_meta_topic *cnk_meta_topic_any_by_id(const cnk_meta_image *image, const cnk_uuid *id);

/* 0, or EINVALIDTOPIC with Kafka's sentence in err. */
int cnk_topic_name_check(const char *name, size_t len, chronik_error *err);

/* ---- the machine ------------------------------------------------------------------------------------------------ */

/* The metadata's state machine, on the shard of stream 1. It holds the committed image and, beside it, the head: the
 * image as it will be once everything proposed is committed. Commands are built and checked against the head, and
 * applied to it before they are proposed, so that their commit cannot fail. */
typedef struct cnk_meta cnk_meta;

typedef struct cnk_meta_options {
    /* The broker option that stands for a topic option's default; NULL: not set by the user. Borrowed for ever. */
    const char *(*broker_value)(void *arg, const char *broker_name);
    /* A command has been committed; `image` is the new one, borrowed. Not called at recovery. */
    void (*published)(void *arg, cnk_meta_image *image);
    void *arg;
} cnk_meta_options;

int cnk_meta_new(const cnk_meta_options *options, cnk_meta **ret_meta);
void cnk_meta_free(cnk_meta *meta); /* NULL-safe */

/* The machine's part of the events of stream 1's replica (`arg` is the cnk_meta); `role` is passed on to the owner by
 * the owner's own table: copy this one and fill the rest. */
int cnk_meta_apply(void *meta, cnk_replica *replica, uint64_t index, const uint8_t *command, size_t len);
int cnk_meta_snapshot(void *meta, cnk_writer *out);
int cnk_meta_restore(void *meta, const uint8_t *state, size_t len, uint64_t applied_index);
void cnk_meta_truncated(cnk_meta *meta, uint64_t last_index_kept);

cnk_meta_image *cnk_meta_image_now(const cnk_meta *meta);  /* committed; borrowed */
cnk_meta_image *cnk_meta_image_head(const cnk_meta *meta); /* with what is proposed; borrowed */

/* A command: one or more changes that become true together. */
typedef struct cnk_meta_command {
    cnk_writer bytes;
} cnk_meta_command;

typedef struct cnk_meta_topic_spec {
    const char *name;
    size_t name_len;
    cnk_uuid id;
    bool internal;
    int32_t partition_count;
    const int32_t *replicas; /* partition_count rows of replica_counts[i] nodes each, one after the other */
    const uint8_t *replica_counts;
    const cnk_meta_config *configs; /* sorted by name, checked */
    size_t config_count;
} cnk_meta_topic_spec;

void cnk_meta_command_init(cnk_meta_command *command);
void cnk_meta_command_free(cnk_meta_command *command);
void cnk_meta_command_cluster(cnk_meta_command *command, const cnk_uuid *cluster_id);
/* Streams are numbered by the command itself, from the head's next_stream on, in the order of the topics. */
void cnk_meta_command_topic(cnk_meta_command *command, const cnk_meta_image *head, uint64_t *next_stream,
                            const cnk_meta_topic_spec *spec);
/* Adds `count` partitions to a topic that is online, each on the one node; streams as above. */
void cnk_meta_command_partitions(cnk_meta_command *command, const cnk_meta_image *head, uint64_t *next_stream,
                                 const cnk_uuid *topic_id, int32_t count, int32_t node);
/* The topic's own configurations from now on, all of them; sorted by name, checked. */
void cnk_meta_command_configs(cnk_meta_command *command, const cnk_uuid *topic_id, const cnk_meta_config *configs,
                              size_t config_count);
/* The topic, or the partitions added to it: visible from now on. */
void cnk_meta_command_online(cnk_meta_command *command, const cnk_uuid *topic_id);
void cnk_meta_command_delete(cnk_meta_command *command, const cnk_uuid *topic_id, uint32_t epoch_floor);
void cnk_meta_command_producer_block(cnk_meta_command *command, int64_t next_producer_id);

/* Applies the command to the head and proposes it: 0 and the index whose commit makes it true; ENOMEM, ETOOLARGE,
 * ECORRUPT (the command does not fit the head), what the replica says. Frees nothing. */
int cnk_meta_propose(cnk_meta *meta, cnk_replica *replica, const cnk_meta_command *command, uint64_t *ret_index);

/* Does a topic with the name exist, or one whose name differs in '.' and '_' only (Kafka refuses both)? NULL: none. */
const cnk_meta_topic *cnk_meta_topic_collision(const cnk_meta_image *image, const char *name, size_t len);

/* The value in force for an option, and where it comes from: the topic's own, the broker's, the default. */
const char *cnk_meta_option_value(const cnk_meta_options *options, const cnk_meta_config *configs, size_t config_count,
                                  const cnk_topic_option *option);

#endif
