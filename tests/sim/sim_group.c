/* Proves groups by simulation: members join, beat, commit, leave, hang past their sessions and come back, are forgotten by
 * their clients, lose connections, static ones come back without their ids; their topic is deleted and made anew; with
 * crashes, power cuts, failed calls and orderly stops of the broker between them, and another number of shards at each start.
 *
 *     sim_group [--seeds N] [--from S] [--bug NAME] [--trace] [--coverage] [--keep-going]
 *
 * The model knows what each member was told, and each group's offsets, as far as an acknowledgement or an answer has told:
 *  - in one generation of a group no partition has two owners (a static member that comes back is the same owner);
 *  - an acknowledged offset is never lost, nor goes back; none is there that nobody sent;
 *  - nobody's offset is accepted in an older generation than one whose members know of it already;
 *  - a topic that is made anew has no offsets of the one before: an offset tells which one it is of;
 *  - when nothing is in the way, every group comes to rest: all its members in one generation, each partition with an owner.
 * With --bug a known mistake is put back; the run then succeeds when it is found, and says after how many seeds.
 *
 * Exit code 0: all seeds clean (or the bug found). The last line is `N passed, M failed`. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/rng.h"
#include "broker/broker.h"
#include "coord/machine.h"
#include "sim/node_sim.h"
#include "wal/internal.h"

enum {
    GROUPS = 2,
    ACTORS = 7,
    PARTITIONS = 5,
    GENERATIONS_MAX = 4000, /* of a group, in one run */
    TOPICS_MAX = 64,        /* that bear the one name after each other */
    TOPIC_STEP = 1000000,   /* offsets of the n-th one begin with n times as many */
    OWNER_MAX = 128,
    WORLDS_MIN = 5,
    WORLDS_MAX = 30,
    CALLS_MIN = 400,
    ID_MAX = 100
};

typedef struct generation { /* of a group, as members were told of it */
    char owners[PARTITIONS][OWNER_MAX]; /* "": nobody yet */
} generation;

typedef struct model { /* a group */
    char name[16];
    generation *generations;
    int32_t told; /* the newest generation that a member has got an assignment in */
    int64_t acked[TOPICS_MAX][PARTITIONS], sent[TOPICS_MAX][PARTITIONS]; /* -1: none */
} model;

typedef enum actor_state { OUT, TOLD, OWNER } actor_state; /* TOLD: has the generation, wants the assignment */

typedef struct operation operation;
typedef struct actor {
    int index, group;
    char instance[24]; /* "": dynamic */
    char id[ID_MAX];
    actor_state state;
    int32_t generation;
    bool owned[PARTITIONS], known[PARTITIONS];
    int64_t value[PARTITIONS]; /* what it knows to be stored */
    char assignments[ACTORS * 2][ID_MAX]; /* the leader's: who is in the generation */
    int assignment_count;
    uint64_t sleeps_until;
    operation *op; /* under way; NULL: none */
} actor;

struct operation {
    operation *next;
    actor *who; /* NULL: it does not want to know any more */
    unsigned shard;
    bool over;
    int32_t told, generation;
    int partition, topic_number;
    int64_t acked;
    char group[16], id[ID_MAX], instance[24];
    cnk_coord_protocol protocol;
    cnk_coord_member members[ACTORS * 2];
    char names[ACTORS * 2][ID_MAX];
    char bytes[ACTORS * 2][PARTITIONS];
    cnk_coord_offset offsets[PARTITIONS];
    cnk_coord_topic topic;
    cnk_group_call call;
};

typedef struct sim {
    uint64_t seed;
    cnk_rng rng;
    sim_node node;
    model groups[GROUPS];
    actor actors[ACTORS];
    operation *operations;
    cnk_uuid topics[TOPICS_MAX];
    bool doomed[TOPICS_MAX]; /* it may be gone, and what is stored for it */
    int topic_count;
    bool calm, topic_made, deleting, remaking;
} sim;

static sim *the_sim;
static struct {
    uint64_t joins, assignments, commits, fetches, refused, fenced, left, replaced, deleted;
} totals;

#define violation(t, ...) sim_node_wrong(&(t)->node, __VA_ARGS__)
#define say(t, ...) sim_node_say(&(t)->node, __VA_ARGS__)

static uint64_t below(sim *t, uint64_t n) { return cnk_rng_below(&t->rng, n); }
static bool chance(sim *t, uint32_t a, uint32_t b) { return cnk_rng_chance(&t->rng, a, b); }
static bool dead(const sim *t) { return sim_node_dead(&t->node); }
static cnk_text text(const char *s) { return (cnk_text){s, strlen(s)}; }

/* ---- the model -------------------------------------------------------------------------------------------------- */

/* A static member is who it is by its instance, another one by its id. */
static const char *owner_name(const actor *a) { return a->instance[0] ? a->instance : a->id; }

static void assigned(sim *t, actor *a) {
    model *m = &t->groups[a->group];
    if (a->generation < 0 || a->generation >= GENERATIONS_MAX) {
        violation(t, "%s: generation %d", m->name, a->generation);
        return;
    }
    generation *g = &m->generations[a->generation];
    for (int p = 0; p < PARTITIONS; p++) {
        if (!a->owned[p]) continue;
        if (g->owners[p][0] && strcmp(g->owners[p], owner_name(a)) != 0)
            violation(t, "%s, generation %d: partition %d is %s's and %s's", m->name, a->generation, p, g->owners[p],
                      owner_name(a));
        snprintf(g->owners[p], OWNER_MAX, "%s", owner_name(a));
    }
    if (a->generation > m->told) m->told = a->generation;
    totals.assignments++;
}

static void give_up(actor *a, bool also_id) {
    a->state = OUT;
    memset(a->owned, 0, sizeof a->owned);
    memset(a->known, 0, sizeof a->known);
    if (also_id) a->id[0] = 0;
}

/* ---- operations ------------------------------------------------------------------------------------------------- */

static void on_done(cnk_group_call *call);

static operation *operation_new(sim *t, actor *a, cnk_coord_kind kind) {
    operation *o = calloc(1, sizeof *o);
    o->next = t->operations;
    t->operations = o;
    o->who = a;
    o->shard = (unsigned)below(t, t->node.shards);
    snprintf(o->group, sizeof o->group, "%s", t->groups[a->group].name);
    snprintf(o->id, sizeof o->id, "%s", a->id);
    snprintf(o->instance, sizeof o->instance, "%s", a->instance);
    o->generation = a->generation;
    o->told = t->groups[a->group].told;
    o->call = (cnk_group_call){.partition = -1, .done = on_done, .arg = o};
    o->call.call.kind = kind;
    o->call.call.version = 9;
    o->call.call.group = text(o->group);
    o->call.call.member_id = text(o->id);
    if (o->instance[0]) o->call.call.instance_id = text(o->instance);
    o->call.call.generation = a->generation;
    o->call.call.retention_ms = -1;
    a->op = o;
    return o;
}

/* Which of the topics that have had the name has it now, as the shard sees it; -1: none. */
static int topic_number(sim *t, unsigned shard) {
    const cnk_meta_topic *now = cnk_meta_topic_by_name(cnk_shard_image(cnk_broker_shard(t->node.broker, shard)), "t", 1);
    if (now == NULL) return -1;
    for (int n = 0; n < t->topic_count; n++)
        if (cnk_uuid_equal(&t->topics[n], &now->id)) return n;
    t->topics[t->topic_count] = now->id;
    t->doomed[t->topic_count] = t->deleting;
    return t->topic_count++;
}

static void begin_offsets(sim *t, operation *o) {
    const actor *a = o->who;
    model *m = &t->groups[a->group];
    const int number = o->topic_number;
    o->acked = m->acked[number][o->partition];
    if (o->call.call.kind != CNK_COORD_OFFSET_COMMIT) return;
    const int64_t first = (int64_t)number * TOPIC_STEP, last = a->value[o->partition];
    o->offsets[0].offset = last >= first ? last + 1 : first;
    o->topic.id = t->topics[number];
    if (o->offsets[0].offset > m->sent[number][o->partition]) m->sent[number][o->partition] = o->offsets[0].offset;
}

static operation *starting;

static void run_start(void *arg) {
    sim *t = arg;
    operation *o = starting;
    if (o->call.call.kind == CNK_COORD_OFFSET_COMMIT || o->call.call.kind == CNK_COORD_OFFSET_FETCH) {
        o->topic_number = topic_number(t, o->shard);
        if (o->topic_number < 0) { /* a client would look for it */
            o->over = true;
            o->who->op = NULL;
            return;
        }
        begin_offsets(t, o);
    }
    int rc = cnk_broker_group(cnk_broker_shard(t->node.broker, o->shard), &o->call);
    if (rc == CNK_PENDING) return;
    if (rc < 0) o->call.call.error = rc;
    on_done(&o->call);
}

static void start(sim *t, operation *o) {
    starting = o;
    sim_world_on(t->node.world, o->shard, run_start, t);
}

static void start_join(sim *t, actor *a) {
    operation *o = operation_new(t, a, CNK_COORD_JOIN);
    give_up(a, false);
    o->protocol = (cnk_coord_protocol){text("range"), text(a->instance)};
    o->call.call.client_id = text("sim");
    o->call.call.client_host = text("/sim");
    o->call.call.session_timeout_ms = 300 + (int32_t)below(t, 700);
    o->call.call.rebalance_timeout_ms = 300 + (int32_t)below(t, 700);
    o->call.call.protocol_type = text("consumer");
    o->call.call.protocols = &o->protocol;
    o->call.call.protocol_count = 1;
    totals.joins++;
    start(t, o);
}

/* The leader deals partitions out, beginning with anybody. */
static void start_sync(sim *t, actor *a) {
    operation *o = operation_new(t, a, CNK_COORD_SYNC);
    uint64_t first = below(t, ACTORS);
    for (int n = 0; n < a->assignment_count; n++) {
        size_t len = 0;
        snprintf(o->names[n], ID_MAX, "%s", a->assignments[n]);
        for (int p = 0; p < PARTITIONS; p++)
            if ((uint64_t)p % (uint64_t)a->assignment_count == (first + (uint64_t)n) % (uint64_t)a->assignment_count)
                o->bytes[n][len++] = (char)p;
        o->members[n] = (cnk_coord_member){.id = text(o->names[n]), .assignment = {o->bytes[n], len}};
    }
    o->call.call.members = o->members;
    o->call.call.member_count = (size_t)a->assignment_count;
    o->call.call.protocol_type = text("consumer");
    o->call.call.protocol_name = text("range");
    start(t, o);
}

static void start_offsets(sim *t, actor *a, cnk_coord_kind kind, int partition) {
    operation *o = operation_new(t, a, kind);
    o->partition = partition;
    o->topic = (cnk_coord_topic){.name = text("t"), .offsets = o->offsets, .offset_count = 1};
    o->offsets[0] = (cnk_coord_offset){.partition = partition, .timestamp_ms = -1, .leader_epoch = -1, .metadata = text("")};
    o->call.call.all_topics = kind == CNK_COORD_OFFSET_FETCH && chance(t, 1, 4);
    if (!o->call.call.all_topics) {
        o->call.call.topics = &o->topic;
        o->call.call.topic_count = 1;
    }
    start(t, o);
}

static void start_leave(sim *t, actor *a) {
    operation *o = operation_new(t, a, CNK_COORD_LEAVE);
    o->members[0] = (cnk_coord_member){.id = text(o->id)};
    if (o->instance[0]) o->members[0].instance_id = text(o->instance);
    o->call.call.members = o->members;
    o->call.call.member_count = 1;
    totals.left++;
    start(t, o);
}

/* ---- answers ---------------------------------------------------------------------------------------------------- */

/* Codes that say nothing of the member: it asks again. */
static bool passing(int error) {
    return error == CHRONIK_ENOTCOORDINATOR || error == CHRONIK_ECOORDINATORLOADING || error == CHRONIK_ECOORDINATORUNAVAILABLE ||
           error == CHRONIK_ECANCELED || error == CHRONIK_ESHUTDOWN || error == CHRONIK_EAGAIN || error == CHRONIK_ENOMEM;
}

/* What is wrong with the member; true: nothing. */
static bool judged(sim *t, actor *a, int error) {
    switch (error) {
    case 0: return true;
    case CHRONIK_EREBALANCE:
    case CHRONIK_EGENERATION: give_up(a, false); break;
    case CHRONIK_EUNKNOWNMEMBER: give_up(a, true); break;
    case CHRONIK_EFENCEDINSTANCE:
        totals.fenced++;
        give_up(a, true);
        break;
    default:
        if (!passing(error)) violation(t, "actor %d: %s", a->index, chronik_error_name(error));
    }
    totals.refused++;
    return false;
}

static void joined(sim *t, actor *a, const cnk_coord_call *call) {
    if (call->error == CHRONIK_EMEMBERIDREQUIRED) {
        snprintf(a->id, ID_MAX, "%.*s", (int)call->ret_member_id.len, call->ret_member_id.p);
        return;
    }
    if (!judged(t, a, call->error)) return;
    snprintf(a->id, ID_MAX, "%.*s", (int)call->ret_member_id.len, call->ret_member_id.p);
    a->generation = call->ret_generation;
    a->state = TOLD;
    a->assignment_count = 0;
    for (size_t n = 0; n < call->member_count && n < ACTORS * 2; n++)
        snprintf(a->assignments[a->assignment_count++], ID_MAX, "%.*s", (int)call->members[n].id.len, call->members[n].id.p);
    if (call->member_count > 0 && !cnk_text_equal(call->ret_leader, call->ret_member_id))
        violation(t, "actor %d is told of the members, and does not lead", a->index);
}

static void synced(sim *t, actor *a, const cnk_coord_call *call) {
    if (!judged(t, a, call->error)) return;
    give_up(a, false);
    a->state = OWNER;
    for (size_t n = 0; n < call->ret_assignment.len; n++) a->owned[(int)call->ret_assignment.p[n] % PARTITIONS] = true;
    say(t, "actor %d, generation %d of %s: %zu partitions", a->index, a->generation, t->groups[a->group].name,
        call->ret_assignment.len);
    assigned(t, a);
}

static void committed(sim *t, operation *o, actor *a) {
    model *m = &t->groups[o->group[1] - '0'];
    int error = o->call.call.error ? o->call.call.error : o->offsets[0].error;
    int64_t value = o->offsets[0].offset;
    if (error == 0) {
        totals.commits++;
        if (o->told > o->generation)
            violation(t, "%s: offset %lld of partition %d is accepted in generation %d, when members knew of %d", m->name,
                      (long long)value, o->partition, o->generation, o->told);
        int64_t *acked = &m->acked[o->topic_number][o->partition];
        if (value > *acked) *acked = value;
    }
    if (a == NULL || !judged(t, a, error)) return;
    if (a->known[o->partition]) a->value[o->partition] = value;
}

/* The partition's offset among all of a group's, and which topic had the name when they were told. */
static int64_t pick(sim *t, operation *o) {
    const cnk_coord_call *call = &o->call.call;
    const int now = topic_number(t, o->shard);
    if (now != o->topic_number) o->acked = -1; /* nothing is known of that one */
    o->topic_number = now;
    for (size_t i = 0; i < call->topic_count; i++)
        for (size_t n = 0; n < call->topics[i].offset_count; n++)
            if (call->topics[i].offsets[n].partition == o->partition) return call->topics[i].offsets[n].offset;
    return -1;
}

static void fetched(sim *t, operation *o, actor *a) {
    model *m = &t->groups[o->group[1] - '0'];
    int error = o->call.call.error ? o->call.call.error : o->offsets[0].error;
    int64_t value = o->offsets[0].offset;
    if (error == 0 && o->call.call.all_topics) value = pick(t, o);
    if (error == 0 && o->topic_number >= 0) {
        totals.fetches++;
        if (value >= 0 && value / TOPIC_STEP != o->topic_number)
            violation(t, "%s, partition %d of topic %d: offset %lld is that of another one", m->name, o->partition,
                      o->topic_number, (long long)value);
        if (value < o->acked && !t->doomed[o->topic_number])
            violation(t, "%s, partition %d: offset %lld is stored, %lld was acknowledged", m->name, o->partition,
                      (long long)value, (long long)o->acked);
        if (value > m->sent[o->topic_number][o->partition])
            violation(t, "%s, partition %d: offset %lld is stored, and nobody sent it", m->name, o->partition,
                      (long long)value);
    }
    if (a == NULL || !judged(t, a, error) || !a->owned[o->partition]) return;
    a->known[o->partition] = true;
    a->value[o->partition] = value;
}

static void on_done(cnk_group_call *op) {
    operation *o = op->arg;
    sim *t = the_sim;
    actor *a = o->who;
    const cnk_coord_call *call = &o->call.call;
    o->over = true;
    if (a && a->op == o) a->op = NULL;
    if (!dead(t) && !t->node.failed) {
        say(t, "operation %d of actor %d in %s: %s", (int)call->kind, a ? a->index : -1, o->group,
            call->error ? chronik_error_name(call->error) : "done");
        if (call->kind == CNK_COORD_OFFSET_COMMIT) committed(t, o, a);
        else if (call->kind == CNK_COORD_OFFSET_FETCH) fetched(t, o, a);
        else if (a == NULL && call->kind == CNK_COORD_SYNC && call->error == 0 && o->told > o->generation)
            violation(t, "%s: an assignment is answered to generation %d, when members knew of %d", o->group, o->generation, o->told);
        else if (a == NULL) (void)a;
        else if (call->kind == CNK_COORD_JOIN) joined(t, a, call);
        else if (call->kind == CNK_COORD_SYNC) synced(t, a, call);
        else if (call->kind == CNK_COORD_HEARTBEAT) (void)judged(t, a, call->error);
        else if (call->kind == CNK_COORD_LEAVE && !passing(call->error)) give_up(a, true);
    }
    cnk_broker_group_end(&o->call);
}

/* ---- what members do -------------------------------------------------------------------------------------------- */

static operation *canceling;
static void run_cancel(void *arg) {
    (void)arg;
    cnk_broker_group_cancel(&canceling->call);
}

/* It does not want to know what becomes of it. */
static void disown(actor *a) {
    if (a->op) a->op->who = NULL;
    a->op = NULL;
}

/* An owner looks at what is stored before it goes on from there. */
static void own(sim *t, actor *a) {
    int p = (int)below(t, PARTITIONS);
    uint64_t w = below(t, 100);
    if (!t->calm && a->generation > 0 && chance(t, 1, 30)) { /* something that was under way since the last generation */
        int32_t now = a->generation--;
        start_offsets(t, a, CNK_COORD_OFFSET_COMMIT, p);
        disown(a);
        start_sync(t, a);
        disown(a);
        a->generation = now;
        return;
    }
    if (!t->calm && w < 2) start_leave(t, a);
    else if (w < 40 || !a->owned[p]) start(t, operation_new(t, a, CNK_COORD_HEARTBEAT));
    else start_offsets(t, a, a->known[p] ? CNK_COORD_OFFSET_COMMIT : CNK_COORD_OFFSET_FETCH, p);
}

/* ---- the topics ------------------------------------------------------------------------------------------------- */

static cnk_create_topic making;
static cnk_create_topics make;
static cnk_delete_topic unmaking;
static cnk_delete_topics unmake;

static void on_made(cnk_create_topics *op) {
    sim *t = op->arg;
    t->topic_made = true;
    t->remaking = false;
}

static void start_make(sim *t, const char *name) {
    const bool groups = strcmp(name, CNK_COORD_GROUPS_TOPIC) == 0;
    making = (cnk_create_topic){.name = text(name), .partitions = groups ? -1 : PARTITIONS, .replication = -1};
    make = (cnk_create_topics){.timeout_ms = 20000, .automatic = groups, .coordinator = groups, .topics = &making,
                               .topic_count = 1, .done = on_made, .arg = t};
    t->topic_made = false;
    if (cnk_broker_create_topics(cnk_broker_shard(t->node.broker, 0), &make) < 0) on_made(&make);
}
static void run_make(void *arg) { start_make(arg, "t"); }
static void run_make_groups(void *arg) { start_make(arg, CNK_COORD_GROUPS_TOPIC); }

static void on_unmade(cnk_delete_topics *op) {
    sim *t = op->arg;
    if (t->node.killed || dead(t) || t->node.stopping) return; /* it may be there, or not */
    t->deleting = false;
    totals.deleted += unmaking.error == 0;
    run_make(t);
}

static void run_unmake(void *arg) {
    sim *t = arg;
    unmaking = (cnk_delete_topic){.name = text("t")};
    unmake = (cnk_delete_topics){.timeout_ms = 20000, .topics = &unmaking, .topic_count = 1, .done = on_unmade, .arg = t};
    t->remaking = t->deleting = true;
    for (int n = 0; n < t->topic_count; n++) t->doomed[n] = true;
    if (cnk_broker_delete_topics(cnk_broker_shard(t->node.broker, 0), &unmake) < 0) t->remaking = t->deleting = false;
}

static bool is_made(void *arg) { return ((sim *)arg)->topic_made; }
static bool is_remade(void *arg) { return !((sim *)arg)->remaking; }

/* ---- everybody -------------------------------------------------------------------------------------------------- */

static void act(sim *t) {
    if (!t->calm && !t->remaking && t->topic_count < TOPICS_MAX - 2 && chance(t, 1, 150)) {
        sim_world_on(t->node.world, 0, run_unmake, t);
        return;
    }
    actor *a = &t->actors[below(t, ACTORS)];
    uint64_t now = sim_world_now_ns(t->node.world);
    if (a->sleeps_until > now && !t->calm) return;
    if (!t->calm && chance(t, 1, 60)) { /* longer than its session, sometimes; what it has under way goes on */
        a->sleeps_until = now + below(t, 2 * SIM_SECOND);
        return;
    }
    if (a->op && !t->calm && chance(t, 1, 40)) { /* its connection breaks; the operation may be done all the same */
        canceling = a->op;
        if (chance(t, 1, 2)) a->op->who = NULL, a->op = NULL;
        sim_world_on(t->node.world, canceling->shard, run_cancel, NULL);
        return;
    }
    if (a->op) return;
    if (!t->calm && chance(t, 1, 120)) { /* the client starts anew */
        totals.replaced += a->instance[0] != 0;
        give_up(a, true);
        return;
    }
    if (a->state == OUT) start_join(t, a);
    else if (a->state == TOLD) start_sync(t, a);
    else own(t, a);
}

static void sweep(sim *t) {
    for (operation **at = &t->operations; *at;) {
        operation *o = *at;
        if (!o->over) {
            at = &o->next;
            continue;
        }
        *at = o->next;
        free(o);
    }
}

static void work(sim *t, uint64_t steps) {
    for (uint64_t n = 0; n < steps && !t->node.failed && !dead(t) && !t->node.fenced; n++) {
        act(t);
        uint64_t ns = !t->calm && chance(t, 1, 100) ? 2 * SIM_SECOND
                      : chance(t, 1, 6)             ? below(t, 20 * SIM_MILLISECOND)
                                                    : below(t, 2000) * SIM_MICROSECOND;
        sim_world_run(t->node.world, ns);
        if (n % 8 == 0) sweep(t);
    }
}

/* With nothing in the way each group settles. */
static bool settled(sim *t) {
    for (int g = 0; g < GROUPS; g++) {
        int owners[PARTITIONS] = {0};
        int32_t common = -1;
        for (int n = 0; n < ACTORS; n++) {
            const actor *a = &t->actors[n];
            if (a->group != g) continue;
            if (a->state != OWNER || (common >= 0 && a->generation != common)) return false;
            common = a->generation;
            for (int p = 0; p < PARTITIONS; p++) owners[p] += a->owned[p];
        }
        for (int p = 0; p < PARTITIONS; p++)
            if (owners[p] != 1) return false;
    }
    return true;
}

static void come_to_rest(sim *t) {
    t->calm = true;
    if (!sim_world_run_until(t->node.world, is_remade, t, 60 * SIM_SECOND) && !dead(t) && !t->node.fenced)
        violation(t, "the topic is not made anew");
    for (int n = 0; n < 60 && !settled(t) && !t->node.failed && !dead(t) && !t->node.fenced; n++) work(t, 300);
    if (!t->node.failed && !dead(t) && !t->node.fenced && !settled(t)) {
        violation(t, "a group does not settle");
        for (int n = 0; n < ACTORS && t->node.run->trace; n++)
            printf("  actor %d of group %d: state %d, generation %d, id %s\n", n, t->actors[n].group, (int)t->actors[n].state,
                   t->actors[n].generation, t->actors[n].id);
    }
    work(t, 300); /* and its offsets can be read and stored */
    t->calm = false;
}

/* ---- worlds ----------------------------------------------------------------------------------------------------- */

static void boot(sim *t) {
    sim_node_boot(&t->node);
    for (int n = 0; n < ACTORS; n++) t->actors[n].sleeps_until = 0; /* another clock */
}

static bool made(sim *t, void (*run)(void *arg)) {
    sim_world_on(t->node.world, 0, run, t);
    if (!sim_world_run_until(t->node.world, is_made, t, 60 * SIM_SECOND)) {
        if (!dead(t) && !t->node.faulty && !t->node.fenced) violation(t, "topic %s is not made", making.name.p);
        return false;
    }
    return !t->node.failed && !dead(t);
}

/* false: not serving. */
static bool open_all(sim *t) {
    if (!sim_node_open(&t->node)) return false;
    t->deleting = t->remaking = false;
    return made(t, run_make_groups) && made(t, run_make);
}

/* The members forget what they had under way, and nothing else: they do not know that the broker was away. */
static void shut(sim *t) {
    for (int n = 0; n < ACTORS; n++) t->actors[n].op = NULL;
    for (operation *o = t->operations; o; o = o->next) o->who = NULL;
    sim_node_kill(&t->node);
    sim_node_end(&t->node);
    for (operation *o = t->operations; o; o = o->next)
        if (!o->over && t->node.broker) violation(t, "an operation does not end when the broker is stopped");
    sim_node_free(&t->node);
    for (operation *o; (o = t->operations) != NULL;) {
        t->operations = o->next;
        free(o);
    }
}

static void life(sim *t, bool last) {
    boot(t);
    if (!last && chance(t, 1, 8)) sim_world_crash_in(t->node.world, 1 + below(t, 60));
    if (!last && chance(t, 1, 12)) {
        sim_world_fail_in(t->node.world, 1 + below(t, 250), CHRONIK_EIO);
        t->node.faulty = true;
    }
    if (open_all(t)) {
        if (!last && chance(t, 5, 6)) sim_world_crash_in(t->node.world, 1 + below(t, chance(t, 1, 4) ? 40 : 600));
        if (chance(t, 1, 5)) sim_world_wall_jump(t->node.world, (int64_t)below(t, 100000000) - 50000000);
        work(t, 200 + below(t, 600));
        if (last || chance(t, 1, 6)) {
            if (last) sim_world_crash_in(t->node.world, 0);
            if (!t->node.failed && !dead(t) && !t->node.fenced && !t->node.faulty) come_to_rest(t);
        }
        if (!t->node.failed && !dead(t) && !t->node.fenced && chance(t, 1, 3)) sim_node_stop(&t->node);
    }
    shut(t);
}

static void settings(sim *t, sim_run *run) {
    sim_node_init(&t->node, run, &t->rng);
    t->node.wal_options.unsynced_bytes_max = chance(t, 1, 3) ? 200 + below(t, 3000) : 64 << 20;
    t->node.wal_options.linger_always = chance(t, 1, 6);
    t->node.options.offsets_partitions = 1 + (int32_t)below(t, 4);
    t->node.options.groups.initial_delay_ms = 20 + (int32_t)below(t, 100);
    t->node.options.groups.session_min_ms = 100;
    t->node.options.groups.snapshot_records = 1 + (uint32_t)below(t, 40);
    /* An empty group that has stored nothing is deleted at the next look, and its generations begin anew; as in Kafka. */
    t->node.options.groups.offsets_check_ms = INT64_C(1) << 40;
}

static bool run_seed(sim_run *run) {
    sim *t = calloc(1, sizeof *t);
    the_sim = t;
    t->seed = run->seed;
    cnk_rng_seed(&t->rng, t->seed * UINT64_C(0x9e3779b97f4a7c15) + 11);
    for (int g = 0; g < GROUPS; g++) {
        model *m = &t->groups[g];
        snprintf(m->name, sizeof m->name, "g%d", g);
        m->generations = calloc(GENERATIONS_MAX, sizeof *m->generations);
        for (int n = 0; n < TOPICS_MAX; n++)
            for (int p = 0; p < PARTITIONS; p++) m->acked[n][p] = m->sent[n][p] = -1;
    }
    for (int n = 0; n < ACTORS; n++) {
        t->actors[n].index = n;
        t->actors[n].group = n % GROUPS;
        if (n % 3 == 0) snprintf(t->actors[n].instance, sizeof t->actors[n].instance, "static%d", n);
    }
    settings(t, run);
    while (sim_node_goes_on(&t->node, WORLDS_MIN, WORLDS_MAX, CALLS_MIN)) life(t, false);
    if (!t->node.failed) life(t, true);
    const bool ok = sim_node_over(&t->node);
    for (int g = 0; g < GROUPS; g++) free(t->groups[g].generations);
    free(t);
    return ok;
}

/* ---- the program ------------------------------------------------------------------------------------------------ */

static const char *const bugs[] = {"none",          "ack-before-sync",   "answer-before-commit", "old-generation",
                                   "assign-unwritten", "load-stops-early", "sync-old-generation", "snapshot-skips",
                                   "resume",        NULL};

static void bug_set(size_t bug) {
    static const struct { enum cnk_wal_bug wal; enum cnk_coord_bug coord; enum cnk_broker_bug broker; } of[] = {
        {.wal = CNK_WAL_BUG_NONE},
        {.wal = CNK_WAL_BUG_ACK_BEFORE_SYNC},
        {.coord = CNK_COORD_BUG_ANSWER_BEFORE_COMMIT},
        {.coord = CNK_COORD_BUG_OLD_GENERATION},
        {.coord = CNK_COORD_BUG_ASSIGN_UNWRITTEN},
        {.coord = CNK_COORD_BUG_LOAD_STOPS_EARLY},
        {.coord = CNK_COORD_BUG_SYNC_OLD_GENERATION},
        {.coord = CNK_COORD_BUG_SNAPSHOT_SKIPS},
        {.broker = CNK_BROKER_BUG_RESUME}};
    cnk_wal_bug = of[bug].wal;
    cnk_coord_bug = of[bug].coord;
    cnk_broker_bug = of[bug].broker;
}

static void print_totals(void) {
    printf("%llu joins, %llu assignments, %llu commits acknowledged, %llu fetched; %llu left, %llu static ones came back, %llu "
           "fenced, %llu refused; the topic deleted %llu times",
           (unsigned long long)totals.joins, (unsigned long long)totals.assignments, (unsigned long long)totals.commits,
           (unsigned long long)totals.fetches, (unsigned long long)totals.left, (unsigned long long)totals.replaced,
           (unsigned long long)totals.fenced, (unsigned long long)totals.refused, (unsigned long long)totals.deleted);
}

int main(int argc, char **argv) {
    static const sim_program program = {"sim_group", 40, bugs, bug_set, run_seed, print_totals};
    return sim_main(&program, argc, argv);
}
