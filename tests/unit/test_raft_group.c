/* Raft rule by rule: configurations, snapshots, transfer, reads, sleep. See test_raft.c for the rest. */
#include "raft_host.h"

#include "base/rng.h"

static void ticks_for_all(int count) {
    for (int n = 0; n < count; n++) {
        for (unsigned i = 1; i <= HOSTS; i++)
            if (hosts[i].up) tick(&hosts[i], 1);
        settle();
    }
}

static host *leader(void) {
    host *best = NULL;
    for (unsigned i = 1; i <= HOSTS; i++)
        if (hosts[i].up && leads(&hosts[i]) && (!best || status(&hosts[i]).term > status(best).term)) best = &hosts[i];
    return best;
}

/* ---- configurations -------------------------------------------------------------------------------------------- */

START_TEST(test_a_change_goes_by_way_of_both) {
    group(3);
    elect(&hosts[1]);
    ck_assert_int_eq(configure(&hosts[1], "145", ""), 0);
    ck_assert(status(&hosts[1]).joint); /* at once, not when it is committed */
    ck_assert_int_eq(configure(&hosts[1], "123", ""), CHRONIK_EBUSY);
    ticks_for_all(10);
    chronik_raft_config c;
    for (unsigned i = 1; i <= 5; i += i == 1 ? 3 : 1) {
        chronik_raft_config_get(hosts[i].raft, &c);
        ck_assert_uint_eq(c.old_count, 0);
        ck_assert_uint_eq(c.voter_count, 3);
        ck_assert_uint_eq(hosts[i].commit, hosts[1].last);
    }
    ck_assert_int_eq(config_count, 3); /* the founders', both, the new one */
    ck_assert_uint_eq(configs[1].old_count, 3);
    ck_assert_uint_eq(configs[1].voter_count, 3);
    /* 2 and 3 have been told that they are out. */
    for (unsigned i = 2; i <= 3; i++) {
        ck_assert(!status(&hosts[i]).voter);
        tick(&hosts[i], 100);
        ck_assert_int_eq(status(&hosts[i]).role, CHRONIK_RAFT_ROLE_FOLLOWER);
    }
}
END_TEST

START_TEST(test_agreement_needs_both_majorities) {
    group(3);
    elect(&hosts[1]);
    uint64_t commit = hosts[1].commit;
    isolate(&hosts[4], true), isolate(&hosts[5], true);
    ck_assert_int_eq(configure(&hosts[1], "145", ""), 0);
    settle();
    ck_assert_uint_eq(hosts[1].commit, commit); /* all of the old ones are not enough */
    group(3);
    elect(&hosts[1]);
    isolate(&hosts[2], true), isolate(&hosts[3], true);
    ck_assert_int_eq(configure(&hosts[1], "145", ""), 0);
    for (int n = 0; n < 5; n++) tick(&hosts[1], 2), settle();
    ck_assert_uint_eq(hosts[1].commit, commit); /* nor all of the new ones */
    isolate(&hosts[2], false);
    for (int n = 0; n < 5; n++) tick(&hosts[1], 2), settle();
    ck_assert_uint_gt(hosts[1].commit, commit);
}
END_TEST

/* Only until it leads: nothing of its term need be durable, or known to anybody. */
static void elect_barely(host *h) {
    step(h, (chronik_raft_event){.type = CHRONIK_RAFT_CAMPAIGN});
    for (int n = 0; n < 20 && !leads(h); n++) {
        for (unsigned i = 1; i <= 3; i++) sync_host(&hosts[i]);
        deliver();
    }
}

/* R5 */
START_TEST(test_no_change_before_the_term_has_committed) {
    group(3);
    elect_barely(&hosts[1]);
    ck_assert(leads(&hosts[1]));
    ck_assert_int_eq(configure(&hosts[1], "12", ""), CHRONIK_EAGAIN);
    settle();
    ck_assert_int_eq(configure(&hosts[1], "12", ""), 0);
    ck_assert_int_eq(configure(&hosts[2], "12", ""), CHRONIK_ENOTLEADER);
    settle();
    ck_assert_int_eq(configure(&hosts[1], "", ""), CHRONIK_EINVAL);
    ck_assert_int_eq(configure(&hosts[1], "11", ""), CHRONIK_EINVAL);
    ck_assert_int_eq(configure(&hosts[1], "12", "2"), CHRONIK_EINVAL);
}
END_TEST

START_TEST(test_a_truncated_configuration_is_taken_back) {
    group(3);
    elect(&hosts[1]);
    isolate(&hosts[1], true);
    ck_assert_int_eq(configure(&hosts[1], "1456", ""), 0);
    settle();
    ck_assert(status(&hosts[1]).joint);
    post_count = 0;
    forget_leader();
    elect(&hosts[2]);
    isolate(&hosts[1], false);
    for (int n = 0; n < 5; n++) tick(&hosts[2], 2), settle();
    chronik_raft_config c;
    chronik_raft_config_get(hosts[1].raft, &c);
    ck_assert(!status(&hosts[1]).joint);
    ck_assert_uint_eq(c.voter_count, 3);
    ck_assert_uint_eq(hosts[1].truncated, 1);
    /* The same after a restart in between. */
    ck_assert_uint_eq(hosts[1].last, hosts[2].last);
}
END_TEST

START_TEST(test_a_leader_removes_itself) {
    group(3);
    elect(&hosts[1]);
    ck_assert_int_eq(configure(&hosts[1], "23", ""), 0);
    settle();
    ck_assert(!leads(&hosts[1]));
    ck_assert(!status(&hosts[1]).voter);
    uint64_t last = hosts[1].last;
    ck_assert_uint_eq(hosts[1].commit, last);
    ticks_for_all(60);
    ck_assert_ptr_nonnull(leader());
    ck_assert_ptr_ne(leader(), &hosts[1]);
    ck_assert_uint_gt(leader()->commit, last);
}
END_TEST

/* Section 4.2.2, figure 4.6: whoever is not in its own newest configuration may still be needed to lead. */
START_TEST(test_a_removed_member_leads_until_that_is_committed) {
    group(2);
    elect(&hosts[1]);
    ck_assert_int_eq(configure(&hosts[1], "2", ""), 0);
    deliver(), sync_host(&hosts[1]), sync_host(&hosts[2]);
    cut[1][2] = true; /* 1 commits the joint one and appends the next, which 2 does not get */
    settle();
    ck_assert_uint_eq(hosts[1].last, hosts[2].last + 1);
    ck_assert(!status(&hosts[1]).voter);
    for (unsigned i = 1; i <= 2; i++) crash(&hosts[i], hosts[i].last), start(&hosts[i], false);
    memset(cut, 0, sizeof cut);
    post_count = 0;
    ticks_for_all(80);
    ck_assert(leads(&hosts[2]));
    ck_assert(!status(&hosts[2]).joint);
    ck_assert_uint_eq(hosts[2].commit, hosts[2].last);
}
END_TEST

/* A leader that finds a joint configuration committed already still leaves it. */
START_TEST(test_a_new_leader_leaves_a_joint_configuration) {
    group(3);
    elect(&hosts[1]);
    ck_assert_int_eq(configure(&hosts[1], "124", ""), 0);
    for (int n = 0; n < 20 && hosts[2].commit < 3; n++) {
        deliver();
        for (unsigned i = 1; i <= 4; i++) sync_host(&hosts[i]);
        if (hosts[1].last > 3) cut[1][2] = cut[1][3] = cut[1][4] = false;
    }
    for (unsigned i = 2; i <= 4; i++)
        hosts[i].last = 3, hosts[i].term = status(&hosts[1]).term, start(&hosts[i], false);
    crash(&hosts[1], 3), start(&hosts[1], false);
    post_count = 0;
    ticks_for_all(80);
    ck_assert_ptr_nonnull(leader());
    ck_assert(!status(leader()).joint);
}
END_TEST

START_TEST(test_a_dead_voter_is_swapped_while_one_more_is_down) {
    group(5);
    elect(&hosts[1]);
    crash(&hosts[5], hosts[5].last); /* dead for ever */
    crash(&hosts[4], hosts[4].last); /* down for a while */
    ck_assert_int_eq(configure(&hosts[1], "12345", "6"), 0);
    ticks_for_all(10);
    ck_assert_uint_eq(hosts[6].last, hosts[1].last); /* caught up as a learner */
    ck_assert_int_eq(configure(&hosts[1], "12346", ""), 0);
    ticks_for_all(10);
    chronik_raft_config c;
    chronik_raft_config_get(hosts[1].raft, &c);
    ck_assert_uint_eq(c.old_count, 0);
    ck_assert_uint_eq(c.voter_count, 5);
    crash(&hosts[2], hosts[2].last); /* two are down of five, one of them not the dead one */
    propose(&hosts[1], 1);
    ticks_for_all(5);
    ck_assert_uint_eq(hosts[1].commit, hosts[1].last);
}
END_TEST

START_TEST(test_learners_learn_and_count_for_nothing) {
    group(2);
    elect(&hosts[1]);
    ck_assert_int_eq(configure(&hosts[1], "12", "34"), 0);
    ck_assert(!status(&hosts[1]).joint); /* the voters are the same */
    ticks_for_all(5);
    ck_assert_uint_eq(hosts[3].commit, hosts[1].last);
    isolate(&hosts[2], true);
    uint64_t commit = hosts[1].commit;
    propose(&hosts[1], 1);
    settle();
    ck_assert_uint_eq(hosts[3].last, hosts[1].last);
    ck_assert_uint_eq(hosts[1].commit, commit);
    tick(&hosts[3], 100);
    ck_assert_int_eq(status(&hosts[3]).role, CHRONIK_RAFT_ROLE_FOLLOWER);
    tick(&hosts[1], 25);
    ck_assert(!leads(&hosts[1])); /* nor do they make a quorum */
}
END_TEST

/* Voters that become learners stay members all the way. */
START_TEST(test_a_voter_becomes_a_learner) {
    group(3);
    elect(&hosts[1]);
    ck_assert_int_eq(configure(&hosts[1], "12", "3"), 0);
    ticks_for_all(5);
    chronik_raft_config c;
    chronik_raft_config_get(hosts[3].raft, &c);
    ck_assert_uint_eq(c.voter_count, 2);
    ck_assert_uint_eq(c.learner_count, 1);
    ck_assert_uint_eq(c.learners[0], 3);
    ck_assert_uint_eq(c.old_count, 0);
}
END_TEST

/* A step that needs more slots than there are does nothing, and does it after a move. */
START_TEST(test_more_members_than_room) {
    group(1);
    chronik_raft_options o = CHRONIK_RAFT_OPTIONS_INIT;
    o.self = 1, o.settings = &settings, o.config = &configs[0], o.config_index = 1, o.last_index = 1, o.term = 1,
    o.arg = &hosts[1];
    uint64_t small[64];
    ck_assert_int_eq(chronik_raft_init(small, chronik_raft_size(1), &o, NULL, &hosts[1].raft), 0);
    elect(&hosts[1]);
    chronik_raft_status before = status(&hosts[1]), after;
    ck_assert_int_eq(configure(&hosts[1], "123", ""), CHRONIK_ENOMEM);
    after = status(&hosts[1]);
    ck_assert_uint_eq(before.lsn, after.lsn);
    ck_assert_uint_eq(before.last_index, after.last_index);
    ck_assert(!after.joint);
    uint64_t large[64];
    ck_assert_int_eq(chronik_raft_move(hosts[1].raft, large, 10, &hosts[1].raft), CHRONIK_ENOMEM);
    ck_assert_int_eq(chronik_raft_move(hosts[1].raft, large, chronik_raft_size(3), &hosts[1].raft), 0);
    memset(small, 0xee, sizeof small);
    ck_assert_int_eq(configure(&hosts[1], "123", ""), 0);
    /* The same for one that arrives. */
    uint64_t tiny[64];
    o.self = 2, o.arg = &hosts[2], o.config = NULL, o.config_index = 0, o.last_index = 0, o.term = 0;
    ck_assert_int_eq(chronik_raft_init(tiny, chronik_raft_size(1), &o, NULL, &hosts[2].raft), 0);
    sync_host(&hosts[1]);
    mail x = letter(CHRONIK_RAFT_APPEND, 1, 2, status(&hosts[1]).term);
    x.m.count = 3;
    memcpy(x.items, hosts[1].log + 1, 3 * sizeof x.items[0]);
    ck_assert_int_eq(receive(&hosts[2], &x), CHRONIK_ENOMEM);
    ck_assert_uint_eq(status(&hosts[2]).term, 0);
    ck_assert_int_eq(chronik_raft_move(hosts[2].raft, hosts[2].memory, sizeof hosts[2].memory, &hosts[2].raft), 0);
    ck_assert_int_eq(receive(&hosts[2], &x), 0);
    ck_assert_uint_eq(hosts[2].last, 2); /* up to, not with, a second configuration */
}
END_TEST

/* ---- snapshots ------------------------------------------------------------------------------------------------- */

START_TEST(test_a_member_that_is_too_far_behind_gets_a_snapshot) {
    group(3);
    elect(&hosts[1]);
    ck_assert_int_eq(configure(&hosts[1], "123", "4"), 0);
    isolate(&hosts[4], true), isolate(&hosts[3], true);
    for (int n = 0; n < 10; n++) propose(&hosts[1], 3), settle();
    host *h = &hosts[1];
    uint64_t at, index = h->commit - 5;
    int config = config_at(h, index, &at);
    h->snapshot_term = h->log[index].term, h->snapshot_config = config, h->first = index + 1;
    ck_assert_int_eq(step(h, (chronik_raft_event){.type = CHRONIK_RAFT_COMPACTED, .index = index}), 0);
    ck_assert_uint_eq(status(h).first_index, index + 1);
    isolate(&hosts[4], false), isolate(&hosts[3], false);
    for (int n = 0; n < 10 && h->snapshots_asked < 2; n++) tick(h, 2), settle();
    ck_assert_uint_eq(h->snapshots_asked, 2);
    for (int n = 0; n < 10; n++) tick(h, 2), settle();
    ck_assert_uint_eq(h->snapshots_asked, 2); /* once for each, until the host has told */
    mail x = letter(CHRONIK_RAFT_SNAPSHOT, 1, 3, status(h).term);
    x.m.index = index, x.m.log_term = h->snapshot_term, x.config = config;
    ck_assert_int_eq(receive(&hosts[3], &x), 0);
    ck_assert_uint_eq(hosts[3].reset, 1);
    ck_assert_uint_eq(hosts[3].commit, index);
    chronik_raft_config c;
    chronik_raft_config_get(hosts[3].raft, &c);
    ck_assert_uint_eq(c.learner_count, 1); /* the configuration is the snapshot's */
    step(h, (chronik_raft_event){.type = CHRONIK_RAFT_SNAPSHOT_SENT, .peer = 3, .index = index});
    for (int n = 0; n < 5; n++) tick(h, 2), settle();
    ck_assert_uint_eq(hosts[3].last, h->last);
    ck_assert_int_eq(receive(&hosts[3], &x), 0); /* again, late */
    ck_assert_uint_eq(hosts[3].reset, 1);
    ck_assert_uint_eq(hosts[3].last, h->last);
    step(h, (chronik_raft_event){.type = CHRONIK_RAFT_SNAPSHOT_SENT, .peer = 4}); /* it failed: asked for again */
    for (int n = 0; n < 5; n++) tick(h, 2), settle();
    ck_assert_uint_eq(h->snapshots_asked, 3);
}
END_TEST

START_TEST(test_a_snapshot_that_the_log_agrees_with_keeps_the_log) {
    group(3);
    elect(&hosts[1]);
    isolate(&hosts[3], true);
    propose(&hosts[1], 5);
    settle();
    isolate(&hosts[3], false);
    uint32_t term = status(&hosts[1]).term;
    for (uint64_t i = 3; i <= 7; i++) put_in_log(&hosts[3], i, hosts[1].log[i]); /* it has them, but not their commit */
    hosts[3].log[8] = (item){term, 10, -1}, hosts[3].last = 8, hosts[3].term = term;
    start(&hosts[3], false);
    mail x = letter(CHRONIK_RAFT_SNAPSHOT, 1, 3, term);
    x.m.index = 5, x.m.log_term = term, x.config = 0;
    ck_assert_int_eq(receive(&hosts[3], &x), 0);
    ck_assert_uint_eq(hosts[3].reset, 0);
    ck_assert_uint_eq(hosts[3].commit, 5);
    ck_assert_uint_eq(hosts[3].last, 8);
}
END_TEST

/* ---- transfer -------------------------------------------------------------------------------------------------- */

START_TEST(test_leadership_is_handed_over) {
    group(3);
    elect(&hosts[1]);
    propose(&hosts[1], 2); /* the target does not have them yet */
    ck_assert_int_eq(step(&hosts[1], (chronik_raft_event){.type = CHRONIK_RAFT_TRANSFER, .peer = 3}), 0);
    ck_assert_int_eq(propose(&hosts[1], 1), CHRONIK_EAGAIN);
    ck_assert_int_eq(step(&hosts[1], (chronik_raft_event){.type = CHRONIK_RAFT_TRANSFER, .peer = 2}), CHRONIK_EBUSY);
    settle();
    ck_assert(leads(&hosts[3]));
    ck_assert(!leads(&hosts[1]));
    ck_assert_uint_eq(hosts[3].commit, hosts[3].last);
    ck_assert_int_eq(step(&hosts[3], (chronik_raft_event){.type = CHRONIK_RAFT_TRANSFER, .peer = 7}), CHRONIK_EINVAL);
    ck_assert_int_eq(step(&hosts[3], (chronik_raft_event){.type = CHRONIK_RAFT_TRANSFER}), 0);
    settle();
    ck_assert(!leads(&hosts[3]));
}
END_TEST

START_TEST(test_a_transfer_that_fails_ends) {
    group(3);
    elect(&hosts[1]);
    isolate(&hosts[3], true);
    ck_assert_int_eq(step(&hosts[1], (chronik_raft_event){.type = CHRONIK_RAFT_TRANSFER, .peer = 3}), 0);
    for (int n = 0; n < 30; n++) tick(&hosts[1], 1), settle();
    ck_assert(leads(&hosts[1]));
    ck_assert_int_eq(propose(&hosts[1], 1), 0);
}
END_TEST

/* ---- reads ----------------------------------------------------------------------------------------------------- */

START_TEST(test_a_read_waits_for_a_majority) {
    group(3);
    elect(&hosts[1]);
    host *h = &hosts[1];
    ck_assert_int_eq(step(h, (chronik_raft_event){.type = CHRONIK_RAFT_READ}), 0);
    uint32_t first = h->read_round;
    mail old = *newest(CHRONIK_RAFT_HEARTBEAT, 2);
    ck_assert_int_eq(step(h, (chronik_raft_event){.type = CHRONIK_RAFT_READ}), 0);
    ck_assert_uint_eq(h->read_round, first + 1); /* the next round */
    ck_assert_uint_eq(h->ready, 0);
    deliver(), deliver();
    ck_assert_uint_eq(h->ready, 1);
    ck_assert_uint_eq(h->ready_round, first);
    ck_assert_uint_eq(h->ready_index, h->commit);
    post_count = 0;
    receive(&hosts[2], &old); /* an answer to the first round says nothing of the second */
    deliver();
    ck_assert_uint_eq(h->ready, 1);
    tick(h, 2);
    deliver(), deliver();
    ck_assert_uint_eq(h->ready, 2);
    ck_assert_int_eq(step(&hosts[2], (chronik_raft_event){.type = CHRONIK_RAFT_READ}), CHRONIK_ENOTLEADER);
}
END_TEST

START_TEST(test_a_cut_off_leader_serves_no_read) {
    group(3);
    elect(&hosts[1]);
    isolate(&hosts[1], true);
    step(&hosts[1], (chronik_raft_event){.type = CHRONIK_RAFT_READ});
    forget_leader();
    elect(&hosts[2]);
    propose(&hosts[2], 1);
    settle();
    for (int n = 0; n < 30; n++) tick(&hosts[1], 1), settle();
    ck_assert_uint_eq(hosts[1].ready, 0);
    ck_assert(!leads(&hosts[1]));
}
END_TEST

START_TEST(test_a_new_leader_reads_after_its_first_commit) {
    group(3);
    elect_barely(&hosts[1]);
    step(&hosts[1], (chronik_raft_event){.type = CHRONIK_RAFT_READ});
    for (int n = 0; n < 5; n++) tick(&hosts[1], 2), deliver(); /* answered, but nothing is synced */
    ck_assert_uint_eq(hosts[1].ready, 0);
    settle();
    ck_assert_uint_eq(hosts[1].ready, 1);
    ck_assert_uint_ge(hosts[1].ready_index, 2);
    group(1);
    elect(&hosts[1]);
    step(&hosts[1], (chronik_raft_event){.type = CHRONIK_RAFT_READ});
    ck_assert_uint_eq(hosts[1].ready, 1); /* a majority of one */
}
END_TEST

/* ---- sleep ----------------------------------------------------------------------------------------------------- */

START_TEST(test_an_idle_group_sleeps_and_costs_nothing) {
    group(3);
    settings.sleep_ticks = 20;
    elect(&hosts[1]);
    propose(&hosts[1], 3);
    ticks_for_all(40);
    for (unsigned i = 1; i <= 3; i++) ck_assert(status(&hosts[i]).asleep);
    for (unsigned i = 1; i <= 3; i++) tick(&hosts[i], 1000);
    ck_assert_uint_eq(post_count, 0);
    ck_assert_int_eq(propose(&hosts[1], 1), 0); /* awake */
    settle();
    for (unsigned i = 1; i <= 3; i++) ck_assert(!status(&hosts[i]).asleep);
    for (unsigned i = 1; i <= 3; i++) ck_assert_uint_eq(hosts[i].commit, hosts[1].last);
    uint32_t term = status(&hosts[1]).term;
    ticks_for_all(60); /* nobody has taken the sleep for silence */
    ck_assert_uint_eq(status(&hosts[1]).term, term);
    for (unsigned i = 1; i <= 3; i++) ck_assert(status(&hosts[i]).asleep);
}
END_TEST

START_TEST(test_nobody_sleeps_while_one_lags) {
    group(3);
    settings.sleep_ticks = 20;
    elect(&hosts[1]);
    isolate(&hosts[3], true);
    propose(&hosts[1], 1);
    for (int n = 0; n < 60; n++) tick(&hosts[1], 1), tick(&hosts[2], 1), settle();
    for (unsigned i = 1; i <= 3; i++) ck_assert(!status(&hosts[i]).asleep);
    isolate(&hosts[3], false);
    ticks_for_all(60);
    for (unsigned i = 1; i <= 3; i++) ck_assert(status(&hosts[i]).asleep);
}
END_TEST

START_TEST(test_a_proposal_while_falling_asleep) {
    group(3);
    settings.sleep_ticks = 20;
    elect(&hosts[1]);
    for (int n = 0; n < 40 && !(newest(CHRONIK_RAFT_HEARTBEAT, 2) &&
                                (newest(CHRONIK_RAFT_HEARTBEAT, 2)->m.flags & CHRONIK_RAFT_SLEEP));
         n++)
        settle(), tick(&hosts[1], 1);
    propose(&hosts[1], 1);
    settle();
    ck_assert(!status(&hosts[1]).asleep);
    for (unsigned i = 1; i <= 3; i++) ck_assert_uint_eq(hosts[i].commit, hosts[1].last);
}
END_TEST

/* The host says that the leader's node is silent: the group wakes, and elects another one. */
START_TEST(test_a_sleeping_group_survives_its_leader) {
    group(3);
    settings.sleep_ticks = 20;
    elect(&hosts[1]);
    ticks_for_all(40);
    crash(&hosts[1], hosts[1].last);
    for (unsigned i = 2; i <= 3; i++) {
        step(&hosts[i], (chronik_raft_event){.type = CHRONIK_RAFT_WAKE, .peer = 1});
        ck_assert_uint_eq(hosts[i].woke, 1);
        hosts[i].now += 5000; /* it has slept for long */
    }
    ticks_for_all(1);
    ck_assert_uint_eq(status(&hosts[2]).term, 2); /* nobody stands in the very moment */
    ticks_for_all(40);
    ck_assert(leads(&hosts[2]) || leads(&hosts[3]));
}
END_TEST

/* A member that comes back while the others sleep asks for votes; nobody is elected over the leader's head. */
START_TEST(test_a_member_wakes_the_others) {
    group(3);
    settings.sleep_ticks = 20;
    elect(&hosts[1]);
    ticks_for_all(40);
    crash(&hosts[3], hosts[3].last);
    start(&hosts[3], false);
    for (int n = 0; n < 25; n++) tick(&hosts[3], 1), settle();
    ck_assert(!status(&hosts[1]).asleep);
    ck_assert(leads(&hosts[1]));
    ticks_for_all(60);
    ck_assert(leads(&hosts[1]));
    for (unsigned i = 1; i <= 3; i++) ck_assert(status(&hosts[i]).asleep);
}
END_TEST

/* The leader comes back without what it had synced. It cannot stand, and the others sleep: perhaps the host's word of its
 * new incarnation came before an old heartbeat that put them to sleep. It asks until they wake. */
START_TEST(test_a_lost_leader_wakes_the_others) {
    group(3);
    settings.sleep_ticks = 20;
    elect(&hosts[1]);
    propose(&hosts[1], 3);
    ticks_for_all(40);
    uint64_t commit = hosts[2].commit;
    crash(&hosts[1], 1);
    start(&hosts[1], true);
    for (int n = 0; n < 200 && status(&hosts[1]).lost; n++) {
        ticks_for_all(1);
        ck_assert_int_eq(status(&hosts[1]).role, CHRONIK_RAFT_ROLE_FOLLOWER);
    }
    ck_assert(!status(&hosts[1]).lost);
    ck_assert(leads(&hosts[2]) || leads(&hosts[3]));
    ck_assert_uint_ge(hosts[1].last, commit);
}
END_TEST

/* What it asks promises nothing, however little the others have themselves. */
START_TEST(test_nobody_would_vote_for_a_lost_replica) {
    group(3);
    crash(&hosts[1], 1);
    start(&hosts[1], true);
    for (int n = 0; n < 60; n++) {
        tick(&hosts[1], 1), sync_host(&hosts[1]);
        for (unsigned i = 0; i < post_count; i++) ck_assert_int_eq(post[i].m.type, CHRONIK_RAFT_PREVOTE);
        deliver();
        for (unsigned i = 0; i < post_count; i++) ck_assert_uint_ne(post[i].m.flags & CHRONIK_RAFT_REFUSED, 0);
        settle();
    }
    ck_assert_uint_eq(status(&hosts[2]).term, 1);
}
END_TEST

/* ---- the largest group ------------------------------------------------------------------------------------------ */

/* A step of a group whose messages go nowhere. Returns how many it wants to send. */
static unsigned raw(host *h, chronik_raft_event e) {
    unsigned sends = 0;
    ck_assert_int_eq(chronik_raft_step(h->raft, &e, &fx), 0);
    for (unsigned i = 0; i < fx.count; i++) {
        const chronik_raft_effect *x = &fx.effect[i];
        sends += x->type == CHRONIK_RAFT_DO_SEND;
        if (x->type <= CHRONIK_RAFT_DO_REPAIRED) h->lsn = x->lsn;
        if (x->type == CHRONIK_RAFT_DO_COMMIT) h->commit = x->index;
        for (uint32_t k = 0; x->type == CHRONIK_RAFT_DO_APPEND && k < x->count; k++)
            put_in_log(h, x->index + k, (item){x->term, 10, -1});
    }
    return sends;
}

static unsigned raw_from(host *h, chronik_raft_message_type type, unsigned from, uint64_t index, uint32_t round) {
    chronik_raft_message m = {
        .type = (uint8_t)type, .from = from, .to = 1, .term = status(h).term, .index = index, .round = round};
    if (type == CHRONIK_RAFT_PREVOTE_REPLY) m.term++;
    return raw(h, (chronik_raft_event){.type = CHRONIK_RAFT_MESSAGE, .message = &m});
}

START_TEST(test_thirty_members) {
    static uint64_t memory[400];
    group(1);
    host *h = &hosts[1];
    settings.sleep_ticks = 30;
    settings.message_bytes_max = 10; /* many messages */
    settings.window_bytes_max = 1000;
    chronik_raft_config big = {.voter_count = 15, .learner_count = 15};
    for (unsigned i = 0; i < 15; i++) big.voters[i] = i + 1, big.learners[i] = i + 16;
    chronik_raft_options o = CHRONIK_RAFT_OPTIONS_INIT;
    o.self = 1, o.settings = &settings, o.config = &big, o.config_index = 1, o.last_index = 1, o.term = 1, o.arg = h;
    ck_assert_uint_le(chronik_raft_size(CHRONIK_RAFT_MEMBERS_MAX), sizeof memory);
    ck_assert_int_eq(chronik_raft_init(memory, sizeof memory, &o, NULL, &h->raft), 0);
    ck_assert_uint_eq(raw(h, (chronik_raft_event){.type = CHRONIK_RAFT_CAMPAIGN}), 14);
    for (unsigned i = 2; i <= 8; i++) raw_from(h, CHRONIK_RAFT_PREVOTE_REPLY, i, 0, 0);
    for (unsigned i = 2; i <= 8; i++) raw_from(h, CHRONIK_RAFT_VOTE_REPLY, i, 0, 0);
    ck_assert(leads(h));
    ck_assert_uint_eq(raw(h, (chronik_raft_event){.type = CHRONIK_RAFT_FLUSH}), 29);
    raw(h, (chronik_raft_event){.type = CHRONIK_RAFT_DURABLE, .lsn = h->lsn});
    for (unsigned i = 2; i <= 30; i++) raw_from(h, CHRONIK_RAFT_APPEND_REPLY, i, 2, 0);
    ck_assert_uint_eq(h->commit, 2);
    raw(h, (chronik_raft_event){.type = CHRONIK_RAFT_PROPOSE, .count = 60});
    raw(h, (chronik_raft_event){.type = CHRONIK_RAFT_DURABLE, .lsn = h->lsn});
    ck_assert_uint_ge(raw(h, (chronik_raft_event){.type = CHRONIK_RAFT_FLUSH}), 80); /* as many as there is room for */
    for (int round = 0; round < 60 && h->commit < h->last; round++) {
        raw(h, (chronik_raft_event){.type = CHRONIK_RAFT_TICK, .now = ++h->now});
        raw(h, (chronik_raft_event){.type = CHRONIK_RAFT_READ});
        raw(h, (chronik_raft_event){.type = CHRONIK_RAFT_READ});
        for (unsigned i = 2; i <= 30; i++) {
            chronik_raft_peer p;
            chronik_raft_peer_get(h->raft, i, &p);
            bool more = p.probing && p.next_index <= h->last; /* a probe brings an entry */
            raw_from(h, CHRONIK_RAFT_APPEND_REPLY, i, p.next_index - !more, 0);
            for (uint32_t r = 0; r < 3; r++) /* whichever it waits for */
                raw_from(h, CHRONIK_RAFT_HEARTBEAT_REPLY, i, p.next_index - 1, 2 * (uint32_t)round + r);
        }
    }
    ck_assert_uint_eq(h->commit, h->last);
    for (unsigned n = 0; n < 100; n++) raw(h, (chronik_raft_event){.type = CHRONIK_RAFT_TICK, .now = ++h->now});
    ck_assert(!leads(h)); /* nobody has answered */
}
END_TEST

/* ---- anything -------------------------------------------------------------------------------------------------- */

/* Messages that nobody would send, in any state, are survived: an error or an answer. */
START_TEST(test_any_message) {
    cnk_rng rng;
    for (uint64_t seed = 1; seed <= 300; seed++) {
        group(3);
        settings.sleep_ticks = seed % 3 ? 0 : 20;
        cnk_rng_seed(&rng, seed);
        configs[config_count++] = (chronik_raft_config){
            .old_count = 1, .voter_count = 2, .old = {1}, .voters = {2, 3}, .learner_count = 1, .learners = {4}};
        if (seed % 2) elect(&hosts[1]);
        for (int n = 0; n < 400; n++) {
            host *h = &hosts[1 + cnk_rng_below(&rng, 3)];
            mail x = letter((chronik_raft_message_type)cnk_rng_below(&rng, 12), (unsigned)cnk_rng_below(&rng, 6),
                            (unsigned)h->id, (uint32_t)cnk_rng_below(&rng, 9));
            x.m.flags = (uint8_t)cnk_rng_below(&rng, 32);
            x.m.index = cnk_rng_below(&rng, 12);
            x.m.commit = cnk_rng_below(&rng, 12);
            x.m.hint = cnk_rng_below(&rng, 12);
            x.m.log_term = (uint32_t)cnk_rng_below(&rng, 6);
            x.m.round = (uint32_t)cnk_rng_below(&rng, 4);
            x.m.count = x.m.type == CHRONIK_RAFT_APPEND ? (uint32_t)cnk_rng_below(&rng, 5) : 0;
            uint32_t term = x.m.log_term;
            for (uint32_t i = 0; i < x.m.count; i++) {
                term += (uint32_t)cnk_rng_below(&rng, 2);
                x.items[i] = (item){term, 10, cnk_rng_chance(&rng, 1, 8) ? (int)cnk_rng_below(&rng, 2) : -1};
            }
            x.config = (int)cnk_rng_below(&rng, 2);
            if (config_count > 50 || h->last > LOG - 50) break;
            (void)receive(h, &x);
            sync_host(h);
            post_count = 0;
            h->held_count = 0;
            if (cnk_rng_chance(&rng, 1, 4)) tick(h, 1 + (uint32_t)cnk_rng_below(&rng, 12));
            if (cnk_rng_chance(&rng, 1, 6)) (void)propose(h, 1);
            chronik_raft_status s = status(h);
            ck_assert_uint_le(s.commit_index, s.last_index);
            ck_assert_uint_le(s.durable_index, s.last_index);
            ck_assert_uint_eq(s.last_index, h->last);
        }
    }
}
END_TEST

int main(void) {
    Suite *s = suite_create("raft groups");
    TCase *t = tcase_create("configurations");
    tcase_add_test(t, test_a_change_goes_by_way_of_both);
    tcase_add_test(t, test_agreement_needs_both_majorities);
    tcase_add_test(t, test_no_change_before_the_term_has_committed);
    tcase_add_test(t, test_a_truncated_configuration_is_taken_back);
    tcase_add_test(t, test_a_leader_removes_itself);
    tcase_add_test(t, test_a_removed_member_leads_until_that_is_committed);
    tcase_add_test(t, test_a_new_leader_leaves_a_joint_configuration);
    tcase_add_test(t, test_a_dead_voter_is_swapped_while_one_more_is_down);
    tcase_add_test(t, test_learners_learn_and_count_for_nothing);
    tcase_add_test(t, test_a_voter_becomes_a_learner);
    tcase_add_test(t, test_more_members_than_room);
    suite_add_tcase(s, t);
    t = tcase_create("snapshots, transfer, reads");
    tcase_add_test(t, test_a_member_that_is_too_far_behind_gets_a_snapshot);
    tcase_add_test(t, test_a_snapshot_that_the_log_agrees_with_keeps_the_log);
    tcase_add_test(t, test_leadership_is_handed_over);
    tcase_add_test(t, test_a_transfer_that_fails_ends);
    tcase_add_test(t, test_a_read_waits_for_a_majority);
    tcase_add_test(t, test_a_cut_off_leader_serves_no_read);
    tcase_add_test(t, test_a_new_leader_reads_after_its_first_commit);
    suite_add_tcase(s, t);
    t = tcase_create("sleep");
    tcase_add_test(t, test_an_idle_group_sleeps_and_costs_nothing);
    tcase_add_test(t, test_nobody_sleeps_while_one_lags);
    tcase_add_test(t, test_a_proposal_while_falling_asleep);
    tcase_add_test(t, test_a_sleeping_group_survives_its_leader);
    tcase_add_test(t, test_a_member_wakes_the_others);
    tcase_add_test(t, test_a_lost_leader_wakes_the_others);
    tcase_add_test(t, test_nobody_would_vote_for_a_lost_replica);
    suite_add_tcase(s, t);
    t = tcase_create("anything");
    tcase_add_test(t, test_thirty_members);
    tcase_set_timeout(t, 120);
    tcase_add_test(t, test_any_message);
    suite_add_tcase(s, t);
    SRunner *r = srunner_create(s);
    srunner_run_all(r, CK_NORMAL);
    int failed = srunner_ntests_failed(r);
    srunner_free(r);
    return failed ? 1 : 0;
}
