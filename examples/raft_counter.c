/* A replicated counter: three processes that agree on a number, and may be killed at any moment.
 *
 *     cc raft_counter.c $(pkg-config --cflags --libs chronik)
 *     ./a.out DIRECTORY1 1 PORT1 PORT2 PORT3        and, elsewhere,      ./a.out DIRECTORY2 2 PORT1 PORT2 PORT3 …
 *
 * Each reads commands from its standard input: `add N` (answered `added N, total T` once it is safe) and `total`
 * (answered `total T`, with everything in it that was answered before). Only the leader takes them; the others say who
 * it is.
 *
 * It shows what a host of chronik/raft.h does, and how little that is: messages are datagrams on the loopback
 * interface, which may be lost; the log is a stream of chronik/wal.h that holds the persistent effects one by one, lsn
 * by lsn, and is played back at the start. Left out: snapshots (the log only grows), changes of the members, more than
 * one machine (numbers travel in the order of its bytes). */
#include <arpa/inet.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include <chronik/raft.h>
#include <chronik/wal.h>

enum { MEMBERS = 3, STREAM = 1, LOG_MAX = 1 << 20, HELD_MAX = 64, TICK_MS = 20, BATCH_MAX = 256, READS_MAX = 64 };

typedef struct entry {
    uint32_t term, proposed; /* proposed: here, since the start: its answer is awaited */
    int64_t amount;          /* 0: of the leader's term, or the configuration */
} entry;

typedef struct record { /* in the write-ahead log: an effect */
    uint32_t type, term;
    uint64_t index_or_vote;
    int64_t amount;
} record;

typedef struct datagram {
    chronik_raft_message m;
    uint64_t lsn; /* not sent: what it waits for */
    struct {
        uint32_t term;
        int64_t amount;
    } entries[BATCH_MAX];
} datagram;

static chronik_wal *wal;
static chronik_raft *group;
static chronik_raft_effects effects;
static chronik_raft_config founders;
static entry *entries; /* from index 1 */
static uint64_t last, applied, lsn, durable, voted_for;
static uint32_t term;
static int64_t total;
static uint64_t leader;
static datagram held[HELD_MAX], incoming;
static unsigned held_count, reads_count;
static uint32_t reads[READS_MAX]; /* rounds of `total` commands */
static uint32_t ready_round;
static uint64_t ready_index;
static int udp;
static struct sockaddr_in address[MEMBERS + 1];

static void step(chronik_raft_event event);

static void die(const char *what, const char *why) {
    fprintf(stderr, "%s: %s\n", what, why);
    exit(1);
}

/* ---- the log ---- */

static uint32_t log_term(void *arg, uint64_t index) {
    (void)arg;
    return index == 0 ? 0 : entries[index].term;
}

static uint64_t log_fit(void *arg, uint64_t first, uint64_t end, uint32_t bytes_max, uint32_t *ret_bytes) {
    (void)arg;
    uint64_t room = bytes_max / sizeof(entry);
    if (end - first + 1 > room) end = first + (room ? room : 1) - 1;
    *ret_bytes = (uint32_t)((end - first + 1) * sizeof(entry));
    return end;
}

static void apply_record(const record *r) {
    switch (r->type) {
    case CHRONIK_RAFT_DO_VOTE: term = r->term, voted_for = r->index_or_vote; break;
    case CHRONIK_RAFT_DO_TRUNCATE:
        for (; last > r->index_or_vote; last--)
            if (entries[last].proposed) printf("lost %lld\n", (long long)entries[last].amount);
        break;
    default:
        last = r->index_or_vote;
        if (last >= LOG_MAX) die("log", "full");
        entries[last] = (entry){r->term, 0, r->amount};
        break;
    }
}

/* A persistent effect: into the log, in memory at once, on the disk when the loop syncs. */
static void write_record(record r) {
    chronik_error err = CHRONIK_ERROR_INIT;
    uint64_t index;
    if (chronik_wal_append(wal, STREAM, &r, sizeof r, &err, &index)) die("append", err.text);
    apply_record(&r);
    lsn++;
}

static void recover(const char *directory, uint64_t self) {
    static chronik_raft_settings settings = CHRONIK_RAFT_SETTINGS_INIT;
    chronik_error err = CHRONIK_ERROR_INIT;
    uint64_t first = 1, end = 0;
    record r;
    size_t len;
    if (chronik_wal_open(directory, NULL, &err, &wal)) die("open", err.text);
    if (chronik_wal_stream_range(wal, STREAM, &err, &first, &end)) { /* new: it begins with its configuration */
        if (chronik_wal_stream_create(wal, STREAM, &err)) die("create", err.text);
        r = (record){CHRONIK_RAFT_DO_APPEND, 1, 1, 0};
        if (chronik_wal_append(wal, STREAM, &r, sizeof r, &err, &end)) die("append", err.text);
    }
    for (uint64_t i = first; i <= end; i++) {
        if (chronik_wal_read(wal, STREAM, i, &r, sizeof r, &err, &len)) die("read", err.text);
        apply_record(&r);
    }
    if (chronik_wal_sync(wal, &err)) die("sync", err.text);
    settings.log = (chronik_raft_log){log_term, log_fit};
    settings.message_bytes_max = BATCH_MAX / 2 * sizeof(entry);
    founders = (chronik_raft_config){.voter_count = MEMBERS, .voters = {1, 2, 3}};
    chronik_raft_options o = CHRONIK_RAFT_OPTIONS_INIT;
    o.self = self;
    o.seed = (uint32_t)time(NULL);
    o.term = term;
    o.voted_for = voted_for;
    o.last_index = last;
    o.config = &founders;
    o.config_index = 1;
    o.settings = &settings;
    size_t size = chronik_raft_size(MEMBERS);
    if (chronik_raft_init(malloc(size), size, &o, &err, &group)) die("raft", err.text);
}

/* ---- messages ---- */

static void transmit(const datagram *d) {
    size_t bytes = offsetof(datagram, entries) + d->m.count * sizeof d->entries[0];
    (void)sendto(udp, d, bytes, 0, (const struct sockaddr *)&address[d->m.to], sizeof address[0]); /* or it is lost */
}

static void send_message(const chronik_raft_effect *e) {
    static datagram d;
    d.m = e->message;
    d.lsn = e->lsn;
    for (uint32_t i = 0; i < d.m.count; i++) {
        d.entries[i].term = entries[d.m.index + 1 + i].term;
        d.entries[i].amount = entries[d.m.index + 1 + i].amount;
    }
    if (d.lsn <= durable)
        transmit(&d);
    else if (held_count < HELD_MAX) /* else it is lost, too */
        held[held_count++] = d;
}

static void receive(void) {
    chronik_raft_entry in[BATCH_MAX];
    ssize_t len;
    while ((len = recv(udp, &incoming, sizeof incoming, MSG_DONTWAIT)) > 0) {
        chronik_raft_message *m = &incoming.m;
        if ((size_t)len < offsetof(datagram, entries) || m->count > BATCH_MAX ||
            (size_t)len != offsetof(datagram, entries) + m->count * sizeof incoming.entries[0])
            continue;
        for (uint32_t i = 0; i < m->count; i++) {
            bool config = m->index + 1 + i == 1;
            in[i] = (chronik_raft_entry){incoming.entries[i].term, sizeof(entry), NULL, config ? &founders : NULL};
        }
        m->entries = in;
        m->config = NULL;
        step((chronik_raft_event){.type = CHRONIK_RAFT_MESSAGE, .message = m});
    }
}

/* ---- effects ---- */

static void append(const chronik_raft_effect *e, int64_t amount) {
    for (uint32_t i = 0; i < e->count; i++) {
        record r = {CHRONIK_RAFT_DO_APPEND, e->term, e->index + i, amount};
        if (e->kind == CHRONIK_RAFT_ENTRIES) {
            size_t at = (size_t)(e->entries - incoming.m.entries) + i;
            r.term = incoming.entries[at].term, r.amount = incoming.entries[at].amount;
        }
        write_record(r);
        entries[last].proposed = e->kind == CHRONIK_RAFT_PROPOSED;
    }
}

static void answer_reads(void) {
    unsigned left = 0;
    for (unsigned i = 0; i < reads_count; i++) {
        if (reads[i] <= ready_round && applied >= ready_index)
            printf("total %lld\n", (long long)total);
        else
            reads[left++] = reads[i];
    }
    reads_count = left;
}

static void commit(uint64_t index) {
    while (applied < index) {
        entry *e = &entries[++applied];
        total += e->amount;
        if (e->proposed) printf("added %lld, total %lld\n", (long long)e->amount, (long long)total);
        e->proposed = 0;
    }
    answer_reads();
}

static void new_role(const chronik_raft_effect *e) {
    leader = e->peer;
    if (e->role == CHRONIK_RAFT_ROLE_LEADER) printf("leading in term %u\n", e->term);
    for (; reads_count > 0 && e->role != CHRONIK_RAFT_ROLE_LEADER; reads_count--) printf("lost total\n");
}

static int64_t proposed_amount;

static void step(chronik_raft_event event) {
    int rc = chronik_raft_step(group, &event, &effects);
    if (rc == CHRONIK_ENOTLEADER || rc == CHRONIK_EAGAIN) printf("not here, ask %llu\n", (unsigned long long)leader);
    if (rc != 0) return;
    for (unsigned i = 0; i < effects.count; i++) {
        const chronik_raft_effect *e = &effects.effect[i];
        switch (e->type) {
        case CHRONIK_RAFT_DO_VOTE: write_record((record){e->type, e->term, e->peer, 0}); break;
        case CHRONIK_RAFT_DO_TRUNCATE: write_record((record){e->type, 0, e->index, 0}); break;
        case CHRONIK_RAFT_DO_APPEND: append(e, e->kind == CHRONIK_RAFT_PROPOSED ? proposed_amount : 0); break;
        case CHRONIK_RAFT_DO_SEND: send_message(e); break;
        case CHRONIK_RAFT_DO_COMMIT: commit(e->index); break;
        case CHRONIK_RAFT_DO_ROLE: new_role(e); break;
        case CHRONIK_RAFT_DO_READ:
            if (reads_count < READS_MAX) reads[reads_count++] = e->round;
            break;
        case CHRONIK_RAFT_DO_READY:
            ready_round = e->round, ready_index = e->index;
            answer_reads();
            break;
        default: break;
        }
    }
    if (effects.flush) step((chronik_raft_event){.type = CHRONIK_RAFT_FLUSH});
}

/* Everything that was written since the last time becomes durable at once, and what waited for it is sent. */
static void sync_log(void) {
    chronik_error err = CHRONIK_ERROR_INIT;
    while (durable < lsn) {
        uint64_t up_to = lsn;
        unsigned left = 0;
        if (chronik_wal_sync(wal, &err)) die("sync", err.text); /* a disk that failed: this member is no more */
        durable = up_to;
        for (unsigned i = 0; i < held_count; i++) {
            if (held[i].lsn <= durable)
                transmit(&held[i]);
            else
                held[left++] = held[i];
        }
        held_count = left;
        step((chronik_raft_event){.type = CHRONIK_RAFT_DURABLE, .lsn = durable});
    }
}

static void command(const char *line) {
    long long amount;
    if (sscanf(line, "add %lld", &amount) == 1) {
        proposed_amount = amount;
        step((chronik_raft_event){.type = CHRONIK_RAFT_PROPOSE, .count = 1});
    } else if (strncmp(line, "total", 5) == 0) {
        step((chronik_raft_event){.type = CHRONIK_RAFT_READ});
    }
}

/* Whole lines of the standard input. False: it has ended. */
static bool read_commands(void) {
    static char text[4096];
    static size_t used;
    ssize_t len = read(0, text + used, sizeof text - 1 - used);
    if (len <= 0) return false;
    used += (size_t)len;
    text[used] = 0;
    char *at = text;
    for (char *end; (end = strchr(at, '\n')) != NULL; at = end + 1) {
        *end = 0;
        command(at);
    }
    used -= (size_t)(at - text);
    memmove(text, at, used);
    return used < sizeof text - 1;
}

static uint32_t now_ticks(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint32_t)((uint64_t)t.tv_sec * 1000 / TICK_MS + (uint64_t)t.tv_nsec / 1000000 / TICK_MS);
}

int main(int argc, char **argv) {
    uint64_t self = argc == 3 + MEMBERS ? strtoull(argv[2], NULL, 10) : 0;
    if (self < 1 || self > MEMBERS) die("usage", "raft_counter DIRECTORY ID PORT1 PORT2 PORT3");
    for (int i = 1; i <= MEMBERS; i++) {
        address[i].sin_family = AF_INET;
        address[i].sin_addr.s_addr = htonl(INADDR_LOOPBACK);
        address[i].sin_port = htons((uint16_t)atoi(argv[2 + i]));
    }
    udp = socket(AF_INET, SOCK_DGRAM, 0);
    if (udp < 0 || bind(udp, (struct sockaddr *)&address[self], sizeof address[self])) die("port", argv[2 + self]);
    entries = calloc(LOG_MAX, sizeof *entries);
    if (entries == NULL) die("memory", "none");
    setvbuf(stdout, NULL, _IOLBF, 0);
    recover(argv[1], self);
    for (bool more = true; more;) {
        struct pollfd fds[2] = {{udp, POLLIN, 0}, {0, POLLIN, 0}};
        (void)poll(fds, 2, TICK_MS);
        if (fds[0].revents) receive();
        if (fds[1].revents) more = read_commands();
        step((chronik_raft_event){.type = CHRONIK_RAFT_TICK, .now = now_ticks()});
        sync_log();
    }
    chronik_wal_close(wal);
    free(group);
    free(entries);
    return 0;
}
