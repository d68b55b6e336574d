/* The records of __consumer_offsets, in Kafka's formats. See records.c for the bytes. Any thread. */
#ifndef CNK_COORD_RECORDS_H
#define CNK_COORD_RECORDS_H

#include <stdint.h>

#include "base/bytes.h"
#include "base/uuid.h"

typedef enum cnk_coord_key_kind {
    CNK_COORD_KEY_OFFSET, /* versions 0 and 1 */
    CNK_COORD_KEY_GROUP,  /* version 2 */
    CNK_COORD_KEY_OTHER   /* of a later Kafka, or another kind of group */
} cnk_coord_key_kind;

typedef struct cnk_coord_key {
    cnk_coord_key_kind kind;
    cnk_text group, topic;
    int32_t partition;
} cnk_coord_key;

/* Slices of the bytes. 0, ECORRUPT. */
int cnk_coord_key_read(const void *p, size_t len, cnk_coord_key *ret_key);
void cnk_coord_offset_key_write(cnk_writer *w, cnk_text group, cnk_text topic, int32_t partition);
void cnk_coord_group_key_write(cnk_writer *w, cnk_text group);

typedef struct cnk_coord_offset_value {
    int64_t offset;
    int32_t leader_epoch; /* -1: none */
    cnk_text metadata;
    int64_t commit_ms, expire_ms; /* expire_ms -1: the broker's retention */
    cnk_uuid topic_id;            /* zero: unknown */
} cnk_coord_offset_value;

int cnk_coord_offset_value_read(const void *p, size_t len, cnk_coord_offset_value *ret_value); /* 0, ECORRUPT */
void cnk_coord_offset_value_write(cnk_writer *w, const cnk_coord_offset_value *value);

typedef struct cnk_coord_member_value {
    cnk_text id, instance_id, client_id, client_host;
    int32_t rebalance_timeout_ms, session_timeout_ms;
    cnk_text subscription, assignment; /* bytes */
} cnk_coord_member_value;

typedef struct cnk_coord_group_value {
    cnk_text protocol_type, protocol, leader; /* protocol and leader may be null */
    int32_t generation;
    int64_t state_ms; /* -1: unknown */
    int32_t member_count;
} cnk_coord_group_value;

/* Reads the head of a group's value, and leaves the reader before the members, which follow one after the other. `version`
 * is the value's. 0, ECORRUPT. */
int cnk_coord_group_value_read(cnk_reader *r, int *ret_version, cnk_coord_group_value *ret_value);
int cnk_coord_member_value_read(cnk_reader *r, int version, cnk_coord_member_value *ret_value);
void cnk_coord_group_value_write(cnk_writer *w, const cnk_coord_group_value *value); /* then its members */
void cnk_coord_member_value_write(cnk_writer *w, const cnk_coord_member_value *value);

#endif
