/* Requests to coordinators: the calls of one request are started together, and answered when all have come back. */
#include "kafka/internal.h"

static void over(cnk_kafka_groups *g) {
    if (--g->open > 0) return;
    cnk_kafka_request_finish(g->request, g->answer(g->request));
}

static void finish(cnk_group_call *op) { over(op->arg); }

static void cancel(cnk_kafka_request *r) {
    cnk_kafka_groups *g = r->op;
    g->open++; /* held while they are cancelled: the last one that ends takes the request with it */
    for (size_t i = 0; i < g->count; i++) cnk_broker_group_cancel(&g->calls[i]);
    over(g);
}

static void release(cnk_kafka_request *r) {
    cnk_kafka_groups *g = r->op;
    for (size_t i = 0; i < g->started; i++) cnk_broker_group_end(&g->calls[i]);
}

int cnk_kafka_groups_alloc(cnk_kafka_request *r, cnk_kafka_groups *g, size_t count,
                           int (*answer)(cnk_kafka_request *r)) {
    g->request = r;
    g->answer = answer;
    g->count = count;
    g->calls = cnk_kafka_request_alloc(r, count ? count : 1, sizeof *g->calls);
    if (!g->calls) return CHRONIK_ENOMEM;
    for (size_t i = 0; i < count; i++) {
        g->calls[i].context = &r->context;
        g->calls[i].partition = -1;
        g->calls[i].call.version = r->version;
        g->calls[i].call.generation = -1;
        g->calls[i].call.retention_ms = -1;
    }
    r->op = g;
    return 0;
}

int cnk_kafka_groups_start(cnk_kafka_request *r, cnk_kafka_groups *g) {
    cnk_shard *shard = cnk_kafka_request_shard(r);
    g->open = 1; /* held while they are started */
    r->cancel = cancel;
    r->release = release;
    for (size_t i = 0; i < g->count; i++) {
        cnk_group_call *op = &g->calls[i];
        op->done = finish;
        op->arg = g;
        if (op->call.error) continue; /* refused already */
        const int code = cnk_broker_group(shard, op);
        if (code < 0) op->call.error = code == CHRONIK_ESHUTDOWN ? CHRONIK_ENOTCOORDINATOR : code;
        if (code == CNK_PENDING) g->open++;
    }
    g->started = g->count;
    if (--g->open > 0) return CNK_PENDING;
    const int code = g->answer(r);
    return code ? code : CNK_DONE;
}

int16_t cnk_kafka_group_error(int code) {
    switch (code) {
    case CHRONIK_EAGAIN:
    case CHRONIK_ENOMEM:
    case CHRONIK_ESHUTDOWN: return CNK_KAFKA_COORDINATOR_NOT_AVAILABLE;
    default: return cnk_kafka_error(code);
    }
}
