/* InitProducerId: an id for an idempotent producer. A transactional id is refused as not authorised: there are no
 * transactions yet. */
#include "kafka/internal.h"

static int answer(cnk_kafka_request *r, int16_t error, int64_t producer_id, int16_t epoch) {
    cnk_init_producer_id_response out;
    cnk_kafka_defaults(cnk_init_producer_id_response_message.root, &out);
    out.error_code = error;
    out.producer_id = error ? -1 : producer_id;
    out.producer_epoch = error ? -1 : epoch;
    return cnk_kafka_answer(r, &out);
}

static int answer_op(cnk_kafka_request *r, const cnk_init_producer *op) {
    return answer(r, cnk_kafka_error(op->error), op->ret_producer_id, op->ret_producer_epoch);
}

static void initialized(cnk_init_producer *op) {
    cnk_kafka_request *r = op->arg;
    cnk_kafka_request_finish(r, answer_op(r, op));
}

static void cancel(cnk_kafka_request *r) { cnk_broker_init_producer_cancel(r->op); }

int cnk_kafka_handle_init_producer_id(cnk_kafka_request *r) {
    cnk_init_producer_id_request in;
    cnk_init_producer *op = cnk_kafka_request_alloc(r, 1, sizeof *op);
    if (!op) return CHRONIK_ENOMEM;
    int code = cnk_kafka_request_decode(r, &in);
    if (code) return code;
    if (in.transactional_id.len == 0 ||
        (in.transactional_id.len < 0 && (in.producer_id == -1) != (in.producer_epoch == -1))) {
        code = answer(r, CNK_KAFKA_INVALID_REQUEST, -1, -1);
        return code ? code : CNK_DONE;
    }
    op->context = &r->context;
    op->transactional_id = cnk_kafka_text_of(in.transactional_id);
    /* Without a transactional id the client always gets a new producer id, whatever it had. */
    op->producer_id = op->producer_epoch = -1;
    op->done = initialized;
    op->arg = r;
    r->op = op;
    r->cancel = cancel;
    code = cnk_broker_init_producer(cnk_kafka_request_shard(r), op);
    if (code == CNK_PENDING) return CNK_PENDING;
    if (code < 0) op->error = code;
    code = answer_op(r, op);
    return code ? code : CNK_DONE;
}
