/* conn: Kafka's protocol over one connection, without I/O. The owner moves bytes; this decides what they mean.
 *
 *     event on the socket, or `wake`: cnk_kafka_conn_turn(c), then
 *         wants = cnk_kafka_conn_wants(c)
 *         CNK_CONN_CLOSE → cnk_kafka_conn_close(c), close the socket
 *         CNK_CONN_SEND  → n = cnk_kafka_conn_send(c, iov, max); sent = writev(…); cnk_kafka_conn_sent(c, sent)
 *         CNK_CONN_RECV  → cnk_kafka_conn_recv_space(c, &p, &len); n = read(p, len); cnk_kafka_conn_recv_added(c, n)
 *         and again until the socket would block; then watch it for what cnk_kafka_conn_wants says.
 *
 * Memory. Bytes are received straight into memory of ours: a chunk that all connections of the shard share, whose whole
 * frames are handled where they lie, or a buffer of the frame's own where it is large, reserved from a budget before
 * its body is read (T5). A request that still needs the bytes after it has begun pins the chunk, and the shard goes on
 * with another one. The owner of bytes that lie elsewhere hands them to cnk_kafka_conn_recv, which copies.
 *
 * Order (T3). One request runs at a time, but consecutive Produce requests overlap; answers leave in the order of the
 * requests. While a request waits, bytes are still taken, up to a limit, so that the peer's close is noticed.
 *
 * Threads: everything belongs to the shard's thread. */
#ifndef CNK_KAFKA_CONN_H
#define CNK_KAFKA_CONN_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/uio.h>

#include <chronik/io.h>

#include "base/metric.h"
#include "broker/broker.h"

typedef struct cnk_kafka cnk_kafka;           /* the protocol's part of one shard */
typedef struct cnk_kafka_conn cnk_kafka_conn; /* one connection */

/* Requests by API and version, counted when their header has been read; what is not offered is not counted. How long they
 * took, from then until their answer was there to be sent. Written by the shard's thread, read by any; it outlives the
 * shard's part. Indices: an API's row, a version. */
enum { CNK_KAFKA_APIS_MAX = 64, CNK_KAFKA_VERSIONS_MAX = 24 };
typedef struct cnk_kafka_counts {
    cnk_counter requests[CNK_KAFKA_APIS_MAX][CNK_KAFKA_VERSIONS_MAX];
    cnk_latency latency[CNK_KAFKA_APIS_MAX];
} cnk_kafka_counts;

/* The API of a row as Kafka names it ("Produce"), *ret_len bytes without a NUL; NULL past the last row. Any thread. */
const char *cnk_kafka_api_name(size_t row, size_t *ret_len);

typedef struct cnk_kafka_options {
    uint32_t frame_bytes_max;     /* socket.request.max.bytes; a larger frame closes the connection */
    uint32_t pipelined_max;       /* Produce requests of one connection that run at a time */
    uint64_t output_bytes_max;    /* unsent answers of one connection; over it no further request begins */
    uint64_t produce_bytes_max;   /* received Produce frames of the shard; at least frame_bytes_max is used */
    uint64_t control_bytes_max;   /* large frames of all other requests, likewise */
    uint32_t body_timeout_ms;     /* no progress on a frame's body for so long: close */
    uint32_t chunk_bytes;         /* the shared receive chunk */
    const char *advertised_host;  /* NULL or "": each connection's own local address (K10) */
    uint16_t advertised_port;     /* 0: the connection's own local port */
    const char *rack;             /* NULL: none */
    uint32_t session_slots;       /* fetch sessions of the shard */
    uint64_t session_seed;        /* of their ids */
    cnk_kafka_counts *counts;     /* borrowed; NULL: nothing is counted */
} cnk_kafka_options;

#define CNK_KAFKA_OPTIONS_INIT                                                                                        \
    {                                                                                                                 \
        .frame_bytes_max = 104857600, .pipelined_max = 256, .output_bytes_max = UINT64_C(1) << 20,                     \
        .produce_bytes_max = UINT64_C(256) << 20, .control_bytes_max = UINT64_C(256) << 20, .body_timeout_ms = 30000,  \
        .chunk_bytes = 256u << 10, .session_slots = 1000                                                              \
    }

/* Copies the options and their strings. 0 or ENOMEM. */
int cnk_kafka_new(cnk_shard *shard, const cnk_kafka_options *options, cnk_kafka **ret_kafka);

/* A fetch of this shard finds the buffers of cold reads in use: those who hardly take their answers may have to go. */
void cnk_kafka_crowded(cnk_kafka *kafka);

/* All connections have been closed, and their last operations are done (cnk_kafka_conn_count is 0): ends what outlives
 * them. True: cnk_kafka_free may be called. False: not yet; ask again. */
bool cnk_kafka_quiesce(cnk_kafka *kafka);

/* NULL-safe. After cnk_kafka_quiesce, or where there has never been a connection. */
void cnk_kafka_free(cnk_kafka *kafka);

/* Connections that are open, or closed with an operation under way. */
size_t cnk_kafka_conn_count(const cnk_kafka *kafka);

/* Bytes reserved from the budgets; the least possible when nothing is being received. */
uint64_t cnk_kafka_reserved_bytes(const cnk_kafka *kafka);

typedef struct cnk_kafka_use { /* of a budget */
    uint64_t limit, used, refused; /* refused: how often somebody had to wait, or to do without */
} cnk_kafka_use;
typedef struct cnk_kafka_stats {
    cnk_kafka_use produce, control, sessions;
} cnk_kafka_stats;
void cnk_kafka_stats_get(const cnk_kafka *kafka, cnk_kafka_stats *ret_stats); /* any thread */

/* A connection that has been accepted. `wake` says that cnk_kafka_conn_wants may have changed; it is called on the
 * shard's thread, from anywhere outside the functions below, at most once until cnk_kafka_conn_wants is called again.
 * It must not close the connection from inside: better, it notes that there is something to do. Addresses and the
 * listener's name are copied. 0 or ENOMEM. */
int cnk_kafka_conn_new(cnk_kafka *kafka, const char *listener, const chronik_address *peer,
                       const chronik_address *local, void (*wake)(void *arg), void *arg, cnk_kafka_conn **ret_conn);

/* Cancels what waits. The handle is gone; memory lives on until operations under way are done. NULL-safe. */
void cnk_kafka_conn_close(cnk_kafka_conn *conn);

/* Whether closing now would leave the peer in no doubt: no answer is unsent, and nothing runs but fetches, which it can
 * ask again. For a node that stops. */
bool cnk_kafka_conn_settled(const cnk_kafka_conn *conn);

/* A new turn: a number of requests may begin, and those that wait do. Where they are used up (CNK_CONN_TURN), the owner lets
 * others have their turn before he calls it again. One who never does sets no limit. */
void cnk_kafka_conn_turn(cnk_kafka_conn *conn);

enum {
    CNK_CONN_RECV = 1,  /* there is room for bytes */
    CNK_CONN_SEND = 2,  /* there are bytes to send */
    CNK_CONN_CLOSE = 4, /* all is said (a malformed or oversized frame, acks=0 that failed, silence): close now */
    CNK_CONN_TURN = 8   /* the turn is over */
};
unsigned cnk_kafka_conn_wants(cnk_kafka_conn *conn);

typedef enum cnk_kafka_why { /* CNK_CONN_CLOSE */
    CNK_KAFKA_FINE,
    CNK_KAFKA_PROTOCOL, /* malformed, too large, not offered; or acks=0 that failed */
    CNK_KAFKA_SLOW,     /* no progress on a request's body */
    CNK_KAFKA_MEMORY    /* none is left */
} cnk_kafka_why;
cnk_kafka_why cnk_kafka_conn_why(const cnk_kafka_conn *conn);

/* Room for received bytes; len > 0. To be filled, in whole or in part, and reported before anything else happens on
 * this shard. False: not now. */
bool cnk_kafka_conn_recv_space(cnk_kafka_conn *conn, void **ret_space, size_t *ret_len);
/* So many bytes (0 is fine) were put there. Handles all the frames that are whole. */
void cnk_kafka_conn_recv_added(cnk_kafka_conn *conn, size_t len);

/* The same for bytes that lie elsewhere: copies, and returns how many were taken; fewer than `len` is back-pressure. */
size_t cnk_kafka_conn_recv(cnk_kafka_conn *conn, const void *data, size_t len);

/* The bytes to send next, at most `max` pieces; the memory is valid until they are reported sent. Returns the number of
 * pieces, 0: nothing to send now. */
int cnk_kafka_conn_send(cnk_kafka_conn *conn, struct iovec *iov, int max);
void cnk_kafka_conn_sent(cnk_kafka_conn *conn, size_t len);

#endif
