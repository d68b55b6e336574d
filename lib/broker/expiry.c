/* Idle producers are forgotten: producer.id.expiration.ms, looked at every producer.id.expiration.check.interval.ms.
 *
 * The leader of a partition decides, by its clock, and proposes an entry (cnk_replica_propose_expiry); the entry does
 * the forgetting when it is committed, on every replica and in every replay alike. As in Kafka a producer's age is that
 * of its newest batch's timestamp, which is the producer's word unless the topic says LogAppendTime. A producer that
 * copies old messages would be forgotten while it writes; so nobody is who has written since the look before, or since
 * this node leads.
 *
 * A round looks at every partition of the shard, a bounded number of producers at a time. There is a timer only while
 * there are producers.
 *
 * Owner: the shard's thread. */
#include "base/error.h"
#include "broker/internal.h"

#define LOOKS_MAX 4000u /* producers and partitions looked at in one go */
#define PAUSE_NS UINT64_C(1000000)
#define CUTOFF_MAX ((INT64_C(1) << 48) - 1) /* ms: the year 10889 */

static void on_due(cnk_deadline *deadline);
static bool go_on(cnk_shard *shard);
static void look(cnk_partition *p, int64_t cutoff_ms);

void cnk_expiry_watch(cnk_shard *shard) {
    const cnk_broker_options *o = &shard->broker->options;
    if (shard->expiry_deadline.slot != 0 || cnk_replica_shard_producers(shard->replicas) == 0) return;
    if (o->producer_expiration_ms <= 0 || shard->stopping || shard->fenced) return;
    shard->expiry_deadline.fire = on_due;
    /* Without memory for the deadline: the next flush tries again. */
    (void)cnk_shard_deadline_set(shard, &shard->expiry_deadline,
                                 cnk_shard_now_ns(shard) + (uint64_t)o->producer_check_ms * UINT64_C(1000000));
}

void cnk_expiry_led(cnk_partition *p) { p->expiry_bound = cnk_log_end(cnk_replica_log(p->replica)); }

static void on_due(cnk_deadline *deadline) {
    cnk_shard *shard = CNK_CONTAINER(deadline, cnk_shard, expiry_deadline);
    if (shard->stopping || shard->fenced) return;
    if (!shard->expiry_going) shard->expiry_round++;
    shard->expiry_going = go_on(shard);
    if (!shard->expiry_going)
        cnk_expiry_watch(shard);
    else if (cnk_shard_deadline_set(shard, deadline, cnk_shard_now_ns(shard) + PAUSE_NS) != 0)
        shard->expiry_going = false; /* the rest has its turn in the next round */
}

/* True: the round is not over. Partitions go to the end of the list when they have been looked at. */
static bool go_on(cnk_shard *shard) {
    int64_t cutoff_ms = cnk_shard_wall_ms(shard) - shard->broker->options.producer_expiration_ms;
    if (cutoff_ms < 0) return false; /* a clock that stands near 1970 says nothing */
    if (cutoff_ms > CUTOFF_MAX) cutoff_ms = CUTOFF_MAX;
    for (uint32_t looks = 0; !cnk_list_empty(&shard->expiry); looks++) {
        cnk_partition *p = CNK_CONTAINER(shard->expiry.next, cnk_partition, expiry_node);
        if (p->expiry_round == shard->expiry_round) return false;
        if (looks >= LOOKS_MAX) return true;
        if (p->replica) looks += cnk_log_producer_count(cnk_replica_log(p->replica));
        p->expiry_round = shard->expiry_round;
        cnk_list_remove(&p->expiry_node);
        cnk_list_push_back(&shard->expiry, &p->expiry_node);
        look(p, cutoff_ms);
    }
    return false;
}

/* A failure (no room in the WAL, no memory) leaves it to the next round. */
static void look(cnk_partition *p, int64_t cutoff_ms) {
    if (p->replica == NULL || p->gone || cnk_replica_role_of(p->replica) != CNK_ROLE_LEADER) return;
    const cnk_log *log = cnk_replica_log(p->replica);
    int64_t before = p->expiry_bound;
    p->expiry_bound = cnk_log_end(log);
    if (p->expiry_index > cnk_log_commit_index(log)) return; /* the last one is under way */
    if (cnk_log_expirable(log, cutoff_ms, before))
        (void)cnk_replica_propose_expiry(p->replica, cutoff_ms, before, &p->expiry_index);
}
