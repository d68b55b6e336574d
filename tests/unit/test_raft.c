/* Raft rule by rule: elections, replication, commit, crashes. Each row of the list of what other systems got wrong is a
 * test of its own here (first suite). Configurations, snapshots, reads and sleep: test_raft_group.c. */
#include "raft_host.h"

/* ---- what other systems got wrong ------------------------------------------------------------------------------ */

/* Figure 8 of the Raft paper: an entry of an old term that is on a majority is not committed by that alone. */
START_TEST(test_old_term_entries_are_not_committed_by_counting) {
    group(5);
    elect(&hosts[1]);
    for (unsigned i = 3; i <= 5; i++) cut[1][i] = true;
    propose(&hosts[1], 1); /* reaches 2 alone */
    settle();
    uint64_t old = hosts[1].last, commit = hosts[1].commit;
    ck_assert_uint_eq(hosts[2].last, old);
    ck_assert_uint_eq(hosts[3].last, old - 1);
    memset(cut, 0, sizeof cut);
    settings.message_bytes_max = 1; /* each entry on its own */
    tick(&hosts[1], 1);
    post_count = 0;
    /* 1 is deposed, and elected again. */
    mail x = letter(CHRONIK_RAFT_APPEND_REPLY, 2, 1, status(&hosts[1]).term + 1);
    x.m.flags = CHRONIK_RAFT_REFUSED;
    ck_assert_int_eq(receive(&hosts[1], &x), 0);
    forget_leader();
    step(&hosts[1], (chronik_raft_event){.type = CHRONIK_RAFT_CAMPAIGN});
    for (int n = 0; n < 40 && !(hosts[3].last >= old && hosts[4].last >= old && hosts[5].last >= old); n++) {
        for (unsigned i = 1; i <= 5; i++) sync_host(&hosts[i]);
        for (unsigned i = 0; i < post_count;) { /* of the new term's own entry nothing arrives */
            bool own = post[i].m.type == CHRONIK_RAFT_APPEND && post[i].m.count > 0 && post[i].m.index >= old &&
                       hosts[post[i].m.to].last >= old;
            if (own) post[i] = post[--post_count];
            else i++;
        }
        deliver();
        if (n % 5 == 4) tick(&hosts[1], 2);
        ck_assert_uint_eq(hosts[1].commit, commit);
    }
    ck_assert_uint_ge(hosts[3].last, old);
    ck_assert_uint_eq(hosts[1].commit, commit);
    for (int n = 0; n < 10; n++) tick(&hosts[1], 1), settle(); /* with it, both are */
    ck_assert_uint_eq(hosts[1].commit, hosts[1].last);
}
END_TEST

START_TEST(test_commit_advances_under_continuous_load) {
    group(3);
    elect(&hosts[1]);
    uint64_t from = hosts[1].commit;
    for (int n = 0; n < 100; n++) { /* never is everything acknowledged */
        propose(&hosts[1], 2);
        deliver();
        propose(&hosts[1], 2);
        for (unsigned i = 1; i <= 3; i++) sync_host(&hosts[i]);
        propose(&hosts[1], 1);
        ck_assert_uint_gt(hosts[1].last, hosts[1].commit);
    }
    ck_assert_uint_gt(hosts[1].commit, from + 400);
}
END_TEST

START_TEST(test_acks_of_an_old_term_do_not_count) {
    group(3);
    elect(&hosts[1]);
    uint32_t term = status(&hosts[1]).term;
    isolate(&hosts[3], true);
    propose(&hosts[1], 1);
    settle();
    post_count = 0;
    mail ack = letter(CHRONIK_RAFT_APPEND_REPLY, 3, 1, term), newer = ack;
    newer.m.term = term + 1, newer.m.flags = CHRONIK_RAFT_REFUSED;
    receive(&hosts[1], &newer);
    isolate(&hosts[3], false);
    forget_leader();
    step(&hosts[1], (chronik_raft_event){.type = CHRONIK_RAFT_CAMPAIGN});
    settle();
    ck_assert(leads(&hosts[1]));
    isolate(&hosts[1], true);
    propose(&hosts[1], 1);
    settle();
    ack.m.index = hosts[1].last; /* what it acknowledged in its old term is another entry */
    uint64_t commit = hosts[1].commit;
    receive(&hosts[1], &ack);
    ck_assert_uint_eq(hosts[1].commit, commit);
    ack.m.term = status(&hosts[1]).term;
    receive(&hosts[1], &ack);
    ck_assert_uint_eq(hosts[1].commit, ack.m.index);
}
END_TEST

/* Votes and requests for them leave when term, vote and the log that was compared are durable. */
START_TEST(test_elections_count_durable_state_only) {
    group(3);
    step(&hosts[1], (chronik_raft_event){.type = CHRONIK_RAFT_CAMPAIGN});
    deliver(), deliver(); /* pre-votes */
    ck_assert_int_eq(status(&hosts[1]).role, CHRONIK_RAFT_ROLE_CANDIDATE);
    ck_assert_uint_eq(post_count, 0); /* its own vote is not synced */
    sync_host(&hosts[1]);
    ck_assert_ptr_nonnull(newest(CHRONIK_RAFT_VOTE, 2));
    deliver();
    ck_assert_uint_eq(post_count, 0); /* nor are theirs */
    ck_assert(!leads(&hosts[1]));
    sync_up_to(&hosts[2], 1); /* the term, not yet the vote */
    ck_assert_uint_eq(post_count, 0);
    sync_host(&hosts[2]);
    deliver();
    ck_assert(leads(&hosts[1]));
}
END_TEST

/* A voter compares entries that are not synced yet as well, since its acknowledgement of them may follow. */
START_TEST(test_a_vote_compares_the_whole_log) {
    group(3);
    elect(&hosts[1]);
    isolate(&hosts[3], true);
    propose(&hosts[1], 1);
    deliver(); /* 2 has it, unsynced */
    ck_assert_uint_eq(hosts[2].last, hosts[1].last);
    isolate(&hosts[1], true);
    isolate(&hosts[3], false);
    post_count = 0;
    mail x = letter(CHRONIK_RAFT_VOTE, 3, 2, status(&hosts[1]).term + 1);
    x.m.index = hosts[3].last, x.m.log_term = hosts[3].log[hosts[3].last].term, x.m.flags = CHRONIK_RAFT_HANDOVER;
    receive(&hosts[2], &x);
    sync_host(&hosts[2]);
    const mail *reply = newest(CHRONIK_RAFT_VOTE_REPLY, 3);
    ck_assert_ptr_nonnull(reply);
    ck_assert(reply->m.flags & CHRONIK_RAFT_REFUSED);
}
END_TEST

START_TEST(test_a_failed_disk_steps_down) {
    group(3);
    elect(&hosts[1]);
    propose(&hosts[1], 1);
    ck_assert_int_eq(step(&hosts[1], (chronik_raft_event){.type = CHRONIK_RAFT_DISK_FAILED}), 0);
    ck_assert_int_eq(status(&hosts[1]).role, CHRONIK_RAFT_ROLE_FAILED);
    ck_assert_int_eq(propose(&hosts[1], 1), CHRONIK_EFENCED);
    mail x = letter(CHRONIK_RAFT_VOTE, 2, 1, 9);
    ck_assert_int_eq(receive(&hosts[1], &x), CHRONIK_EFENCED);
    hosts[1].up = false;
    post_count = 0;
    for (int n = 0; n < 40 && !leads(&hosts[2]) && !leads(&hosts[3]); n++)
        tick(&hosts[2], 1), tick(&hosts[3], 1), settle();
    ck_assert(leads(&hosts[2]) || leads(&hosts[3]));
}
END_TEST

START_TEST(test_every_message_is_limited_in_bytes) {
    group(3);
    elect(&hosts[1]);
    settings.message_bytes_max = 100;
    settings.window_bytes_max = 300;
    isolate(&hosts[3], true);
    for (int n = 0; n < 40; n++) propose(&hosts[1], 5), settle();
    isolate(&hosts[3], false);
    unsigned appends = 0;
    for (int n = 0; n < 400 && hosts[3].last < hosts[1].last; n++) {
        uint64_t on_their_way = 0;
        for (unsigned i = 0; i < post_count; i++) {
            const mail *x = &post[i];
            if (x->m.type != CHRONIK_RAFT_APPEND) continue;
            ck_assert_uint_le(x->m.count, 10); /* probes too: 10 entries of 10 bytes */
            if (x->m.to == 3) on_their_way += x->m.count, appends++;
        }
        ck_assert_uint_le(on_their_way, 40); /* the window, and a message */
        deliver();
        for (unsigned i = 1; i <= 3; i++) sync_host(&hosts[i]);
        if (post_count == 0) tick(&hosts[1], 2);
    }
    ck_assert_uint_eq(hosts[3].last, hosts[1].last);
    ck_assert_uint_ge(appends, 20);
    item_bytes = 1000; /* one that is larger than the limit goes alone */
    propose(&hosts[1], 2);
    for (unsigned i = 0; i < post_count; i++) ck_assert_uint_le(post[i].m.count, 1);
    settle();
    ck_assert_uint_eq(hosts[2].last, hosts[1].last);
}
END_TEST

START_TEST(test_a_lost_replica_cannot_vote_until_repaired) {
    group(3);
    elect(&hosts[1]);
    isolate(&hosts[3], true);
    propose(&hosts[1], 3);
    settle();
    uint64_t commit = hosts[1].commit; /* on 1 and 2 alone */
    crash(&hosts[2], 2);               /* and 2 loses it, though it was synced */
    post_count = 0;
    start(&hosts[2], true);
    ck_assert(status(&hosts[2]).lost);
    isolate(&hosts[3], false);
    isolate(&hosts[1], true);
    for (int n = 0; n < 100; n++) { /* 3 never wins with the vote of 2, nor does 2 stand */
        tick(&hosts[2], 1), tick(&hosts[3], 1), settle();
        ck_assert(!leads(&hosts[3]) && status(&hosts[2]).role == CHRONIK_RAFT_ROLE_FOLLOWER);
    }
    ck_assert_uint_gt(status(&hosts[2]).term, 2); /* a term in which nobody counts what it acknowledged */
    isolate(&hosts[1], false);
    for (int n = 0; n < 200 && status(&hosts[2]).lost; n++)
        for (unsigned i = 1; i <= 3; i++) tick(&hosts[i], 1), settle();
    ck_assert(!status(&hosts[2]).lost);
    ck_assert_uint_eq(hosts[2].repaired, 1);
    ck_assert_uint_ge(hosts[2].last, commit);
    isolate(&hosts[1], true); /* now it votes */
    for (int n = 0; n < 200 && !leads(&hosts[3]) && !leads(&hosts[2]); n++)
        tick(&hosts[2], 1), tick(&hosts[3], 1), settle();
    ck_assert(leads(&hosts[3]) || leads(&hosts[2]));
    ck_assert_uint_ge((leads(&hosts[3]) ? &hosts[3] : &hosts[2])->commit, commit);
}
END_TEST

START_TEST(test_a_lost_replica_does_not_count) {
    group(3);
    crash(&hosts[2], 1);
    start(&hosts[2], true);
    isolate(&hosts[3], true);
    for (int n = 0; n < 60; n++) tick(&hosts[1], 1), tick(&hosts[2], 1), settle();
    ck_assert(!leads(&hosts[1])); /* there is no majority without 3 */
    isolate(&hosts[3], false);
    for (int n = 0; n < 60 && !leads(&hosts[1]); n++) tick(&hosts[1], 1), settle();
    ck_assert(leads(&hosts[1]));
    crash(&hosts[2], hosts[2].last);
    start(&hosts[2], true);
    for (int n = 0; n < 60 && !(leads(&hosts[1]) && status(&hosts[1]).term == status(&hosts[2]).term); n++) {
        tick(&hosts[1], 1);
        for (unsigned i = 1; i <= 3; i++) sync_host(&hosts[i]);
        deliver();
    }
    ck_assert(leads(&hosts[1]));
}
END_TEST

/* ---- elections ------------------------------------------------------------------------------------------------- */

START_TEST(test_a_leader_is_elected_by_timeout) {
    group(3);
    for (int n = 0; n < 25 && !leads(&hosts[1]) && !leads(&hosts[2]) && !leads(&hosts[3]); n++)
        for (unsigned i = 1; i <= 3; i++) tick(&hosts[i], 1), settle();
    unsigned leaders = 0;
    for (unsigned i = 1; i <= 3; i++) leaders += leads(&hosts[i]);
    ck_assert_uint_eq(leaders, 1);
    for (unsigned i = 1; i <= 3; i++) ck_assert_uint_eq(hosts[i].commit, 2); /* its first entry, and what was before */
}
END_TEST

START_TEST(test_one_vote_in_a_term) {
    group(3);
    mail x = letter(CHRONIK_RAFT_VOTE, 1, 3, 5), y = letter(CHRONIK_RAFT_VOTE, 2, 3, 5);
    x.m.index = y.m.index = 1, x.m.log_term = y.m.log_term = 1;
    receive(&hosts[3], &x);
    receive(&hosts[3], &y);
    receive(&hosts[3], &x); /* it asks again */
    sync_host(&hosts[3]);
    ck_assert_uint_eq(post_count, 3);
    ck_assert(!(post[0].m.flags & CHRONIK_RAFT_REFUSED));
    ck_assert(post[1].m.flags & CHRONIK_RAFT_REFUSED);
    ck_assert(!(post[2].m.flags & CHRONIK_RAFT_REFUSED));
    crash(&hosts[3], 1); /* nor after a crash */
    start(&hosts[3], false);
    post_count = 0;
    receive(&hosts[3], &y);
    sync_host(&hosts[3]);
    ck_assert(post[0].m.flags & CHRONIK_RAFT_REFUSED);
}
END_TEST

START_TEST(test_no_vote_for_a_shorter_or_older_log) {
    static const struct { uint64_t index; uint32_t term; bool yes; } rows[] = {
        {3, 2, true}, {4, 2, true}, {2, 2, false}, {9, 1, false}, {1, 3, true}};
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        group(3);
        hosts[3].log[2] = hosts[3].log[3] = (item){2, 10, -1};
        hosts[3].last = 3;
        start(&hosts[3], false);
        mail x = letter(CHRONIK_RAFT_VOTE, 1, 3, 5);
        x.m.index = rows[i].index, x.m.log_term = rows[i].term;
        receive(&hosts[3], &x);
        sync_host(&hosts[3]);
        ck_assert_int_eq(!(post[0].m.flags & CHRONIK_RAFT_REFUSED), rows[i].yes);
    }
}
END_TEST

/* Section 9.6: a member that was cut off comes back without a new term. */
START_TEST(test_prevote_keeps_the_term) {
    group(3);
    elect(&hosts[1]);
    uint32_t term = status(&hosts[1]).term;
    isolate(&hosts[3], true);
    tick(&hosts[3], 200);
    ck_assert_uint_eq(status(&hosts[3]).term, term);
    isolate(&hosts[3], false);
    tick(&hosts[3], 20);
    settle();
    ck_assert(leads(&hosts[1]));
    ck_assert_uint_eq(status(&hosts[1]).term, term);
    tick(&hosts[1], 2);
    settle();
    ck_assert_uint_eq(status(&hosts[3]).leader, 1);
}
END_TEST

/* Section 4.2.3: whoever hears from a leader ignores a request of a higher term; but not one that the leader wants. */
START_TEST(test_a_live_leader_is_not_disturbed) {
    group(3);
    elect(&hosts[1]);
    uint32_t term = status(&hosts[2]).term;
    mail x = letter(CHRONIK_RAFT_VOTE, 3, 2, term + 5);
    x.m.index = 100, x.m.log_term = term;
    receive(&hosts[2], &x);
    receive(
        &hosts[1],
        &(mail){
            .m = {.type = CHRONIK_RAFT_VOTE, .from = 3, .to = 1, .term = term + 5, .index = 100, .log_term = term}});
    ck_assert_uint_eq(status(&hosts[2]).term, term);
    ck_assert(leads(&hosts[1]));
    x.m.flags = CHRONIK_RAFT_HANDOVER;
    receive(&hosts[2], &x);
    ck_assert_uint_eq(status(&hosts[2]).term, term + 5);
}
END_TEST

START_TEST(test_a_leader_without_a_quorum_steps_down) {
    group(3);
    elect(&hosts[1]);
    isolate(&hosts[1], true);
    tick(&hosts[1], 25);
    ck_assert(!leads(&hosts[1]));
    ck_assert_int_eq(propose(&hosts[1], 1), CHRONIK_ENOTLEADER);
}
END_TEST

/* R12: heartbeats are answered, but no disk syncs: somebody else may try. Not while acknowledgements come. */
START_TEST(test_a_leader_without_progress_steps_down) {
    group(3);
    elect(&hosts[1]);
    propose(&hosts[1], 1);
    for (int n = 0; n < 60; n++) tick(&hosts[1], 1), deliver(); /* nothing is synced anywhere */
    ck_assert(!leads(&hosts[1]));
    /* A long log of old terms that a follower catches up with entry by entry. */
    group(3);
    for (uint64_t i = 2; i <= 150; i++) put_in_log(&hosts[1], i, (item){1, 10, -1});
    start(&hosts[1], false);
    settings.message_bytes_max = settings.window_bytes_max = 1;
    isolate(&hosts[3], true);
    step(&hosts[1], (chronik_raft_event){.type = CHRONIK_RAFT_CAMPAIGN});
    for (int n = 0; n < 4; n++) {
        for (unsigned i = 1; i <= 2; i++) sync_host(&hosts[i]);
        deliver();
    }
    for (int n = 0; n < 100; n++) { /* ten election timeouts */
        tick(&hosts[1], 1);
        for (unsigned i = 1; i <= 2; i++) sync_host(&hosts[i]);
        deliver();
        ck_assert(leads(&hosts[1]));
    }
    ck_assert_uint_lt(hosts[1].commit, hosts[1].last);
    for (int n = 0; n < 400; n++) {
        tick(&hosts[1], 1);
        for (unsigned i = 1; i <= 2; i++) sync_host(&hosts[i]);
        deliver();
    }
    ck_assert_uint_eq(hosts[1].commit, hosts[1].last);
}
END_TEST

START_TEST(test_a_higher_term_deposes) {
    group(3);
    elect(&hosts[1]);
    mail x = letter(CHRONIK_RAFT_HEARTBEAT_REPLY, 2, 1, 40);
    x.m.flags = CHRONIK_RAFT_REFUSED;
    receive(&hosts[1], &x);
    ck_assert(!leads(&hosts[1]));
    ck_assert_uint_eq(status(&hosts[1]).term, 40);
    /* And a leader of the past is told. */
    x = letter(CHRONIK_RAFT_APPEND, 2, 1, 3);
    post_count = 0;
    receive(&hosts[1], &x);
    sync_host(&hosts[1]);
    ck_assert_ptr_nonnull(newest(CHRONIK_RAFT_APPEND_REPLY, 2));
    ck_assert_uint_eq(newest(CHRONIK_RAFT_APPEND_REPLY, 2)->m.term, 40);
}
END_TEST

/* A sole voter leads at once, and says nothing before its vote is durable. */
START_TEST(test_a_group_of_one) {
    group(1);
    step(&hosts[1], (chronik_raft_event){.type = CHRONIK_RAFT_CAMPAIGN});
    ck_assert(leads(&hosts[1]));
    ck_assert_int_eq(propose(&hosts[1], 3), 0);
    ck_assert_uint_eq(hosts[1].commit, 0);
    sync_up_to(&hosts[1], 1); /* the vote: nothing of its term is durable yet, and so nothing is committed */
    ck_assert_uint_eq(hosts[1].commit, 0);
    sync_up_to(&hosts[1], 3);
    ck_assert_uint_eq(hosts[1].commit, 3);
    sync_host(&hosts[1]);
    ck_assert_uint_eq(hosts[1].commit, 5);
    ck_assert_int_eq(configure(&hosts[1], "1", "2"), 0);
    sync_host(&hosts[1]);
    crash(&hosts[1], hosts[1].last);
    start(&hosts[1], false);
    post_count = 0;
    step(&hosts[1], (chronik_raft_event){.type = CHRONIK_RAFT_CAMPAIGN});
    ck_assert(leads(&hosts[1]));
    ck_assert_uint_eq(post_count, 0); /* the learner hears of the term when the vote is durable */
    sync_up_to(&hosts[1], 1);
    ck_assert_uint_gt(post_count, 0);
}
END_TEST

/* ---- replication ----------------------------------------------------------------------------------------------- */

START_TEST(test_a_leader_counts_its_own_entries_when_durable) {
    group(3);
    elect(&hosts[1]);
    isolate(&hosts[3], true);
    uint64_t commit = hosts[1].commit;
    propose(&hosts[1], 1);
    deliver(), sync_host(&hosts[2]), deliver();
    ck_assert_uint_eq(hosts[1].commit, commit); /* on 2 alone */
    sync_host(&hosts[1]);
    ck_assert_uint_eq(hosts[1].commit, commit + 1);
    /* And without its own, when the others have it. */
    isolate(&hosts[3], false);
    tick(&hosts[1], 4), settle(), tick(&hosts[1], 4), settle();
    propose(&hosts[1], 1);
    deliver(), sync_host(&hosts[2]), sync_host(&hosts[3]), deliver();
    ck_assert_uint_eq(hosts[1].commit, commit + 2);
    ck_assert_uint_lt(status(&hosts[1]).durable_index, commit + 2);
}
END_TEST

START_TEST(test_an_acknowledgement_waits_for_its_sync) {
    group(3);
    elect(&hosts[1]);
    propose(&hosts[1], 2);
    deliver();
    ck_assert_ptr_null(newest(CHRONIK_RAFT_APPEND_REPLY, 1));
    sync_up_to(&hosts[2], hosts[2].lsn - 1); /* one of two */
    ck_assert_ptr_null(newest(CHRONIK_RAFT_APPEND_REPLY, 1));
    sync_host(&hosts[2]);
    ck_assert_ptr_nonnull(newest(CHRONIK_RAFT_APPEND_REPLY, 1));
}
END_TEST

/* Two logs that differ come together (figure 3.6). */
START_TEST(test_diverged_logs_come_together) {
    static const uint32_t leader[] = {1, 1, 1, 4, 4, 5, 5, 6, 6, 6};
    static const uint32_t others[][12] = {{1, 1, 1, 4, 4, 5, 5, 6, 6},       {1, 1, 1, 4},
                                          {1, 1, 1, 4, 4, 5, 5, 6, 6, 6, 6}, {1, 1, 1, 4, 4, 5, 5, 6, 6, 6, 7, 7},
                                          {1, 1, 1, 4, 4, 4, 4},             {1, 1, 1, 2, 2, 2, 3, 3, 3, 3, 3}};
    for (size_t k = 0; k < sizeof others / sizeof *others; k++) {
        group(3);
        for (uint64_t i = 0; i < 10; i++)
            for (unsigned h = 1; h <= 2; h++)
                put_in_log(&hosts[h], i + 2, (item){leader[i], 10, -1}), hosts[h].term = 7;
        for (uint64_t i = 0; i < 12 && others[k][i]; i++) put_in_log(&hosts[3], i + 2, (item){others[k][i], 10, -1});
        hosts[3].term = 7;
        for (unsigned h = 1; h <= 3; h++) start(&hosts[h], false);
        isolate(&hosts[3], true);
        elect(&hosts[1]);
        isolate(&hosts[3], false);
        for (int n = 0; n < 10; n++) tick(&hosts[1], 2), settle();
        ck_assert_uint_eq(hosts[3].last, hosts[1].last);
        for (uint64_t i = 1; i <= hosts[1].last; i++) ck_assert_uint_eq(hosts[3].log[i].term, hosts[1].log[i].term);
        ck_assert_uint_eq(hosts[3].commit, hosts[1].commit);
    }
}
END_TEST

START_TEST(test_an_old_append_truncates_nothing) {
    group(3);
    elect(&hosts[1]);
    propose(&hosts[1], 1);
    mail old = *newest(CHRONIK_RAFT_APPEND, 2);
    settle();
    propose(&hosts[1], 5);
    settle();
    uint64_t last = hosts[2].last;
    ck_assert_int_eq(receive(&hosts[2], &old), 0);
    ck_assert_uint_eq(hosts[2].last, last);
    ck_assert_uint_eq(hosts[2].truncated, 0);
    sync_host(&hosts[2]);
    ck_assert_uint_eq(newest(CHRONIK_RAFT_APPEND_REPLY, 1)->m.index,
                      old.m.index + old.m.count); /* and no more than it said */
}
END_TEST

/* R3: a heartbeat that has overtaken the appends commits nothing that is not known to be the leader's. */
START_TEST(test_a_heartbeat_commits_verified_entries_only) {
    group(3);
    for (uint64_t i = 2; i <= 5; i++) put_in_log(&hosts[3], i, (item){2, 10, -1}); /* of a leader that is gone */
    hosts[3].term = 2;
    start(&hosts[3], false);
    mail x = letter(CHRONIK_RAFT_HEARTBEAT, 1, 3, 3);
    x.m.commit = 5;
    ck_assert_int_eq(receive(&hosts[3], &x), 0);
    ck_assert_uint_eq(hosts[3].commit, 0);
    mail a = letter(CHRONIK_RAFT_APPEND, 1, 3, 3);
    a.m.index = 1, a.m.log_term = 1, a.m.count = 1, a.m.commit = 5;
    a.items[0] = (item){3, 10, -1};
    ck_assert_int_eq(receive(&hosts[3], &a), 0);
    ck_assert_uint_eq(hosts[3].last, 2);
    ck_assert_uint_eq(hosts[3].commit, 2);
    /* And a leader's tells a member no more than it has acknowledged. */
    group(3);
    elect(&hosts[1]);
    isolate(&hosts[3], true);
    propose(&hosts[1], 4);
    settle();
    isolate(&hosts[3], false);
    tick(&hosts[1], 2);
    const mail *h = newest(CHRONIK_RAFT_HEARTBEAT, 3);
    ck_assert_ptr_nonnull(h);
    ck_assert_uint_eq(h->m.commit, 2);
}
END_TEST

START_TEST(test_committed_entries_are_never_replaced) {
    group(3);
    elect(&hosts[1]);
    propose(&hosts[1], 3);
    settle();
    mail a = letter(CHRONIK_RAFT_APPEND, 3, 2, 9);
    a.m.index = 2, a.m.log_term = hosts[2].log[2].term, a.m.count = 1;
    a.items[0] = (item){9, 10, -1};
    uint32_t term = status(&hosts[2]).term;
    ck_assert_int_eq(receive(&hosts[2], &a), CHRONIK_ECORRUPT);
    ck_assert_uint_eq(status(&hosts[2]).term, term);
    ck_assert_uint_eq(hosts[2].truncated, 0);
}
END_TEST

/* Durable is what is durable: not an index that a truncation has given to another entry. */
START_TEST(test_durable_after_a_truncation) {
    group(3);
    for (uint64_t i = 2; i <= 6; i++) put_in_log(&hosts[3], i, (item){2, 10, -1});
    hosts[3].term = 2;
    start(&hosts[3], false);
    ck_assert_uint_eq(status(&hosts[3]).durable_index, 6);
    mail a = letter(CHRONIK_RAFT_APPEND, 1, 3, 3);
    a.m.index = 2, a.m.log_term = 2, a.m.count = 6;
    for (int i = 0; i < 6; i++) a.items[i] = (item){3, 10, -1};
    receive(&hosts[3], &a);
    ck_assert_uint_eq(status(&hosts[3]).durable_index, 2);
    sync_up_to(&hosts[3], 1); /* the term */
    ck_assert_uint_eq(status(&hosts[3]).durable_index, 2);
    sync_up_to(&hosts[3], 4); /* the truncation, and two entries */
    ck_assert_uint_eq(status(&hosts[3]).durable_index, 4);
    sync_host(&hosts[3]);
    ck_assert_uint_eq(status(&hosts[3]).durable_index, 8);
}
END_TEST

START_TEST(test_lost_messages_are_sent_again) {
    group(3);
    elect(&hosts[1]);
    propose(&hosts[1], 3);
    post_count = 0; /* appends */
    for (int n = 0; n < 6; n++) tick(&hosts[1], 2), settle();
    ck_assert_uint_eq(hosts[3].last, hosts[1].last);
    propose(&hosts[1], 3);
    deliver(), sync_host(&hosts[2]), sync_host(&hosts[3]);
    post_count = 0; /* answers */
    unsigned before = hosts[3].appended;
    for (int n = 0; n < 6; n++) tick(&hosts[1], 2), settle();
    ck_assert_uint_eq(hosts[1].commit, hosts[1].last);
    ck_assert_uint_eq(hosts[3].appended, before);
    step(&hosts[1], (chronik_raft_event){.type = CHRONIK_RAFT_UNREACHABLE, .peer = 3});
    chronik_raft_peer p;
    ck_assert_int_eq(chronik_raft_peer_get(hosts[1].raft, 3, &p), 0);
    ck_assert(p.probing);
    tick(&hosts[1], 2), settle();
    chronik_raft_peer_get(hosts[1].raft, 3, &p);
    ck_assert(!p.probing);
}
END_TEST

/* R8: the commit index is told at once when the pipe is idle. */
START_TEST(test_the_commit_index_is_told_at_once) {
    group(3);
    elect(&hosts[1]);
    propose(&hosts[1], 1);
    settle(); /* no tick */
    for (unsigned i = 1; i <= 3; i++) ck_assert_uint_eq(hosts[i].commit, hosts[1].last);
}
END_TEST

/* ---- the door -------------------------------------------------------------------------------------------------- */

START_TEST(test_what_no_member_sends_is_refused) {
    group(3);
    elect(&hosts[1]);
    uint32_t term = status(&hosts[1]).term;
    mail x = letter(CHRONIK_RAFT_HEARTBEAT, 2, 1, term); /* a second leader in the term */
    ck_assert_int_eq(receive(&hosts[1], &x), CHRONIK_EPROTO);
    x = letter(CHRONIK_RAFT_HEARTBEAT, 3, 2, term);
    ck_assert_int_eq(receive(&hosts[2], &x), CHRONIK_EPROTO);
    x = letter(CHRONIK_RAFT_HEARTBEAT, 2, 3, term); /* to somebody else */
    x.m.to = 1;
    ck_assert_int_eq(receive(&hosts[3], &x), CHRONIK_EPROTO);
    x = letter(CHRONIK_RAFT_APPEND, 1, 2, term); /* terms that go down */
    x.m.index = 2, x.m.log_term = term, x.m.count = 1, x.items[0] = (item){1, 1, -1};
    ck_assert_int_eq(receive(&hosts[2], &x), CHRONIK_EPROTO);
    x = letter(CHRONIK_RAFT_VOTE, 3, 2, UINT32_MAX);
    ck_assert_int_eq(receive(&hosts[2], &x), CHRONIK_EPROTO);
    ck_assert_int_eq(step(&hosts[1], (chronik_raft_event){.type = CHRONIK_RAFT_PROPOSE}), CHRONIK_EINVAL);
    ck_assert_int_eq(step(&hosts[1], (chronik_raft_event){.type = CHRONIK_RAFT_COMPACTED, .index = 99}),
                     CHRONIK_EINVAL);
    ck_assert_int_eq(step(&hosts[1], (chronik_raft_event){.type = (chronik_raft_event_type)77}), CHRONIK_EINVAL);
}
END_TEST

START_TEST(test_options_are_checked) {
    group(1);
    chronik_raft *g;
    uint64_t memory[64];
    chronik_error err = CHRONIK_ERROR_INIT;
    chronik_raft_options o = CHRONIK_RAFT_OPTIONS_INIT;
    o.self = 1, o.settings = &settings, o.config = &configs[0], o.arg = &hosts[1];
    ck_assert_int_eq(chronik_raft_init(memory, sizeof memory, &o, &err, &g), 0);
    ck_assert_int_eq(chronik_raft_init(memory, 100, &o, &err, &g), CHRONIK_ENOMEM);
    o.last_index = 0, o.first_index = 2;
    ck_assert_int_eq(chronik_raft_init(memory, sizeof memory, &o, &err, &g), CHRONIK_EINVAL);
    o.first_index = 1, o.self = 0;
    ck_assert_int_eq(chronik_raft_init(memory, sizeof memory, &o, &err, &g), CHRONIK_EINVAL);
    o.self = 1;
    chronik_raft_settings bad = settings;
    bad.heartbeat_ticks = 5;
    o.settings = &bad;
    ck_assert_int_eq(chronik_raft_init(memory, sizeof memory, &o, &err, &g), CHRONIK_EINVAL);
    o.settings = &settings;
    chronik_raft_config many = {.voter_count = 9, .voters = {1, 2, 3, 4, 5, 6, 7, 8, 9}};
    o.config = &many;
    ck_assert_int_eq(chronik_raft_init(memory, chronik_raft_size(8), &o, &err, &g), CHRONIK_ENOMEM);
    many.voters[8] = 1;
    ck_assert_int_eq(chronik_raft_init(memory, sizeof memory, &o, &err, &g), CHRONIK_EINVAL);
}
END_TEST

START_TEST(test_a_group_of_three_takes_300_bytes) {
    ck_assert_uint_le(chronik_raft_size(3), 300);
    ck_assert_uint_le(chronik_raft_size(1), 300);
}
END_TEST

int main(void) {
    Suite *s = suite_create("raft");
    TCase *t = tcase_create("what other systems got wrong");
    tcase_add_test(t, test_old_term_entries_are_not_committed_by_counting);
    tcase_add_test(t, test_commit_advances_under_continuous_load);
    tcase_add_test(t, test_acks_of_an_old_term_do_not_count);
    tcase_add_test(t, test_elections_count_durable_state_only);
    tcase_add_test(t, test_a_vote_compares_the_whole_log);
    tcase_add_test(t, test_a_failed_disk_steps_down);
    tcase_add_test(t, test_every_message_is_limited_in_bytes);
    tcase_add_test(t, test_a_lost_replica_cannot_vote_until_repaired);
    tcase_add_test(t, test_a_lost_replica_does_not_count);
    suite_add_tcase(s, t);
    t = tcase_create("elections");
    tcase_add_test(t, test_a_leader_is_elected_by_timeout);
    tcase_add_test(t, test_one_vote_in_a_term);
    tcase_add_test(t, test_no_vote_for_a_shorter_or_older_log);
    tcase_add_test(t, test_prevote_keeps_the_term);
    tcase_add_test(t, test_a_live_leader_is_not_disturbed);
    tcase_add_test(t, test_a_leader_without_a_quorum_steps_down);
    tcase_add_test(t, test_a_leader_without_progress_steps_down);
    tcase_add_test(t, test_a_higher_term_deposes);
    tcase_add_test(t, test_a_group_of_one);
    suite_add_tcase(s, t);
    t = tcase_create("replication");
    tcase_add_test(t, test_a_leader_counts_its_own_entries_when_durable);
    tcase_add_test(t, test_an_acknowledgement_waits_for_its_sync);
    tcase_add_test(t, test_diverged_logs_come_together);
    tcase_add_test(t, test_an_old_append_truncates_nothing);
    tcase_add_test(t, test_a_heartbeat_commits_verified_entries_only);
    tcase_add_test(t, test_committed_entries_are_never_replaced);
    tcase_add_test(t, test_durable_after_a_truncation);
    tcase_add_test(t, test_lost_messages_are_sent_again);
    tcase_add_test(t, test_the_commit_index_is_told_at_once);
    suite_add_tcase(s, t);
    t = tcase_create("the door");
    tcase_add_test(t, test_what_no_member_sends_is_refused);
    tcase_add_test(t, test_options_are_checked);
    tcase_add_test(t, test_a_group_of_three_takes_300_bytes);
    suite_add_tcase(s, t);
    SRunner *r = srunner_create(s);
    srunner_run_all(r, CK_NORMAL);
    int failed = srunner_ntests_failed(r);
    srunner_free(r);
    return failed ? 1 : 0;
}
