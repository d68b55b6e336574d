/* ListPartitionReassignments (KIP-455): with one node no replica is ever being moved, so the list is empty. */
#include "kafka/internal.h"

int cnk_kafka_handle_list_partition_reassignments(cnk_kafka_request *r) {
    cnk_list_partition_reassignments_request in;
    cnk_list_partition_reassignments_response out;
    int code = cnk_kafka_request_decode(r, &in);
    if (code) return code;
    cnk_kafka_defaults(cnk_list_partition_reassignments_response_message.root, &out);
    out.error_message = CNK_KAFKA_STRING_NULL;
    code = cnk_kafka_answer(r, &out);
    return code ? code : CNK_DONE;
}
