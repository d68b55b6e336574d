/* ApiVersions: the table of what is offered. An unknown version of it is answered as version 0 with UNSUPPORTED_VERSION
 * and its own range, so that the client can come down (KIP-511). */
#include <ctype.h>

#include "kafka/internal.h"

/* Letters, digits, and inside also '-' and '.' (KIP-511). */
static bool name_is_legal(cnk_kafka_string s) {
    if (s.len <= 0) return false;
    for (int32_t i = 0; i < s.len; i++) {
        const bool inner = i > 0 && i + 1 < s.len && (s.data[i] == '-' || s.data[i] == '.');
        if (!inner && (!isascii((unsigned char)s.data[i]) || !isalnum((unsigned char)s.data[i]))) return false;
    }
    return true;
}

static int answer_unsupported(cnk_kafka_request *r) {
    cnk_api_versions_response out;
    cnk_api_versions_response_api_version row = {r->api->key, r->api->version_min, r->api->version_max};
    cnk_kafka_defaults(cnk_api_versions_response_message.root, &out);
    out.error_code = CNK_KAFKA_UNSUPPORTED_VERSION;
    out.api_keys.items = &row;
    out.api_keys.count = 1;
    const int code = cnk_kafka_answer_version(r, 0, &out);
    return code ? code : CNK_DONE;
}

static int fill_apis(cnk_kafka_request *r, cnk_api_versions_response *out) {
    out->api_keys.items = cnk_kafka_request_alloc(r, cnk_kafka_api_count, sizeof *out->api_keys.items);
    if (!out->api_keys.items) return CHRONIK_ENOMEM;
    for (size_t i = 0; i < cnk_kafka_api_count; i++)
        out->api_keys.items[out->api_keys.count++] = (cnk_api_versions_response_api_version){
            cnk_kafka_apis[i].key, cnk_kafka_apis[i].version_min, cnk_kafka_apis[i].version_max};
    return 0;
}

static int fill_features(cnk_kafka_request *r, cnk_api_versions_response *out) {
    const size_t n = cnk_kafka_feature_count;
    out->supported_features.items = cnk_kafka_request_alloc(r, n, sizeof *out->supported_features.items);
    out->finalized_features.items = cnk_kafka_request_alloc(r, n, sizeof *out->finalized_features.items);
    if (!out->supported_features.items || !out->finalized_features.items) return CHRONIK_ENOMEM;
    for (size_t i = 0; i < n; i++) {
        const cnk_kafka_feature *f = &cnk_kafka_features[i];
        const cnk_kafka_string name = cnk_kafka_string_of(f->name);
        if (!cnk_kafka_feature_shown(f, r->version)) continue;
        out->supported_features.items[out->supported_features.count++] =
            (cnk_api_versions_response_supported_feature_key){name, f->min, f->max};
        if (f->level == 0) continue;
        out->finalized_features.items[out->finalized_features.count++] =
            (cnk_api_versions_response_finalized_feature_key){name, f->level, f->level};
    }
    out->finalized_features_epoch = (int64_t)cnk_shard_image(cnk_kafka_request_shard(r))->version;
    return 0;
}

int cnk_kafka_handle_api_versions(cnk_kafka_request *r) {
    cnk_api_versions_request in;
    cnk_api_versions_response out;
    if (r->version < r->api->version_min || r->version > r->api->version_max) return answer_unsupported(r);
    int code = cnk_kafka_request_decode(r, &in);
    if (code) return code;
    cnk_kafka_defaults(cnk_api_versions_response_message.root, &out);
    if (r->version >= 3 && (!name_is_legal(in.client_software_name) || !name_is_legal(in.client_software_version))) {
        out.error_code = CNK_KAFKA_INVALID_REQUEST;
    } else {
        code = fill_apis(r, &out);
        if (code == 0) code = fill_features(r, &out);
    }
    if (code == 0) code = cnk_kafka_answer(r, &out);
    return code ? code : CNK_DONE;
}
