/* The transcript of a run, a line for each thing that happens, in the protocol's words. */
#include "sim/raft_world.h"

#include <stdio.h>

static unsigned long long ull(uint64_t x) { return x; }

static void print_ids(const char *before, const uint64_t *ids, unsigned count) {
    if (count == 0) return;
    printf("%s{", before);
    for (unsigned i = 0; i < count; i++) printf("%s%llu", i ? " " : "", ull(ids[i]));
    printf("}");
}

static void print_config(const raft_world *w, int config) {
    if (config < 0) return;
    const chronik_raft_config *c = &w->configs[config];
    print_ids(" old", c->old, c->old_count);
    print_ids(" voters", c->voters, c->voter_count);
    print_ids(" learners", c->learners, c->learner_count);
}

static void print_message(const raft_world *w, const rw_message *x) {
    const chronik_raft_message *m = &x->m;
    bool refused = m->flags & CHRONIK_RAFT_REFUSED;
    switch (m->type) {
    case CHRONIK_RAFT_PREVOTE:
        if (m->flags & CHRONIK_RAFT_LOST)
            printf("I am here in term %u, and have lost entries", m->term);
        else
            printf("would you vote for me in term %u? my log ends at %llu of term %u", m->term, ull(m->index),
                   m->log_term);
        break;
    case CHRONIK_RAFT_PREVOTE_REPLY: printf("%s in term %u", refused ? "I would not," : "I would", m->term); break;
    case CHRONIK_RAFT_VOTE:
        printf("vote for me in term %u%s, my log ends at %llu of term %u", m->term,
               m->flags & CHRONIK_RAFT_HANDOVER ? " (the leader wants it)" : "", ull(m->index), m->log_term);
        break;
    case CHRONIK_RAFT_VOTE_REPLY: printf("%s in term %u", refused ? "no vote" : "you have my vote", m->term); break;
    case CHRONIK_RAFT_APPEND:
        printf("term %u: after %llu of term %u append %u, commit %llu", m->term, ull(m->index), m->log_term, m->count,
               ull(m->commit));
        for (uint32_t i = 0; i < m->count; i++) print_config(w, x->entry[i].config);
        break;
    case CHRONIK_RAFT_APPEND_REPLY:
        if (refused)
            printf("term %u: not after %llu; look at %llu of term %u", m->term, ull(m->index), ull(m->hint),
                   m->log_term);
        else
            printf("term %u: synced up to %llu", m->term, ull(m->index));
        break;
    case CHRONIK_RAFT_HEARTBEAT:
        printf("term %u: heartbeat, commit %llu, round %u%s", m->term, ull(m->commit), m->round,
               m->flags & CHRONIK_RAFT_SLEEP ? ", let us sleep" : "");
        break;
    case CHRONIK_RAFT_HEARTBEAT_REPLY:
        printf("term %u: %sverified up to %llu, round %u%s", m->term, refused ? "your term is over, " : "",
               ull(m->index), m->round, m->flags & CHRONIK_RAFT_SLEEP ? ", agreed" : "");
        break;
    case CHRONIK_RAFT_SNAPSHOT:
        printf("term %u: a snapshot up to %llu of term %u", m->term, ull(m->index), m->log_term);
        print_config(w, x->config);
        break;
    default: printf("term %u: stand for election now", m->term); break;
    }
    if (m->flags & CHRONIK_RAFT_LOST) printf(" (I have lost entries)");
    if (m->flags & CHRONIK_RAFT_REPAIRED) printf(" (you are repaired)");
}

static void print_write(const raft_world *w, const rw_op *op) {
    switch (op->type) {
    case CHRONIK_RAFT_DO_VOTE:
        if (op->vote)
            printf("votes for %llu in term %u", ull(op->vote), op->term);
        else
            printf("enters term %u", op->term);
        break;
    case CHRONIK_RAFT_DO_TRUNCATE: printf("truncates its log to %llu", ull(op->index)); break;
    case CHRONIK_RAFT_DO_APPEND:
        printf("appends %llu of term %u", ull(op->index), op->term);
        print_config(w, op->entry.config);
        break;
    case CHRONIK_RAFT_DO_RESET: printf("installs the snapshot up to %llu", ull(op->index)); break;
    default: printf("is repaired"); break;
    }
    printf(" [lsn %llu]", ull(op->lsn));
}

void raft_text_print(const raft_world *w, const raft_record *r) {
    static const char *const roles[] = {"follows", "asks for pre-votes", "is a candidate", "LEADS", "has failed"};
    printf("%9llu.%03llu  ", ull(r->time / 1000), ull(r->time % 1000));
    if (r->kind != RAFT_NEMESIS) printf("%d ", r->node);
    switch (r->kind) {
    case RAFT_START: printf("starts: term %u, log up to %llu", r->term, ull(r->index)); break;
    case RAFT_CRASH: printf("crashes; lsn %llu survives", ull(r->lsn)); break;
    case RAFT_DAMAGE: printf("loses synced entries after %llu", ull(r->index)); break;
    case RAFT_PERSIST: print_write(w, r->op); break;
    case RAFT_SYNCED: printf("has synced up to lsn %llu", ull(r->lsn)); break;
    case RAFT_SEND:
        printf("-> %llu: ", ull(r->message->m.to));
        print_message(w, r->message);
        break;
    case RAFT_RECEIVE:
        printf("<- %llu: ", ull(r->message->m.from));
        print_message(w, r->message);
        break;
    case RAFT_ROLE:
        printf("%s in term %u", roles[r->role], r->term);
        if (r->role == CHRONIK_RAFT_ROLE_FOLLOWER && r->peer) printf(", leader %llu", ull(r->peer));
        break;
    case RAFT_COMMIT: printf("commits up to %llu", ull(r->index)); break;
    case RAFT_READ: printf("begins a read in round %u", r->round); break;
    case RAFT_READY: printf("may serve reads up to round %u at %llu", r->round, ull(r->index)); break;
    case RAFT_SLEEP: printf("falls asleep"); break;
    case RAFT_WAKE: printf("wakes"); break;
    case RAFT_COMPACT: printf("compacts its log up to %llu", ull(r->index)); break;
    case RAFT_STEP: break;
    case RAFT_NEMESIS: printf("** %s", r->text); break;
    }
    printf("\n");
}
