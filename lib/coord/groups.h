/* The machine of groups, shared by its source files. Owner: the instance's shard. */
#ifndef CNK_COORD_GROUPS_H
#define CNK_COORD_GROUPS_H

#include "base/map.h"
#include "coord/machine.h"
#include "coord/records.h"

#define CNK_GROUPS_MAX 1000000u      /* of one partition; more are not made */
#define CNK_GROUPS_EXPIRE_MAX 10000u /* offsets looked at in one step of the expiry */
#define CNK_GROUPS_PAUSE_MS 10       /* between two steps of it */
#define CNK_GROUPS_JOIN_TIMEOUT_MS 300000 /* a new member that is told nothing for so long is put out (Kafka's) */

typedef struct cnk_groups cnk_groups;

typedef struct cnk_group_offset { /* what a group has stored for a partition */
    int32_t partition;
    int32_t leader_epoch;
    int64_t offset;
    int64_t commit_ms, expire_ms; /* expire_ms -1: the broker's retention */
    cnk_uuid topic_id;
    uint32_t metadata_len;
    char metadata[];
} cnk_group_offset;

typedef struct cnk_group_topic {
    cnk_map offsets; /* partition → cnk_group_offset */
    uint16_t name_len;
    char name[];
} cnk_group_topic;

typedef struct cnk_group cnk_group;

/* A member. One that was given an id but has not joined with it is `pending`, and in another map. */
typedef struct cnk_member {
    cnk_list node; /* in group->members, in the order of joining, or in group->pending_members */
    cnk_group *group;
    char *texts; /* the memory of the next four */
    cnk_text id, instance_id, client_id, client_host;
    int32_t rebalance_timeout_ms, session_timeout_ms;
    cnk_coord_protocol *protocols; /* one block with their bytes */
    size_t protocol_count;
    uint8_t *assignment;
    size_t assignment_len;
    cnk_coord_call *join, *sync; /* who waits for the answer; NULL: nobody, or the connection has gone */
    bool joining, syncing;       /* an answer is owed, whether or not somebody waits */
    bool is_new;                 /* has not been told its first generation */
    bool pending;
    bool sync_due; /* has been told the generation, and has not asked for its assignment yet */
    cnk_coord_timer session;
} cnk_member;

/* A group under one id; today classic, or simple: offsets without members (protocol_type NULL). */
struct cnk_group {
    cnk_groups *groups;
    cnk_list node;  /* in groups->order */
    cnk_map topics; /* name → cnk_group_topic */
    cnk_coord_state state, state_before;
    int32_t generation;
    int64_t state_ms;               /* since when it is in its state; -1: unknown */
    char *protocol_type, *protocol; /* NULL: none */
    uint8_t *record;                /* the value of its last record, for snapshots; NULL: none */
    size_t record_len;
    cnk_map by_id, by_instance;     /* joined members */
    cnk_map pending;
    cnk_list members, pending_members;
    cnk_member *leader; /* NULL: none */
    size_t joining;     /* members that are */
    bool member_added;  /* while the first rebalance waits for more */
    int32_t delay_ms, delay_left_ms;
    bool delaying;              /* the join timer is the first rebalance's delay */
    cnk_coord_timer join_timer; /* the rebalance's end */
    cnk_coord_timer sync_timer; /* members that do not ask for their assignment are put out */
    uint16_t id_len;
    char id[];
};

struct cnk_groups {
    cnk_coord_shard *shard;
    void *instance;
    bool serving;   /* what is applied was decided here; else it is loaded */
    cnk_map groups; /* id → cnk_group */
    cnk_list order; /* all; the expiry takes them from the front to the back */
    cnk_coord_timer expiry;
    size_t expiry_left; /* groups that this round has still to look at */
};

static inline cnk_text cnk_group_id(const cnk_group *g) { return (cnk_text){g->id, g->id_len}; }

/* groups.c */
cnk_group *cnk_groups_find(const cnk_groups *m, cnk_text id);
int cnk_groups_make(cnk_groups *m, cnk_text id, cnk_group **ret_group); /* ENOMEM, EAGAIN */
void cnk_groups_remove(cnk_groups *m, cnk_group *g);
void cnk_group_state_set(cnk_group *g, cnk_coord_state to); /* and nothing else: the rest is cnk_classic_move's */
int cnk_groups_tombstone(cnk_group *g, cnk_coord_out *out); /* the group itself, without its offsets */

/* A member's call, and nothing else, is over. */
void cnk_member_join_over(cnk_member *m, cnk_coord_out *out, int error);
void cnk_member_sync_over(cnk_member *m, cnk_coord_out *out, int error);

/* member.c: memory, and which protocols members speak */
int cnk_member_new(cnk_group *g, const cnk_coord_member *as, cnk_member **ret_member);
void cnk_member_free(cnk_member *m); /* also takes it out of the group's lists and maps */
int cnk_member_protocols_set(cnk_member *m, const cnk_coord_protocol *protocols, size_t count);
bool cnk_member_matches(const cnk_member *m, const cnk_coord_call *call); /* it spoke the same before */
int cnk_member_assignment_set(cnk_member *m, cnk_text assignment);
cnk_text cnk_member_metadata(const cnk_member *m, cnk_text protocol); /* p NULL: it does not speak that */
int cnk_group_join(cnk_group *g, cnk_member *m); /* 0 or ENOMEM: into the maps; the first one leads */
int cnk_group_wait(cnk_group *g, cnk_member *m); /* likewise, of a pending member */
cnk_member *cnk_group_member(const cnk_group *g, cnk_text id);
cnk_member *cnk_group_instance(const cnk_group *g, cnk_text instance_id);
cnk_member *cnk_group_pending(const cnk_group *g, cnk_text id);
bool cnk_group_speaks(const cnk_group *g, const cnk_coord_call *call);
int cnk_group_protocol_select(cnk_group *g, cnk_text *ret_protocol); /* 0, ENOTFOUND */
int cnk_group_text_set(char **text, cnk_text to);                    /* 0 or ENOMEM */
bool cnk_group_subscribed(const cnk_group *g, cnk_text topic);
int cnk_group_check_member(const cnk_group *g, cnk_text id, cnk_text instance_id);

/* classic.c: a classic group's rebalances */
int cnk_classic_apply(cnk_groups *m, cnk_group *g, const cnk_record *record);
int cnk_classic_write(cnk_group *g, const cnk_coord_call *assignments, cnk_coord_out *out); /* the group's record */
int cnk_classic_write_new(const cnk_group *g, cnk_coord_out *out); /* that it is there, and nothing of its members */
int cnk_classic_rebalance_or_complete(cnk_group *g, cnk_coord_out *out);
int cnk_classic_prepare(cnk_group *g, cnk_coord_out *out);
int cnk_classic_complete_if_all(cnk_group *g, cnk_coord_out *out);
int cnk_classic_answer_join(cnk_member *m, bool skip_assignment, bool with_members, cnk_text leader, cnk_coord_out *out);
int cnk_classic_answer_sync(cnk_member *m, cnk_coord_out *out);
void cnk_classic_session(cnk_member *m, int32_t timeout_ms, uint64_t now_ns);
void cnk_classic_sync_received(cnk_member *m);
int cnk_classic_loaded(cnk_group *g, cnk_coord_out *out);
void cnk_classic_move(cnk_group *g, cnk_coord_state to, int64_t now_ms);

/* classic_calls.c */
int cnk_classic_join(cnk_groups *m, cnk_coord_call *call, cnk_coord_out *out);
int cnk_classic_sync(cnk_groups *m, cnk_coord_call *call, cnk_coord_out *out);
int cnk_classic_heartbeat(cnk_groups *m, cnk_coord_call *call, cnk_coord_out *out);
int cnk_classic_leave(cnk_groups *m, cnk_coord_call *call, cnk_coord_out *out);

/* group_admin.c */
int cnk_groups_describe(cnk_groups *m, cnk_coord_call *call, cnk_coord_out *out);
int cnk_groups_list(cnk_groups *m, cnk_coord_call *call, cnk_coord_out *out);
int cnk_groups_delete(cnk_groups *m, cnk_coord_call *call, cnk_coord_out *out);

/* offsets.c */
int cnk_offsets_delete(cnk_groups *m, cnk_coord_call *call, cnk_coord_out *out);
int cnk_offsets_tombstones(const cnk_group *g, cnk_coord_out *out); /* of all that the group has stored */
int cnk_offsets_apply(cnk_groups *m, const cnk_coord_key *key, const cnk_record *record);
void cnk_offsets_free(cnk_group *g);
int cnk_offsets_save(const cnk_group *g, cnk_writer *out); /* 0 or ENOMEM */
int cnk_offsets_commit(cnk_groups *m, cnk_coord_call *call, cnk_coord_out *out);
int cnk_offsets_fetch(cnk_groups *m, cnk_coord_call *call, cnk_coord_out *out);
int cnk_offsets_topic_deleted(cnk_groups *m, cnk_text name, const cnk_uuid *id, cnk_coord_out *out);
void cnk_offsets_expiry_start(cnk_groups *m);

#endif
