/* chronik/error.h: what can go wrong, and how it is told.
 *
 * Every function that can fail returns 0 (or a count) on success and a negative CHRONIK_E* on failure. Where a
 * caller may want more, the function takes an optional `chronik_error *` (NULL: not wanted), owned by the caller and
 * filled on failure only. Output parameters come last, are named `ret_…` and stay untouched on failure.
 *
 * Tier: stable. Threads: everything here may be called from any thread. */
#ifndef CHRONIK_ERROR_H
#define CHRONIK_ERROR_H

#include <stddef.h>

#ifdef __cplusplus
extern "C" {
#endif

#if defined(__GNUC__)
#define CHRONIK_API __attribute__((visibility("default")))
#define CHRONIK_PRINTF(f, a) __attribute__((format(printf, f, a)))
#else
#define CHRONIK_API
#define CHRONIK_PRINTF(f, a)
#endif

/* X(name, number, text). Numbers are never reused. The first group is general, the second speaks of Kafka's
 * operations and maps one to one to Kafka's error codes (lib/kafka/errors.c). */
#define CHRONIK_ERRORS(X)                                                                                             \
    X(ENOMEM, 1, "out of memory")                                                                                     \
    X(EINVAL, 2, "invalid argument")                                                                                  \
    X(EIO, 3, "input/output error")                                                                                   \
    X(ENOSPC, 4, "no space left on the device")                                                                       \
    X(ECORRUPT, 5, "stored data is corrupt")                                                                          \
    X(EPROTO, 6, "malformed message")                                                                                 \
    X(ENOTFOUND, 7, "not found")                                                                                      \
    X(EEXIST, 8, "exists already")                                                                                    \
    X(EBUSY, 9, "in use by another process")                                                                          \
    X(EAGAIN, 10, "a limit is reached for now; try again")                                                            \
    X(ETIMEDOUT, 11, "timed out")                                                                                     \
    X(ECANCELED, 12, "cancelled")                                                                                     \
    X(EFENCED, 13, "the node is fenced after a storage failure")                                                      \
    X(ESHUTDOWN, 14, "shutting down")                                                                                 \
    X(EUNSUPPORTED, 15, "not supported")                                                                              \
    X(ETOOLARGE, 16, "larger than the limit")                                                                         \
    X(ECLOSED, 17, "connection closed by the peer")                                                                   \
    X(EBOMB, 18, "decompresses to more than the limit")                                                               \
    X(EOFFSETRANGE, 40, "offset out of range")                                                                        \
    X(ECORRUPTMESSAGE, 41, "the batch fails its checksum or is malformed")                                            \
    X(EUNKNOWNTOPIC, 42, "unknown topic or partition")                                                                \
    X(EUNKNOWNTOPICID, 43, "unknown topic id")                                                                        \
    X(EMESSAGETOOLARGE, 44, "the batch is larger than max.message.bytes")                                             \
    X(EINVALIDTOPIC, 45, "invalid topic name")                                                                        \
    X(ETOPICEXISTS, 46, "topic exists already")                                                                       \
    X(EINVALIDPARTITIONS, 47, "invalid number of partitions")                                                         \
    X(EINVALIDREPLICATION, 48, "invalid replication factor")                                                          \
    X(EINVALIDASSIGNMENT, 49, "invalid replica assignment")                                                           \
    X(EINVALIDCONFIG, 50, "invalid configuration")                                                                    \
    X(EINVALIDREQUEST, 51, "invalid request")                                                                         \
    X(EINVALIDTIMESTAMP, 52, "timestamp outside the allowed range")                                                   \
    X(EINVALIDRECORD, 53, "invalid record")                                                                           \
    X(EINVALIDACKS, 54, "acks is none of -1, 0, 1")                                                                   \
    X(EUNSUPPORTEDVERSION, 55, "unsupported version")                                                                 \
    X(EUNSUPPORTEDCODEC, 56, "unsupported compression")                                                               \
    X(EUNSUPPORTEDFORMAT, 57, "unsupported message format")                                                           \
    X(EOUTOFORDER, 58, "producer sequence out of order")                                                              \
    X(EDUPLICATE, 59, "producer sequence appended already")                                                           \
    X(EPRODUCEREPOCH, 60, "a newer producer epoch exists")                                                            \
    X(EUNKNOWNPRODUCER, 61, "unknown producer id")                                                                    \
    X(EFENCEDEPOCH, 62, "leader epoch older than the broker's")                                                       \
    X(EUNKNOWNEPOCH, 63, "leader epoch newer than the broker's")                                                      \
    X(ENOTLEADER, 64, "not the leader of the partition")                                                              \
    X(ELEADERUNAVAILABLE, 65, "no leader yet")                                                                        \
    X(EOFFSETUNAVAILABLE, 66, "the leader has not committed in its term yet")                                         \
    X(ESTORAGE, 67, "the storage cannot take writes")                                                                 \
    X(ENOTENOUGHREPLICAS, 68, "fewer in-sync replicas than min.insync.replicas")                                      \
    X(EINVALIDSESSION, 69, "unknown fetch session")                                                                   \
    X(EINVALIDSESSIONEPOCH, 70, "invalid fetch session epoch")                                                        \
    X(ETOPICAUTH, 71, "not authorised for the topic")                                                                 \
    X(ETXNIDAUTH, 72, "not authorised for the transactional id")                                                      \
    X(ECLUSTERAUTH, 73, "not authorised for the cluster")                                                             \
    X(EINCONSISTENTTOPICID, 74, "the topic id differs from the log's")                                                \
    X(EPOLICY, 75, "refused by policy")                                                                               \
    X(ENOTCOORDINATOR, 80, "this node does not coordinate the group")                                                 \
    X(ECOORDINATORUNAVAILABLE, 81, "the coordinator is not available")                                                \
    X(ECOORDINATORLOADING, 82, "the coordinator is loading")                                                          \
    X(EUNKNOWNMEMBER, 83, "unknown member of the group")                                                              \
    X(EGENERATION, 84, "not the group's generation")                                                                  \
    X(EGROUPPROTOCOL, 85, "the member's protocols do not fit the group")                                              \
    X(EINVALIDGROUP, 86, "invalid group id")                                                                          \
    X(ESESSIONTIMEOUT, 87, "session timeout outside the allowed range")                                               \
    X(EREBALANCE, 88, "the group is rebalancing")                                                                     \
    X(EMETADATATOOLARGE, 89, "the offset's metadata is too large")                                                    \
    X(ECOMMITSIZE, 90, "the commit is too large to be stored")                                                        \
    X(ENONEMPTYGROUP, 91, "the group is not empty")                                                                   \
    X(EGROUPNOTFOUND, 92, "unknown group")                                                                            \
    X(EMEMBERIDREQUIRED, 93, "the member must join with the id it was given")                                         \
    X(EGROUPFULL, 94, "the group has as many members as it may have")                                                 \
    X(EFENCEDINSTANCE, 95, "another member has the static member's instance id")                                      \
    X(ESUBSCRIBED, 96, "the group is subscribed to the topic")                                                        \
    X(EINTERNAL, 99, "internal error")

enum {
#define CHRONIK_X(name, number, text) CHRONIK_##name = -(number),
    CHRONIK_ERRORS(CHRONIK_X)
#undef CHRONIK_X
        CHRONIK_OK = 0
};

/* Text beside a code. Owned by the caller, who starts it as CHRONIK_ERROR_INIT; no part of it needs freeing. */
typedef struct chronik_error {
    int code;       /* CHRONIK_E*, or 0 */
    int sys_errno;  /* errno of the system call behind it, or 0 */
    char text[248]; /* a sentence that names the thing and the remedy; NUL-terminated, cut at a character */
} chronik_error;

#define CHRONIK_ERROR_INIT {0, 0, {0}}

/* A constant text for a code ("out of memory"); "unknown error" for others. Never NULL. */
CHRONIK_API const char *chronik_strerror(int code);

/* The code's name ("ENOMEM"); "?" for others. Never NULL. */
CHRONIK_API const char *chronik_error_name(int code);

#ifdef __cplusplus
}
#endif
#endif
