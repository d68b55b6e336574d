/* The inside of replica, shared by its source files. Owner: the shard's thread. */
#ifndef CNK_REPLICA_INTERNAL_H
#define CNK_REPLICA_INTERNAL_H

#include <chronik/raft.h>

#include "replica/replica.h"

/* A configuration that is the same for many replicas, which is what most are: a node has one for all its partitions. */
typedef struct cnk_replica_shared {
    cnk_list node; /* in shard->configs */
    uint32_t refs;
    cnk_replica_config config;
} cnk_replica_shared;

struct cnk_replica_shard {
    cnk_replica_shard_options options;
    cnk_wal_port *port;
    cnk_tier_port *tier; /* NULL: no tier */
    cnk_list replicas;
    chronik_post kick;
    bool kick_waiting;
    chronik_raft_settings raft;
    chronik_raft_effects effects; /* of the step at hand */
    cnk_list flushes;             /* replicas whose groups are to hear something with the next kick */
    cnk_list configs;             /* cnk_replica_shared, the one used last in front */
};

struct cnk_replica {
    cnk_list node; /* in shard->replicas */
    cnk_replica_shard *shard;
    cnk_wal_stream *stream;
    cnk_log *log;
    const cnk_replica_events *events;
    void *arg;
    uint64_t id;
    cnk_replica_shared *config; /* NULL: there is none yet */
    cnk_replica_role role;
    uint32_t term;
    uint64_t leader_index; /* of this term's LEADER entry; 0: not appended yet */
    uint64_t commit_index;
    uint64_t config_index; /* of the newest configuration; 0: it has left the WAL */
    chronik_raft *group;   /* NULL: not started */
    uint64_t lsn_from;     /* the first entry that was appended after the last change that is no entry */
    uint64_t lsn_ahead;    /* an entry's lsn in the group less its index, from lsn_from on */
    uint64_t raft_first_index;
    uint32_t proposed;   /* entries that the group has not been told of */
    bool flush_wanted;
    cnk_list flush_node; /* in shard->flushes while either is so */
    bool tier_due; /* the tier does not know the stream yet, for want of memory */
};

/* config.c */
size_t cnk_replica_config_size(const cnk_replica_config *config);
void cnk_replica_config_write(cnk_writer *w, const cnk_replica_config *config);
int cnk_replica_config_read(cnk_reader *r, cnk_replica_config *ret_config); /* 0 or ECORRUPT */
/* A reference to what equals the configuration; a replica gives its own back when it gets another (NULL: none). */
int cnk_replica_config_share(cnk_replica_shard *shard, const cnk_replica_config *config, cnk_replica_shared **ret_shared);
void cnk_replica_config_unref(cnk_replica_shared *shared); /* NULL-safe */
void cnk_replica_config_set(cnk_replica *replica, cnk_replica_shared *shared);

/* state.c */
int cnk_replica_state_write(const cnk_replica *replica, cnk_writer *out);
int cnk_replica_restore(cnk_replica *replica, chronik_error *err);

/* shard.c */
void cnk_replica_kick(cnk_replica_shard *shard);

/* group.c */
extern const chronik_raft_log cnk_replica_raft_log;
int cnk_replica_group_make(cnk_replica *replica, uint32_t term_floor, chronik_error *err);
void cnk_replica_group_forget(cnk_replica *replica);
int cnk_replica_group_campaign(cnk_replica *replica); /* what the WAL says: then the group must be forgotten */
void cnk_replica_group_proposed(cnk_replica *replica);
void cnk_replica_group_durable(cnk_replica *replica, uint64_t durable_index);
void cnk_replica_group_disk_failed(cnk_replica *replica);
void cnk_replica_group_flush(cnk_replica *replica);

/* replica.c */
bool cnk_replica_sole(const cnk_replica *replica); /* this node and directory are the only voter */
int cnk_replica_append_plain(cnk_replica *replica, uint16_t kind, uint32_t term, const void *payload, size_t len);
void cnk_replica_elected(cnk_replica *replica);
void cnk_replica_committed(cnk_replica *replica, uint64_t commit_index);
void cnk_replica_forget(cnk_replica *replica); /* frees the memory, not the stream */

#endif
