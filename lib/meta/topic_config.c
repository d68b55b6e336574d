/* The table of topic options: Kafka's names, types, defaults and allowed values, and ours beside them.
 *
 * One table serves the check at creation, the resolved settings of the data path, and DescribeConfigs. Sorted by name.
 * Constant; any thread. */
#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <strings.h>

#include "base/assert.h"
#include "base/error.h"
#include "codec/codec.h"
#include "meta/internal.h"

#define ANY_LOW (-HUGE_VAL)
#define ANY_HIGH HUGE_VAL
#define LONG_MAX_TEXT "9223372036854775807"

static const char *const policies[] = {"compact", "delete", NULL};
static const char *const codecs[] = {"uncompressed", "zstd", "lz4", "snappy", "gzip", "producer", NULL};
static const char *const timestamp_types[] = {"CreateTime", "LogAppendTime", NULL};

static const cnk_topic_option table[] = {
    {"cleanup.policy", CNK_CONFIG_LIST, "delete", "log.cleanup.policy", 0, 0, policies,
     "What becomes of old records: removed by age and size (delete), or all but the newest of each key (compact)."},
    {"compression.gzip.level", CNK_CONFIG_INT, "-1", "compression.gzip.level", -1, 9, NULL,
     "The gzip level where the broker compresses; -1: the library's default."},
    {"compression.lz4.level", CNK_CONFIG_INT, "9", "compression.lz4.level", 1, 17, NULL,
     "The LZ4 level where the broker compresses."},
    {"compression.type", CNK_CONFIG_STRING, "producer", "compression.type", 0, 0, codecs,
     "How batches are stored: as the producer sent them (producer), or with this codec."},
    {"compression.zstd.level", CNK_CONFIG_INT, "3", "compression.zstd.level", -131072, 22, NULL,
     "The zstd level where the broker compresses."},
    {"delete.retention.ms", CNK_CONFIG_LONG, "86400000", "log.cleaner.delete.retention.ms", 0, ANY_HIGH, NULL,
     "How long a tombstone stays in a compacted topic."},
    {"file.delete.delay.ms", CNK_CONFIG_LONG, "60000", "log.segment.delete.delay.ms", 0, ANY_HIGH, NULL,
     "How long a removed file may stay on disk."},
    {"flush.messages", CNK_CONFIG_LONG, LONG_MAX_TEXT, "log.flush.interval.messages", 1, ANY_HIGH, NULL,
     "Accepted for compatibility: every acknowledged record is synced."},
    {"flush.ms", CNK_CONFIG_LONG, LONG_MAX_TEXT, "log.flush.interval.ms", 0, ANY_HIGH, NULL,
     "Accepted for compatibility: every acknowledged record is synced."},
    {"follower.replication.throttled.replicas", CNK_CONFIG_LIST, "", NULL, 0, 0, NULL,
     "Replicas whose replication is throttled on the follower's side: partition:broker pairs, or *."},
    {"index.interval.bytes", CNK_CONFIG_INT, "4096", "log.index.interval.bytes", 0, INT32_MAX, NULL,
     "Accepted for compatibility."},
    {"leader.replication.throttled.replicas", CNK_CONFIG_LIST, "", NULL, 0, 0, NULL,
     "Replicas whose replication is throttled on the leader's side: partition:broker pairs, or *."},
    {"local.retention.bytes", CNK_CONFIG_LONG, "-2", "log.local.retention.bytes", -2, ANY_HIGH, NULL,
     "Bytes of a partition to keep on local disk where older data is in the object store; -2: as retention.bytes."},
    {"local.retention.ms", CNK_CONFIG_LONG, "-2", "log.local.retention.ms", -2, ANY_HIGH, NULL,
     "Age of data to keep on local disk where older data is in the object store; -2: as retention.ms."},
    {"max.compaction.lag.ms", CNK_CONFIG_LONG, LONG_MAX_TEXT, "log.cleaner.max.compaction.lag.ms", 1, ANY_HIGH, NULL,
     "The longest time that a record may stay uncompacted."},
    {"max.message.bytes", CNK_CONFIG_INT, "1048588", "message.max.bytes", 0, INT32_MAX, NULL,
     "The largest record batch that a producer may send."},
    {"message.timestamp.after.max.ms", CNK_CONFIG_LONG, "3600000", "log.message.timestamp.after.max.ms", 0, ANY_HIGH,
     NULL, "How far a record's timestamp may be ahead of the broker's clock."},
    {"message.timestamp.before.max.ms", CNK_CONFIG_LONG, LONG_MAX_TEXT, "log.message.timestamp.before.max.ms", 0,
     ANY_HIGH, NULL, "How far a record's timestamp may be behind the broker's clock."},
    {"message.timestamp.type", CNK_CONFIG_STRING, "CreateTime", "log.message.timestamp.type", 0, 0, timestamp_types,
     "Whose clock stamps a record: the producer's (CreateTime) or the broker's (LogAppendTime)."},
    {"min.cleanable.dirty.ratio", CNK_CONFIG_DOUBLE, "0.5", "log.cleaner.min.cleanable.ratio", 0, 1, NULL,
     "The part of a log that must be uncompacted before it is compacted."},
    {"min.compaction.lag.ms", CNK_CONFIG_LONG, "0", "log.cleaner.min.compaction.lag.ms", 0, ANY_HIGH, NULL,
     "The shortest time that a record stays uncompacted."},
    {"min.insync.replicas", CNK_CONFIG_INT, "1", "min.insync.replicas", 1, INT32_MAX, NULL,
     "How many replicas must have a record before acks=all is answered."},
    {"preallocate", CNK_CONFIG_BOOLEAN, "false", "log.preallocate", 0, 0, NULL, "Accepted for compatibility."},
    {"remote.log.copy.disable", CNK_CONFIG_BOOLEAN, "false", NULL, 0, 0, NULL, "Stop copying to the object store."},
    {"remote.log.delete.on.disable", CNK_CONFIG_BOOLEAN, "false", NULL, 0, 0, NULL,
     "Delete what is in the object store when it is switched off."},
    {"remote.storage.enable", CNK_CONFIG_BOOLEAN, "false", NULL, 0, 0, NULL, "Copy old data to the object store."},
    {"retention.bytes", CNK_CONFIG_LONG, "-1", "log.retention.bytes", ANY_LOW, ANY_HIGH, NULL,
     "Bytes of a partition to keep; -1: no limit."},
    {"retention.ms", CNK_CONFIG_LONG, "604800000", "log.retention.ms", -1, ANY_HIGH, NULL,
     "How long records are kept; -1: for ever."},
    {"searchable", CNK_CONFIG_BOOLEAN, "false", "searchable", 0, 0, NULL, "Index the topic for full-text search."},
    {"searchable.enabled", CNK_CONFIG_BOOLEAN, "false", "searchable", 0, 0, NULL, "Another name of searchable."},
    {"segment.bytes", CNK_CONFIG_INT, "1073741824", "log.segment.bytes", 1048576, INT32_MAX, NULL,
     "Accepted for compatibility."},
    {"segment.index.bytes", CNK_CONFIG_INT, "10485760", "log.index.size.max.bytes", 4, INT32_MAX, NULL,
     "Accepted for compatibility."},
    {"segment.jitter.ms", CNK_CONFIG_LONG, "0", "log.roll.jitter.ms", 0, ANY_HIGH, NULL, "Accepted for compatibility."},
    {"segment.ms", CNK_CONFIG_LONG, "604800000", "log.roll.ms", 1, ANY_HIGH, NULL, "Accepted for compatibility."},
    {"unclean.leader.election.enable", CNK_CONFIG_BOOLEAN, "false", "unclean.leader.election.enable", 0, 0, NULL,
     "Accepted for compatibility: a replica without the committed records never leads."},
};

#define COUNT (sizeof table / sizeof table[0])

static bool word_equal(const char *word, const char *value, size_t len);
static bool word_of(const char *const *choices, const char *value, size_t len);
static int check_number(const cnk_topic_option *option, const char *value, size_t len, chronik_error *err);
static int check_list(const cnk_topic_option *option, const char *value, size_t len, chronik_error *err);
static int refuse(const cnk_topic_option *option, const char *value, size_t len, const char *why, chronik_error *err);
static void choices_text(const char *const *choices, char *out, size_t size);
static const char *value_of(const cnk_meta_topic *topic, const cnk_meta_options *options, const char *name);

size_t cnk_topic_option_count(void) { return COUNT; }

const cnk_topic_option *cnk_topic_option_at(size_t i) { return i < COUNT ? &table[i] : NULL; }

const cnk_topic_option *cnk_topic_option_find(const char *name, size_t len) {
    for (size_t i = 0; i < COUNT; i++)
        if (word_equal(table[i].name, name, len)) return &table[i];
    return NULL;
}

int cnk_topic_option_check(const cnk_topic_option *option, const char *value, size_t len, chronik_error *err) {
    char why[160], words[128];
    if (len > CNK_META_CONFIG_VALUE_MAX) return refuse(option, value, 32, "The value is too long", err);
    switch (option->type) {
    case CNK_CONFIG_BOOLEAN:
        if (!(len == 4 && strncasecmp(value, "true", 4) == 0) && !(len == 5 && strncasecmp(value, "false", 5) == 0))
            return refuse(option, value, len, "Expected value to be either true or false", err);
        return 0;
    case CNK_CONFIG_INT:
    case CNK_CONFIG_LONG:
    case CNK_CONFIG_SHORT:
    case CNK_CONFIG_DOUBLE: return check_number(option, value, len, err);
    case CNK_CONFIG_LIST: return check_list(option, value, len, err);
    default:
        if (option->choices == NULL || word_of(option->choices, value, len)) return 0;
        choices_text(option->choices, words, sizeof words);
        snprintf(why, sizeof why, "String must be one of: %s", words);
        return refuse(option, value, len, why, err);
    }
}

const char *cnk_meta_option_value(const cnk_meta_options *options, const cnk_meta_config *configs, size_t config_count,
                                  const cnk_topic_option *option) {
    for (size_t i = 0; i < config_count; i++)
        if (strcmp(configs[i].name, option->name) == 0) return configs[i].value;
    const char *value = NULL;
    if (option->broker_name && options->broker_value) value = options->broker_value(options->arg, option->broker_name);
    return value ? value : option->default_value;
}

/* Values were checked when they were set; those from another version that are not understood become 0 or false. */
void cnk_meta_topic_resolve(cnk_meta_topic *topic, const cnk_meta_options *options) {
    cnk_topic_settings *s = &topic->settings;
    long long bytes = strtoll(value_of(topic, options, "max.message.bytes"), NULL, 10);
    const char *policy = value_of(topic, options, "cleanup.policy");
    const char *codec = value_of(topic, options, "compression.type");
    s->max_message_bytes = bytes > 0 && bytes <= INT32_MAX ? (uint32_t)bytes : 0;
    s->timestamp_before_max_ms = strtoll(value_of(topic, options, "message.timestamp.before.max.ms"), NULL, 10);
    s->timestamp_after_max_ms = strtoll(value_of(topic, options, "message.timestamp.after.max.ms"), NULL, 10);
    s->append_time = strcmp(value_of(topic, options, "message.timestamp.type"), "LogAppendTime") == 0;
    s->compact = strstr(policy, "compact") != NULL;
    s->delete_ = strstr(policy, "delete") != NULL;
    s->min_insync_replicas = (int32_t)strtol(value_of(topic, options, "min.insync.replicas"), NULL, 10);
    s->retention_ms = strtoll(value_of(topic, options, "retention.ms"), NULL, 10);
    s->retention_bytes = strtoll(value_of(topic, options, "retention.bytes"), NULL, 10);
    s->searchable = strcasecmp(value_of(topic, options, "searchable"), "true") == 0 ||
                    strcasecmp(value_of(topic, options, "searchable.enabled"), "true") == 0;
    s->codec = CNK_TOPIC_CODEC_PRODUCER;
    s->codec_level = CNK_CODEC_LEVEL_DEFAULT;
    static const struct {
        const char *name;
        uint8_t number;
        const char *level;
    } numbers[] = {{"uncompressed", CNK_CODEC_NONE, NULL},
                   {"gzip", CNK_CODEC_GZIP, "compression.gzip.level"},
                   {"snappy", CNK_CODEC_SNAPPY, NULL},
                   {"lz4", CNK_CODEC_LZ4, "compression.lz4.level"},
                   {"zstd", CNK_CODEC_ZSTD, "compression.zstd.level"}};
    for (size_t i = 0; i < sizeof numbers / sizeof numbers[0]; i++) {
        if (strcmp(codec, numbers[i].name) != 0) continue;
        s->codec = numbers[i].number;
        if (numbers[i].level) s->codec_level = (int)strtol(value_of(topic, options, numbers[i].level), NULL, 10);
        if (!cnk_codec_level_valid(s->codec, s->codec_level)) s->codec_level = CNK_CODEC_LEVEL_DEFAULT;
    }
}

static const char *value_of(const cnk_meta_topic *topic, const cnk_meta_options *options, const char *name) {
    const cnk_topic_option *option = cnk_topic_option_find(name, strlen(name));
    CNK_ASSERT(option != NULL);
    return cnk_meta_option_value(options, topic->configs, topic->config_count, option);
}

static bool word_equal(const char *word, const char *value, size_t len) {
    return strlen(word) == len && memcmp(word, value, len) == 0;
}

static bool word_of(const char *const *choices, const char *value, size_t len) {
    for (size_t i = 0; choices[i]; i++)
        if (word_equal(choices[i], value, len)) return true;
    return false;
}

static int check_number(const cnk_topic_option *option, const char *value, size_t len, chronik_error *err) {
    static const char *const type_names[] = {[CNK_CONFIG_INT] = "INT",
                                             [CNK_CONFIG_SHORT] = "SHORT",
                                             [CNK_CONFIG_LONG] = "LONG",
                                             [CNK_CONFIG_DOUBLE] = "DOUBLE"};
    char text[64], why[96], *end = NULL;
    snprintf(why, sizeof why, "Not a number of type %s", type_names[option->type]);
    if (len == 0 || len >= sizeof text) return refuse(option, value, len, why, err);
    memcpy(text, value, len);
    text[len] = 0;
    errno = 0;
    double number;
    if (option->type == CNK_CONFIG_DOUBLE) {
        number = strtod(text, &end);
    } else {
        long long whole = strtoll(text, &end, 10);
        number = (double)whole;
        if (option->type == CNK_CONFIG_INT && (whole < INT32_MIN || whole > INT32_MAX)) errno = ERANGE;
    }
    if (*end != 0 || end == text || errno != 0 || isnan(number) || text[0] == ' ')
        return refuse(option, value, len, why, err);
    if (number < option->low || (option->low < 0 && option->high == 9 && number == 0)) {
        snprintf(why, sizeof why, "Value must be at least %.15g", option->low);
        return refuse(option, value, len, why, err);
    }
    if (number > option->high) {
        snprintf(why, sizeof why, "Value must be no more than %.15g", option->high);
        return refuse(option, value, len, why, err);
    }
    return 0;
}

static int check_list(const cnk_topic_option *option, const char *value, size_t len, chronik_error *err) {
    char why[160], words[128];
    if (option->choices == NULL) return 0;
    for (size_t from = 0; from <= len;) {
        size_t to = from;
        while (to < len && value[to] != ',') to++;
        size_t a = from, b = to;
        while (a < b && value[a] == ' ') a++;
        while (b > a && value[b - 1] == ' ') b--;
        if (!word_of(option->choices, value + a, b - a) && len > 0) {
            choices_text(option->choices, words, sizeof words);
            snprintf(why, sizeof why, "String must be one of: %s", words);
            return refuse(option, value + a, b - a, why, err);
        }
        from = to + 1;
    }
    return 0;
}

/* Kafka's sentence (ConfigException). */
static int refuse(const cnk_topic_option *option, const char *value, size_t len, const char *why, chronik_error *err) {
    return cnk_error(err, CHRONIK_EINVALIDCONFIG, 0, "Invalid value %.*s for configuration %s: %s",
                     (int)(len > 64 ? 64 : len), value, option->name, why);
}

static void choices_text(const char *const *choices, char *out, size_t size) {
    size_t at = 0;
    out[0] = 0;
    for (size_t i = 0; choices[i] && at < size; i++)
        at += (size_t)snprintf(out + at, size - at, "%s%s", i ? ", " : "", choices[i]);
}
