/* What administrative operations share: a run, and its topics. admin.c says how a run goes. */
#ifndef CNK_BROKER_ADMIN_H
#define CNK_BROKER_ADMIN_H

#include "base/mem.h"
#include "broker/internal.h"

typedef struct cnk_admin cnk_admin;

typedef struct cnk_admin_item { /* a topic of the request, and what became of it */
    cnk_admin *run;
    /* copied */
    cnk_text name;
    cnk_uuid id;
    int32_t partitions;
    int16_t replication;
    cnk_topic_assignment *assignments;
    size_t assignment_count;
    cnk_topic_setting *settings;
    size_t setting_count;
    const uint8_t *changes; /* of settings: CNK_CHANGE_*; NULL: they are the whole */
    bool assigned;
    /* answered */
    int error;
    char text[248];
    const char *constant_text;
    char name_found[CNK_TOPIC_NAME_MAX + 1];
    int32_t partitions_made;
    int16_t replication_made;
    const cnk_meta_topic *topic; /* while something of it is proposed */
    cnk_topic_wait wait;
} cnk_admin_item;

struct cnk_admin {
    cnk_list node; /* in home->admin_runs */
    chronik_post post;
    cnk_shard *home;
    void *op;                                 /* the caller's */
    void (*at_first)(cnk_admin *run);         /* on shard 0 */
    void (*answer)(cnk_admin *run, int code); /* at home: fills the caller's operation, and calls its `done` */
    bool validate_only, automatic, coordinator, over;
    bool no_time; /* timed out as soon as it is begun, whatever becomes of it (as with Kafka) */
    cnk_deadline deadline;
    cnk_arena arena;
    cnk_admin_item *items;
    size_t item_count, open;
    cnk_wait wait;
    uint64_t version;
};

/* On the caller's shard: a run of `count` items, whose deadline is set; the caller fills them and starts it. */
int cnk_admin_new(cnk_shard *shard, size_t count, int32_t timeout_ms, void *op, cnk_admin **ret_run);
void cnk_admin_free(cnk_admin *run); /* not started */
int cnk_admin_text(cnk_admin *run, cnk_text from, cnk_text *ret); /* a copy in the run's memory */
int cnk_admin_assignments(cnk_admin *run, cnk_admin_item *item, const cnk_topic_assignment *from, size_t count);
int cnk_admin_settings(cnk_admin *run, cnk_admin_item *item, const cnk_topic_setting *from, size_t count);
void cnk_admin_start(cnk_admin *run);

/* On shard 0. Refusals come home when what they may rest on is committed. */
void cnk_admin_home(cnk_admin *run);
void cnk_admin_home_committed(cnk_admin *run);
/* The change is proposed at run->version, or was refused with rc: home when every shard knows it. */
void cnk_admin_home_everywhere(cnk_admin *run, int rc);
int cnk_admin_refuse(cnk_admin_item *item, int code, const char *format, ...) CHRONIK_PRINTF(3, 4);

/* The caller's operation is over before the run has come home. */
void cnk_admin_end(cnk_admin *run, int code);

#endif
