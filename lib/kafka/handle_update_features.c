/* UpdateFeatures (KIP-584): a feature that is served stands at its one level; nothing else can be asked for. */
#include <stdio.h>
#include <string.h>

#include "kafka/internal.h"

static bool is_in_force(const cnk_update_features_request_feature_update_key *key) {
    for (size_t i = 0; i < cnk_kafka_feature_count; i++) {
        const cnk_kafka_feature *f = &cnk_kafka_features[i];
        if (f->served && (size_t)key->feature.len == strlen(f->name) &&
            memcmp(key->feature.data, f->name, strlen(f->name)) == 0)
            return key->max_version_level == f->level;
    }
    return false;
}

int cnk_kafka_handle_update_features(cnk_kafka_request *r) {
    cnk_update_features_request in;
    cnk_update_features_response out;
    char text[400];
    int code = cnk_kafka_request_decode(r, &in);
    if (code) return code;
    cnk_kafka_defaults(cnk_update_features_response_message.root, &out);
    out.error_message = CNK_KAFKA_STRING_NULL;
    for (int32_t i = 0; i < in.feature_updates.count && out.error_code == 0; i++) {
        const cnk_update_features_request_feature_update_key *key = &in.feature_updates.items[i];
        if (is_in_force(key)) continue;
        out.error_code = CNK_KAFKA_INVALID_UPDATE_VERSION;
        snprintf(text, sizeof text,
                 "The update failed for all features since the following feature had an error: Invalid update version "
                 "%d for feature %.*s.",
                 key->max_version_level, key->feature.len > 100 ? 100 : (int)key->feature.len,
                 key->feature.data ? key->feature.data : "");
        out.error_message = cnk_kafka_string_of(text);
    }
    code = cnk_kafka_answer(r, &out);
    return code ? code : CNK_DONE;
}
