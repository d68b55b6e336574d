/* Groups over a real WAL, with one shard and with three: offsets, restarts, loading from packs, expiry, failures. */
#include <dirent.h>

#include "base/crc32c.h"
#include "broker_world.h"

static world w;

static void open_one(void) { world_new(&w, 1); }
static void open_three(void) { world_new(&w, 3); }
static void close_all(void) { world_free(&w); }

DONE(group_done, cnk_group_call)
START(group_start, cnk_group_call, cnk_broker_group, group_done)

static int make_topic(void) {
    call c;
    cnk_create_topic t = {.name = text(CNK_COORD_GROUPS_TOPIC), .partitions = -1, .replication = -1};
    cnk_create_topics op = {
        .timeout_ms = 60000, .automatic = true, .coordinator = true, .topics = &t, .topic_count = 1};
    call_begin(&w, 0, &c, create_start, &op);
    ck_assert_int_eq(call_wait(&c), 0);
    return t.error;
}

/* Until it has loaded. */
static int ask(size_t shard, cnk_group_call *op) {
    for (;;) {
        call c;
        op->partition = -1;
        call_begin(&w, shard, &c, group_start, op);
        int rc = call_wait(&c);
        if (rc == 0) rc = op->call.error;
        if (rc != CHRONIK_ECOORDINATORLOADING) return rc;
        cnk_broker_group_end(op);
    }
}

/* Stored for the topic with this id, or with the name alone. */
static int commit_for(size_t shard, const char *group, const char *topic, const cnk_uuid *id, int32_t partition, int64_t offset,
                      const char *metadata) {
    cnk_coord_offset o = {
        .partition = partition, .offset = offset, .leader_epoch = 4, .timestamp_ms = -1, .metadata = text(metadata)};
    cnk_coord_topic t = {.name = text(topic), .offsets = &o, .offset_count = 1};
    if (id) t.id = *id;
    cnk_group_call op = {.call = {.kind = CNK_COORD_OFFSET_COMMIT,
                                  .group = text(group),
                                  .generation = -1,
                                  .retention_ms = -1,
                                  .topics = &t,
                                  .topic_count = 1}};
    int rc = ask(shard, &op);
    cnk_broker_group_end(&op);
    return rc ? rc : o.error;
}

static int commit(size_t shard, const char *group, const char *topic, int32_t partition, int64_t offset,
                  const char *metadata) {
    return commit_for(shard, group, topic, NULL, partition, offset, metadata);
}

/* The offset; or an error. */
static int64_t fetch_offset(size_t shard, const char *group, const char *topic, int32_t partition, char *ret_note) {
    cnk_coord_offset o = {.partition = partition};
    cnk_coord_topic t = {.name = text(topic), .offsets = &o, .offset_count = 1};
    cnk_group_call op = {
        .call = {.kind = CNK_COORD_OFFSET_FETCH, .group = text(group), .topics = &t, .topic_count = 1}};
    int rc = ask(shard, &op);
    if (rc == 0 && ret_note) {
        memcpy(ret_note, o.metadata.p, o.metadata.len);
        ret_note[o.metadata.len] = 0;
    }
    cnk_broker_group_end(&op);
    return rc ? rc : o.offset;
}

static size_t count_all(const char *group) {
    cnk_group_call op = {.call = {.kind = CNK_COORD_OFFSET_FETCH, .group = text(group), .all_topics = true}};
    ck_assert_int_eq(ask(0, &op), 0);
    size_t count = 0;
    for (size_t t = 0; t < op.call.topic_count; t++) count += op.call.topics[t].offset_count;
    cnk_broker_group_end(&op);
    return count;
}

START_TEST(test_offsets) {
    char note[64], group[32];
    ck_assert_int_eq((int)fetch_offset(0, "g0", "t", 0, NULL), CHRONIK_ENOTCOORDINATOR);
    ck_assert_int_eq(make_topic(), 0);
    ck_assert_int_eq(make_topic(), 0); /* it is there */
    ck_assert_int_eq(produce(&w, CNK_COORD_GROUPS_TOPIC, 0, 1), CHRONIK_EINVALIDTOPIC);
    for (int round = 0; round < 3; round++) {
        for (int g = 0; g < 20; g++) {
            snprintf(group, sizeof group, "g%d", g);
            for (int32_t p = 0; p < 3; p++) {
                ck_assert_int_eq((int)fetch_offset((size_t)g % w.shard_count, group, "t", p, note),
                                 round == 0 ? -1 : round - 1 + p);
                if (round > 0) ck_assert_str_eq(note, p == 1 ? "a longer note" : "n");
                ck_assert_int_eq(commit((size_t)p % w.shard_count, group, "t", p, round + p, p == 1 ? "a longer note" : "n"), 0);
                ck_assert_int_eq((int)fetch_offset(0, group, "t", p, NULL), round + p);
            }
            ck_assert_uint_eq(count_all(group), 3);
        }
        world_reopen(&w);
    }
    ck_assert_int_eq(w.notices, 0);
}
END_TEST

/* So many commits that the WAL's files go to packs: the coordinator loads from there, and from a snapshot. */
static void load_from_packs(uint32_t snapshot_records) {
    char note[1500];
    memset(note, 'x', sizeof note - 1);
    note[sizeof note - 1] = 0;
    world_close(&w);
    w.with_tier = true;
    w.wal_options.file_bytes = 200000;
    w.wal_options.cache_bytes = 200000;
    w.options.offsets_partitions = 2;
    w.options.groups.snapshot_records = snapshot_records;
    world_open(&w);
    ck_assert_int_eq(make_topic(), 0);
    for (int i = 0; i < 1500; i++) ck_assert_int_eq(commit(0, i % 3 ? "one" : "two", "t", i % 7, i, note), 0);
    for (int round = 0; round < 2; round++) {
        for (int32_t p = 0; p < 7; p++)
            for (int g = 0; g < 2; g++) {
                int last = 1499;
                while (last % 7 != p || (last % 3 == 0) != (g == 1)) last--;
                ck_assert_int_eq((int)fetch_offset(0, g ? "two" : "one", "t", p, NULL), last);
            }
        world_reopen(&w);
    }
    ck_assert_int_eq(w.notices, 0);
}

START_TEST(test_load_from_packs) { load_from_packs(UINT32_MAX); }
END_TEST

START_TEST(test_load_from_snapshot) { load_from_packs(_i == 0 ? 1 : 100); }
END_TEST

/* As if a later version had written them. */
static int rewrite_snapshots(void) {
    char path[300];
    uint8_t *data;
    int found = 0;
    DIR *d = opendir(w.wal_options.dir);
    for (struct dirent *e; (e = readdir(d)) != NULL;) {
        if (!strstr(e->d_name, ".checkpoint")) continue;
        snprintf(path, sizeof path, "%s/%.200s", w.wal_options.dir, e->d_name);
        FILE *f = fopen(path, "r+");
        fseek(f, 0, SEEK_END);
        const size_t len = (size_t)ftell(f);
        data = malloc(len);
        rewind(f);
        ck_assert_uint_eq(fread(data, 1, len, f), len);
        for (size_t at = 16; at + 6 <= len; at++)
            if (memcmp(data + at, "CCOR\1", 6) == 0) data[at + 4] = 9, found++;
        cnk_store_le32(data + 12, cnk_crc32c(0, data + 16, len - 16));
        rewind(f);
        ck_assert_uint_eq(fwrite(data, 1, len, f), len);
        fclose(f);
        free(data);
    }
    closedir(d);
    return found;
}

START_TEST(test_a_snapshot_that_cannot_be_read) {
    load_from_packs(1);
    world_close(&w);
    ck_assert_int_gt(rewrite_snapshots(), 0);
    world_open(&w);
    ck_assert_int_eq((int)fetch_offset(0, "two", "t", 0, NULL), 1491);
    ck_assert_int_eq((int)fetch_offset(0, "one", "t", 1, NULL), 1499);
    ck_assert_int_gt(w.notices, 0);
}
END_TEST

START_TEST(test_refusals) {
    static char note[4100];
    memset(note, 'x', sizeof note - 1);
    ck_assert_int_eq(make_topic(), 0);
    ck_assert_int_eq(commit(0, "g", "t", 0, 1, note), CHRONIK_EMETADATATOOLARGE);
    ck_assert_int_eq((int)fetch_offset(0, "g", "t", 0, NULL), -1);
    cnk_coord_offset o = {.partition = 0, .offset = 1, .timestamp_ms = -1};
    cnk_coord_topic t = {.name = text("t"), .offsets = &o, .offset_count = 1};
    cnk_group_call op = {.call = {.kind = CNK_COORD_OFFSET_COMMIT, .group = text("g"), .member_id = text("m"), .generation = 2, .topics = &t, .topic_count = 1}};
    op.call.version = 8;
    ck_assert_int_eq(ask(0, &op), CHRONIK_EGENERATION);
    op.call.version = 9;
    ck_assert_int_eq(ask(0, &op), CHRONIK_EGROUPNOTFOUND);
    ck_assert_int_eq(commit(0, "g", "t", 0, 1, ""), 0);
    ck_assert_int_eq(ask(0, &op), CHRONIK_EUNKNOWNMEMBER);
    cnk_broker_group_end(&op);
}
END_TEST

/* Wait for something that happens by itself. */
static void wait_for_offset(const char *group, int64_t want) {
    while (fetch_offset(0, group, "t", 0, NULL) != want) usleep(1000);
}

START_TEST(test_expiry) {
    world_close(&w);
    w.options.groups.offsets_retention_ms = 1;
    w.options.groups.offsets_check_ms = 5;
    world_open(&w);
    ck_assert_int_eq(make_topic(), 0);
    ck_assert_int_eq(commit(0, "g", "t", 0, 7, ""), 0);
    wait_for_offset("g", -1);
    world_close(&w);
    w.options.groups.offsets_retention_ms = 60000;
    world_open(&w);
    ck_assert_int_eq((int)fetch_offset(0, "g", "t", 0, NULL), -1); /* the tombstone is in the log */
    ck_assert_int_eq(commit(0, "g", "t", 0, 7, ""), 0);
    usleep(50000);
    ck_assert_int_eq((int)fetch_offset(0, "g", "t", 0, NULL), 7);
    /* A commit's own time is stronger. */
    cnk_coord_offset o = {.partition = 0, .offset = 9, .timestamp_ms = -1};
    cnk_coord_topic t = {.name = text("t"), .offsets = &o, .offset_count = 1};
    cnk_group_call op = {.call = {.kind = CNK_COORD_OFFSET_COMMIT, .group = text("h"), .generation = -1, .retention_ms = 1, .topics = &t, .topic_count = 1}};
    ck_assert_int_eq(ask(0, &op), 0);
    cnk_broker_group_end(&op);
    wait_for_offset("h", -1);
    ck_assert_int_eq((int)fetch_offset(0, "g", "t", 0, NULL), 7);
}
END_TEST

START_TEST(test_topic_deleted) {
    ck_assert_int_eq(make_topic(), 0);
    ck_assert_int_eq(create(&w, "t", 2), 0);
    ck_assert_int_eq(create(&w, "u", 2), 0);
    for (int g = 0; g < 10; g++) {
        char group[16];
        snprintf(group, sizeof group, "g%d", g);
        ck_assert_int_eq(commit(0, group, "t", 0, 7, ""), 0);
        ck_assert_int_eq(commit(0, group, "u", 0, 7, ""), 0);
    }
    ck_assert_int_eq(delete_one(&w, "t"), 0);
    for (int round = 0; round < 2; round++) {
        for (int g = 0; g < 10; g++) {
            char group[16];
            snprintf(group, sizeof group, "g%d", g);
            while (fetch_offset(0, group, "t", 0, NULL) != -1) usleep(1000);
            ck_assert_int_eq((int)fetch_offset(0, group, "u", 0, NULL), 7);
        }
        world_reopen(&w);
    }
    ck_assert_int_eq(delete_one(&w, CNK_COORD_GROUPS_TOPIC), 0);
    ck_assert_int_eq(commit(0, "g1", "u", 0, 7, ""), CHRONIK_ENOTCOORDINATOR);
    ck_assert_int_eq(make_topic(), 0);
    ck_assert_int_eq((int)fetch_offset(0, "g1", "u", 0, NULL), -1);
}
END_TEST

static cnk_uuid id_of(const char *topic) {
    return cnk_meta_topic_by_name(cnk_shard_image(cnk_broker_shard(w.broker, 0)), topic, strlen(topic))->id;
}

/* What a coordinator could not take away with the topic, or has got after that. */
START_TEST(test_a_topic_made_anew_resumes_nowhere) {
    ck_assert_int_eq(make_topic(), 0);
    ck_assert_int_eq(create(&w, "t", 3), 0);
    const cnk_uuid old = id_of("t");
    ck_assert_int_eq(commit_for(0, "g", "t", &old, 0, 7, ""), 0);
    ck_assert_int_eq((int)fetch_offset(0, "g", "t", 0, NULL), 7);
    ck_assert_uint_eq(count_all("g"), 1);
    ck_assert_int_eq(delete_one(&w, "t"), 0);
    while (fetch_offset(0, "g", "t", 0, NULL) != -1) usleep(1000);
    ck_assert_int_eq(commit_for(0, "g", "t", &old, 0, 8, ""), 0); /* was under way */
    ck_assert_int_eq(commit_for(0, "g", "t", &old, 1, 9, ""), 0);
    ck_assert_int_eq((int)fetch_offset(0, "g", "t", 0, NULL), 8); /* there is none of the name: as in Kafka */
    ck_assert_int_eq(create(&w, "t", 3), 0);
    const cnk_uuid now = id_of("t");
    for (int round = 0; round < 2; round++) {
        for (int32_t p = 0; p < 2; p++) ck_assert_int_eq((int)fetch_offset(w.shard_count - 1, "g", "t", p, NULL), -1);
        ck_assert_uint_eq(count_all("g"), 0);
        world_reopen(&w);
    }
    ck_assert_int_eq(commit_for(0, "g", "t", &now, 0, 3, ""), 0);
    ck_assert_int_eq(commit(0, "g", "t", 2, 4, ""), 0); /* by a broker that wrote no ids */
    ck_assert_int_eq((int)fetch_offset(0, "g", "t", 0, NULL), 3);
    ck_assert_int_eq((int)fetch_offset(0, "g", "t", 1, NULL), -1);
    ck_assert_int_eq((int)fetch_offset(0, "g", "t", 2, NULL), 4);
    ck_assert_uint_eq(count_all("g"), 2);
}
END_TEST

/* ---- members ---------------------------------------------------------------------------------------------------- */

static const cnk_coord_protocol range = {{"range", 5}, {"\0\0\0\0\0\0\377\377\377\377", 10}};

static cnk_group_call join_call(const char *group, const char *id, const char *instance) {
    return (cnk_group_call){.partition = -1,
                            .call = {.kind = CNK_COORD_JOIN,
                                     .version = 9,
                                     .group = text(group),
                                     .member_id = text(id),
                                     .instance_id = text(instance),
                                     .client_id = text("c"),
                                     .client_host = text("/h"),
                                     .session_timeout_ms = 10000,
                                     .rebalance_timeout_ms = 10000,
                                     .protocol_type = text("consumer"),
                                     .protocols = &range,
                                     .protocol_count = 1}};
}

static cnk_group_call sync_call(const char *group, const char *id, int32_t generation, cnk_coord_member *assignments,
                                size_t count) {
    return (cnk_group_call){.partition = -1,
                            .call = {.kind = CNK_COORD_SYNC,
                                     .version = 5,
                                     .group = text(group),
                                     .member_id = text(id),
                                     .generation = generation,
                                     .protocol_type = text("consumer"),
                                     .protocol_name = text("range"),
                                     .members = assignments,
                                     .member_count = count}};
}

static int beat(const char *group, const char *id, int32_t generation) {
    cnk_group_call op = {.call = {.kind = CNK_COORD_HEARTBEAT, .group = text(group), .member_id = text(id), .generation = generation}};
    int rc = ask(0, &op);
    cnk_broker_group_end(&op);
    return rc;
}

static int leave(const char *group, const char *id) {
    cnk_coord_member who = {.id = text(id)};
    cnk_group_call op = {.call = {.kind = CNK_COORD_LEAVE, .group = text(group), .members = &who, .member_count = 1}};
    int rc = ask(0, &op);
    cnk_broker_group_end(&op);
    return rc ? rc : who.error;
}

static cnk_coord_state state_of(const char *group) {
    cnk_group_call op = {.call = {.kind = CNK_COORD_DESCRIBE, .group = text(group)}};
    int rc = ask(0, &op);
    cnk_coord_state state = op.call.ret_state;
    cnk_broker_group_end(&op);
    ck_assert(rc == 0 || rc == CHRONIK_EGROUPNOTFOUND);
    return state;
}

static void keep(char *to, cnk_text id) {
    memcpy(to, id.p, id.len);
    to[id.len] = 0;
}

/* Asks for an id, and begins to join with it. */
static void join_begin(const char *group, char *ret_id, cnk_group_call *op, call *c) {
    *op = join_call(group, "", NULL);
    ck_assert_int_eq(ask(0, op), CHRONIK_EMEMBERIDREQUIRED);
    keep(ret_id, op->call.ret_member_id);
    cnk_broker_group_end(op);
    *op = join_call(group, ret_id, NULL);
    call_begin(&w, w.shard_count - 1, c, group_start, op);
}

static void quick(void) {
    world_close(&w);
    w.options.groups.initial_delay_ms = 20;
    w.options.groups.session_min_ms = 10;
    world_open(&w);
    ck_assert_int_eq(make_topic(), 0);
    while (fetch_offset(0, "g", "t", 0, NULL) != -1) usleep(1000);
}

START_TEST(test_two_members) {
    char a[80], b[80];
    cnk_group_call ja, jb, sa, sb;
    call ca, cb, cs;
    w.options.groups.snapshot_records = _i == 0 ? UINT32_MAX : 1;
    quick();
    join_begin("g", a, &ja, &ca);
    join_begin("g", b, &jb, &cb);
    ck_assert_int_eq(call_wait(&ca), 0);
    ck_assert_int_eq(call_wait(&cb), 0);
    ck_assert_int_eq(ja.call.error, 0);
    ck_assert_int_eq(jb.call.error, 0);
    ck_assert_int_eq(ja.call.ret_generation, 1);
    ck_assert(cnk_text_equal(ja.call.ret_leader, jb.call.ret_leader));
    ck_assert_uint_eq(ja.call.member_count + jb.call.member_count, 2); /* the leader alone is told */
    bool a_leads = cnk_text_equal(ja.call.ret_leader, text(a));
    cnk_broker_group_end(&ja);
    cnk_broker_group_end(&jb);
    const char *leader = a_leads ? a : b, *other = a_leads ? b : a;
    ck_assert_int_eq(commit(0, "g", "t", 0, 1, ""), CHRONIK_EUNKNOWNMEMBER);
    sb = sync_call("g", other, 1, NULL, 0);
    call_begin(&w, 0, &cs, group_start, &sb);
    cnk_coord_member to[2] = {{.id = text(leader), .assignment = text("mine")}, {.id = text(other), .assignment = text("yours")}};
    sa = sync_call("g", leader, 1, to, 2);
    ck_assert_int_eq(ask(w.shard_count - 1, &sa), 0);
    ck_assert(cnk_text_equal(sa.call.ret_assignment, text("mine")));
    ck_assert_int_eq(call_wait(&cs), 0);
    ck_assert(cnk_text_equal(sb.call.ret_assignment, text("yours")));
    cnk_broker_group_end(&sa);
    cnk_broker_group_end(&sb);
    ck_assert_int_eq(beat("g", leader, 1), 0);
    /* The broker starts again: generation, members and assignments are as they were. */
    for (int round = 0; round < 2; round++) {
        world_reopen(&w);
        ck_assert_int_eq(state_of("g"), CNK_COORD_STABLE);
        ck_assert_int_eq(beat("g", other, 1), 0);
        ck_assert_int_eq(beat("g", other, 2), CHRONIK_EGENERATION);
        sb = sync_call("g", other, 1, NULL, 0);
        ck_assert_int_eq(ask(0, &sb), 0);
        ck_assert(cnk_text_equal(sb.call.ret_assignment, text("yours")));
        cnk_broker_group_end(&sb);
    }
    ck_assert_int_eq(leave("g", other), 0);
    ck_assert_int_eq(beat("g", leader, 1), CHRONIK_EREBALANCE);
    ck_assert_int_eq(leave("g", leader), 0);
    ck_assert_int_eq(state_of("g"), CNK_COORD_EMPTY);
    ck_assert_int_eq(commit(0, "g", "t", 0, 1, ""), 0);
    world_reopen(&w);
    ck_assert_int_eq(state_of("g"), CNK_COORD_EMPTY);
    cnk_group_call gone = {.call = {.kind = CNK_COORD_DELETE, .group = text("g")}};
    ck_assert_int_eq(ask(0, &gone), 0);
    cnk_broker_group_end(&gone);
    ck_assert_int_eq(state_of("g"), CNK_COORD_DEAD);
    world_reopen(&w);
    ck_assert_int_eq(state_of("g"), CNK_COORD_DEAD);
    ck_assert_int_eq((int)fetch_offset(0, "g", "t", 0, NULL), -1);
    ck_assert_int_eq(w.notices, 0);
}
END_TEST

static int cancel_start(call *c) {
    cnk_broker_group_cancel(c->op);
    return CNK_DONE;
}

/* Who asks goes while it waits: it has joined all the same, and its id is good. */
START_TEST(test_gone_while_waiting) {
    char a[80];
    cnk_group_call op;
    call c, cancel;
    quick();
    for (int round = 0; round < 30; round++) {
        char group[16];
        snprintf(group, sizeof group, "g%d", round);
        join_begin(group, a, &op, &c);
        if (round % 3) usleep((unsigned)round * 1000);
        call_begin(&w, w.shard_count - 1, &cancel, cancel_start, &op);
        ck_assert_int_eq(call_wait(&cancel), 0);
        ck_assert_int_eq(call_wait(&c), 0);
        ck_assert(op.call.error == CHRONIK_ECANCELED || op.call.error == 0);
        cnk_broker_group_end(&op);
        op = join_call(group, a, NULL);
        int rc = ask(0, &op);
        ck_assert_int_eq(rc, 0);
        ck_assert(cnk_text_equal(op.call.ret_leader, text(a)));
        cnk_broker_group_end(&op);
    }
}
END_TEST

/* Every session ends when nobody beats; a stop ends every wait. */
START_TEST(test_sessions_end) {
    cnk_group_call op;
    call c;
    char a[80];
    quick();
    op = join_call("g", "", "static");
    op.call.session_timeout_ms = 50;
    ck_assert_int_eq(ask(0, &op), 0);
    keep(a, op.call.ret_member_id);
    cnk_broker_group_end(&op);
    cnk_coord_member to = {.id = text(a), .assignment = text("x")};
    op = sync_call("g", a, 1, &to, 1);
    ck_assert_int_eq(ask(0, &op), 0);
    cnk_broker_group_end(&op);
    while (state_of("g") != CNK_COORD_EMPTY) usleep(1000);
    ck_assert_int_eq(beat("g", a, 1), CHRONIK_EUNKNOWNMEMBER);
    world_close(&w);
    w.options.groups.initial_delay_ms = 60000;
    world_open(&w);
    while (fetch_offset(0, "h", "t", 0, NULL) != -1) usleep(1000);
    join_begin("h", a, &op, &c);
    usleep(10000);
    world_close(&w);
    ck_assert_int_eq(c.over, 1);
    ck_assert_int_eq(op.call.error, CHRONIK_ENOTCOORDINATOR);
    cnk_broker_group_end(&op);
    world_open(&w);
}
END_TEST

#ifdef CNK_TEST_HOOKS
/* Each allocation fails in turn: no answer is a lie, and the coordinator serves again. */
START_TEST(test_no_memory) {
    ck_assert_int_eq(make_topic(), 0);
    ck_assert_int_eq(commit(0, "g", "t", 0, 0, "note"), 0);
    int64_t last = 0;
    int failed = 0;
    for (int n = 0; n < 60; n++) {
        char group[16];
        snprintf(group, sizeof group, "g%d", n); /* a new group each time: the most allocations */
        cnk_mem_fail_at(n);
        int rc = commit(0, n % 2 ? "g" : group, "t", 0, n + 1, "a longer note than before");
        cnk_mem_fail_at(-1);
        failed += rc != 0;
        ck_assert(rc == 0 || rc == CHRONIK_ECOORDINATORUNAVAILABLE || rc == CHRONIK_ENOTCOORDINATOR);
        if (rc == 0 && n % 2) last = n + 1;
        int64_t now = fetch_offset(0, "g", "t", 0, NULL);
        ck_assert_msg(now == last || (rc != 0 && n % 2 && now == n + 1), "%lld", (long long)now);
        last = now;
    }
    ck_assert_int_gt(failed, 3);
    world_reopen(&w);
    ck_assert_int_eq((int)fetch_offset(0, "g", "t", 0, NULL), (int)last);
}
END_TEST

/* A member joins and asks for its assignment, with each allocation failing in turn. Whatever is answered, it can join in the
 * end, and what it is told then is true. */
START_TEST(test_no_memory_for_members) {
    int failed = 0;
    quick();
    for (int n = 0; n < 90; n++) {
        char group[16], a[80] = "";
        snprintf(group, sizeof group, "g%d", n);
        cnk_mem_fail_at(n);
        for (int tries = 0;; tries++) {
            cnk_group_call op = join_call(group, a, NULL);
            int rc = ask(0, &op);
            if (rc == CHRONIK_EMEMBERIDREQUIRED) keep(a, op.call.ret_member_id);
            if (rc == CHRONIK_EUNKNOWNMEMBER) a[0] = 0;
            int32_t generation = op.call.ret_generation;
            cnk_broker_group_end(&op);
            failed += rc == CHRONIK_ENOTCOORDINATOR || rc == CHRONIK_ECOORDINATORUNAVAILABLE || rc == CHRONIK_ENOMEM;
            ck_assert_int_lt(tries, 1000);
            if (rc != 0) continue;
            cnk_coord_member to = {.id = text(a), .assignment = text("all")};
            op = sync_call(group, a, generation, &to, 1);
            rc = ask(0, &op);
            if (rc == 0) ck_assert(cnk_text_equal(op.call.ret_assignment, text("all")));
            cnk_broker_group_end(&op);
            if (rc == 0) break;
            if (rc == CHRONIK_EUNKNOWNMEMBER) a[0] = 0;
        }
        cnk_mem_fail_at(-1);
        ck_assert_int_eq(state_of(group), CNK_COORD_STABLE);
    }
    ck_assert_int_gt(failed, 10);
    world_reopen(&w);
    ck_assert_int_eq(state_of("g89"), CNK_COORD_STABLE);
}
END_TEST
#endif

static TCase *with(const char *name, void (*open)(void)) {
    TCase *c = tcase_create(name);
    tcase_set_timeout(c, 120);
    tcase_add_checked_fixture(c, open, close_all);
    return c;
}

int main(void) {
    Suite *s = suite_create("broker_groups");
    for (int three = 0; three < 2; three++) {
        TCase *c = with(three ? "three shards" : "one shard", three ? open_three : open_one);
        tcase_add_test(c, test_offsets);
        tcase_add_test(c, test_load_from_packs);
        tcase_add_test(c, test_refusals);
        tcase_add_test(c, test_expiry);
        tcase_add_test(c, test_topic_deleted);
        tcase_add_test(c, test_a_topic_made_anew_resumes_nowhere);
        tcase_add_loop_test(c, test_load_from_snapshot, 0, 2);
        tcase_add_test(c, test_a_snapshot_that_cannot_be_read);
        tcase_add_loop_test(c, test_two_members, 0, 2);
        tcase_add_test(c, test_gone_while_waiting);
        tcase_add_test(c, test_sessions_end);
        suite_add_tcase(s, c);
    }
#ifdef CNK_TEST_HOOKS
    TCase *c = with("memory", open_one);
    tcase_add_test(c, test_no_memory);
    tcase_add_test(c, test_no_memory_for_members);
    suite_add_tcase(s, c);
#endif
    SRunner *r = srunner_create(s);
    srunner_run_all(r, CK_NORMAL);
    int failed = srunner_ntests_failed(r);
    srunner_free(r);
    return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
