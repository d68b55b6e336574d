/* The options of chronik-bench: one table for parsing, help, defaults and limits. Names are those of the chronik-bench
 * that came before, so that scripts go on working. */
#include "bench.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

const char *const bench_modes[] = {"produce", "consume", "round-trip", "metadata", NULL};
const char *const bench_codecs[] = {"none", "gzip", "snappy", "lz4", "zstd", NULL};
const char *const bench_acks[] = {"0", "1", "all", NULL};
static const char *const any_value[] = {NULL};

typedef enum kind { TEXT, NUMBER, TIME, CHOICE, FLAG, PROPERTY, WITHOUT_EFFECT, FLAG_WITHOUT_EFFECT, REFUSED } kind;

typedef struct option {
    char letter;
    const char *name, *unit, *fallback, *variable;
    kind kind;
    size_t field, given; /* places in bench_options; given: 0 where nobody asks */
    int64_t min, max;
    const char *const *choices;
    const char *doc;
} option;

#define AT(field) offsetof(bench_options, field)
#define YEAR_MS (INT64_C(366) * 24 * 3600 * 1000)
#define INT_MS (INT64_C(2147483647))

static const option table[] = {
    {'b', "bootstrap-servers", "host:port,…", "localhost:9092", "KAFKA_BOOTSTRAP_SERVERS", TEXT, AT(brokers), 0, 0, 0,
     NULL, "The broker, or some of a cluster."},
    {'t', "topic", "name", "chronik-bench", "KAFKA_TOPIC", TEXT, AT(topic), 0, 0, 0, NULL, "The topic."},
    {'m', "mode", NULL, "produce", NULL, CHOICE, AT(mode), 0, 0, 0, bench_modes,
     "produce: as -c producers; consume: what is in the topic, from its start; round-trip: produce, and consume at the "
     "tail; "
     "metadata: ask for the topic's metadata."},
    {'c', "concurrency", "clients", "64", NULL, NUMBER, AT(clients), 0, 1, 10000, NULL,
     "Clients, each with a connection of its own. There are at most as many consumers as partitions."},
    {'s', "message-size", "bytes", "1024", NULL, NUMBER, AT(size_bytes), 0, BENCH_RECORD_MIN, 100000000, NULL,
     "Length of a record's value."},
    {'d', "duration", "time", "60s", NULL, TIME, AT(duration_ms), AT(duration_given), 0, YEAR_MS, NULL,
     "How long to measure, after the warm-up; 0: until SIGINT. With -n and without -d: until all are sent."},
    {'w', "warmup-duration", "time", "5s", NULL, TIME, AT(warmup_ms), AT(warmup_given), 0, YEAR_MS, NULL,
     "What happens in this time is verified, but not in the figures. Where it is not given, it is 0 with -n and for "
     "consume."},
    {'n', "message-count", "messages", "0", NULL, NUMBER, AT(message_count), 0, 0, INT64_MAX, NULL,
     "End after so many messages or, for metadata, requests; 0: no limit."},
    {0, "rate-limit", "per-second", "0", NULL, NUMBER, AT(rate_limit), 0, 0, 100000000, NULL,
     "Send at this constant rate, over all clients, whether answers come or not. Latency counts from the moment at "
     "which a "
     "message was to be sent. 0: each client keeps --in-flight messages underway."},
    {0, "in-flight", "messages", "1", NULL, NUMBER, AT(in_flight), 0, 1, 1000000, NULL,
     "Messages of a producer that are underway at once, unless --rate-limit is given. 1: the next is sent when the "
     "last one "
     "has been acknowledged. Some thousands, with --linger-ms 5, measure throughput."},
    {0, "acks", NULL, "all", NULL, CHOICE, AT(acks), 0, 0, 0, bench_acks, "What an acknowledgement means; -1 is all."},
    {0, "compression", NULL, "none", NULL, CHOICE, AT(compression), 0, 0, 0, bench_codecs, "Codec of the producers."},
    {0, "linger-ms", "ms", "0", NULL, NUMBER, AT(linger_ms), 0, 0, 900000, NULL,
     "How long a producer waits for more messages before it sends a batch."},
    {0, "batch-size", "bytes", "1000000", NULL, NUMBER, AT(batch_bytes), 0, 1, 2147483647, NULL, "Largest batch."},
    {'p', "partitions", "count", "1", NULL, NUMBER, AT(partitions), AT(partitions_given), 1, BENCH_PARTITIONS_MAX, NULL,
     "Partitions of a topic that --create-topic makes."},
    {'r', "replication-factor", "count", "1", NULL, NUMBER, AT(replication), 0, 1, 1000, NULL, "Replicas, likewise."},
    {0, "create-topic", NULL, NULL, NULL, FLAG, AT(create_topic), 0, 0, 0, NULL,
     "Create the topic where it does not exist. One that exists is used as it is."},
    {0, "delete-topic-after", NULL, NULL, NULL, FLAG, AT(delete_topic), 0, 0, 0, NULL, "Delete the topic at the end."},
    {0, "request-timeout-ms", "ms", "30000", NULL, NUMBER, AT(request_timeout_ms), 0, 1, 900000, NULL,
     "How long to wait for the answer to one request."},
    {0, "message-timeout-ms", "ms", "60000", NULL, NUMBER, AT(message_timeout_ms), 0, 1, INT_MS, NULL,
     "How long to try to deliver one message."},
    {0, "csv-output", "file", "", NULL, TEXT, AT(csv_output), 0, 0, 0, NULL,
     "Write all figures and the histogram there."},
    {0, "json-output", "file", "", NULL, TEXT, AT(json_output), 0, 0, 0, NULL, "The same as JSON."},
    {0, "progress", NULL, NULL, NULL, FLAG, AT(progress), 0, 0, 0, NULL,
     "A line on standard error each second; so it is anyway where that is a terminal."},
    {0, "report-interval-secs", "seconds", "1", NULL, NUMBER, AT(report_interval_s), 0, 1, 3600, NULL,
     "Time between two such lines, and of the intervals in files."},
    {'X', "property", "name=value", NULL, NULL, PROPERTY, 0, 0, 0, 0, NULL,
     "A property of librdkafka for every client, for example security.protocol=ssl. May be given more than once."},
    {'v', "verbose", NULL, NULL, NULL, FLAG, AT(verbose), 0, 0, 0, NULL, "Show what librdkafka logs."},
    {0, "consumer-group", "name", NULL, NULL, WITHOUT_EFFECT, 0, 0, 0, 0, any_value, "Accepted, and without effect."},
    {0, "key-pattern", "pattern", NULL, NULL, WITHOUT_EFFECT, 0, 0, 0, 0, any_value, "Accepted, and without effect."},
    {0, "payload-pattern", "pattern", NULL, NULL, WITHOUT_EFFECT, 0, 0, 0, 0, any_value,
     "Accepted, and without effect."},
    {0, "validate", NULL, NULL, NULL, FLAG_WITHOUT_EFFECT, 0, 0, 0, 0, NULL,
     "Accepted, and without effect: every run is verified."},
    {0, "prometheus-port", "port", NULL, NULL, REFUSED, 0, 0, 0, 0, NULL,
     "Not supported: --json-output has the figures."},
};
enum { OPTIONS = sizeof table / sizeof table[0] };

/* ---- help ------------------------------------------------------------------------------------------------------- */

static void print_filled(const char *text, int margin) {
    int column = 0;
    for (const char *p = text; *p;) {
        size_t n = strcspn(p, " ");
        if (column == 0 || column + 1 + (int)n > 96 - margin) {
            printf("%s%*s", column ? "\n" : "", margin, "");
            column = 0;
        } else {
            putchar(' ');
            column++;
        }
        printf("%.*s", (int)n, p);
        column += (int)n;
        p += n;
        p += strspn(p, " ");
    }
    putchar('\n');
}

static void print_choices(FILE *to, const char *const *choices, const char *between) {
    for (int i = 0; choices[i]; i++) fprintf(to, "%s%s", i ? between : "", choices[i]);
}

static void print_option(const option *o) {
    printf("  --%s", o->name);
    if (o->kind == CHOICE) {
        putchar(' ');
        print_choices(stdout, o->choices, "|");
    } else if (o->unit) {
        printf(" %s", o->unit);
    }
    if (o->fallback && o->fallback[0]) printf("   [%s]", o->fallback);
    if (o->letter) printf("   -%c", o->letter);
    if (o->variable) printf("   %s", o->variable);
    putchar('\n');
    print_filled(o->doc, 8);
}

static int help(void) {
    puts("chronik-bench: puts a load on a Kafka broker, measures, and verifies what it measured.\n\n"
         "  chronik-bench [OPTIONS]   run\n"
         "  chronik-bench version     print the version\n"
         "  chronik-bench help        print this\n\n"
         "Times end in ms, s, m or h; a bare number is seconds. The default stands in brackets, then the short flag "
         "and the\n"
         "environment variable. Exit codes: 0 done and verified; 1 it did not work, or figures differ; 2 wrong "
         "options.\n");
    for (int i = 0; i < OPTIONS; i++) print_option(&table[i]);
    return BENCH_EXIT_OK;
}

/* The same for the manual page, in roff. */
static void print_roff(const char *text) {
    for (; *text; text++) {
        if (*text == '-' || *text == '\\') putchar('\\');
        putchar(*text);
    }
}

static int manual(void) {
    for (int i = 0; i < OPTIONS; i++) {
        const option *o = &table[i];
        printf(".TP\n\\fB\\-\\-");
        print_roff(o->name);
        if (o->letter) printf("\\fR, \\fB\\-%c", o->letter);
        printf("\\fR \\fI");
        if (o->kind == CHOICE) print_choices(stdout, o->choices, "|");
        else if (o->unit) print_roff(o->unit);
        printf("\\fR\n");
        print_roff(o->doc);
        if (o->fallback && o->fallback[0]) {
            printf("\nDefault: ");
            print_roff(o->fallback);
            putchar('.');
        }
        if (o->variable) printf("\nVariable: %s.", o->variable);
        putchar('\n');
    }
    return BENCH_EXIT_OK;
}

/* ---- parsing ---------------------------------------------------------------------------------------------------- */

static int wrong_choice(const option *o, const char *value) {
    fprintf(stderr, "chronik-bench: --%s: '%.64s' is none of ", o->name, value);
    print_choices(stderr, o->choices, ", ");
    fputc('\n', stderr);
    return BENCH_EXIT_USAGE;
}

static int wrong_value(const option *o, const char *value, const char *expected) {
    fprintf(stderr, "chronik-bench: --%s: '%.64s' is not %s\n", o->name, value, expected);
    return BENCH_EXIT_USAGE;
}

/* A whole number, and where its digits end. */
static bool read_number(const char *text, int64_t *ret_number, const char **ret_rest) {
    char *end;
    if (*text < '0' || *text > '9') return false;
    errno = 0;
    long long n = strtoll(text, &end, 10);
    if (errno) return false;
    *ret_number = n;
    *ret_rest = end;
    return true;
}

static int set_number(const option *o, int64_t *field, const char *value) {
    static const struct {
        const char *name;
        int64_t ms;
    } units[] = {{"", 1000}, {"s", 1000}, {"ms", 1}, {"m", 60000}, {"h", 3600000}};
    int64_t n, scale = o->kind == TIME ? 0 : 1;
    const char *rest;
    if (!read_number(value, &n, &rest))
        return wrong_value(o, value, o->kind == TIME ? "a time such as 500ms, 30s or 5m" : "a whole number");
    for (size_t i = 0; o->kind == TIME && i < sizeof units / sizeof units[0]; i++)
        if (strcmp(rest, units[i].name) == 0) scale = units[i].ms;
    if (scale == 0) return wrong_value(o, value, "a time: a number and one of ms, s, m, h");
    if (o->kind != TIME && *rest) return wrong_value(o, value, "a whole number");
    if (n > o->max / scale || n * scale < o->min) {
        char range[96];
        if (o->kind == TIME) snprintf(range, sizeof range, "at most %lld h", (long long)(o->max / 3600000));
        else snprintf(range, sizeof range, "in %lld … %lld", (long long)o->min, (long long)o->max);
        return wrong_value(o, value, range);
    }
    *field = n * scale;
    return -1;
}

static int set_choice(const option *o, int64_t *field, const char *value) {
    if (o->choices == bench_acks && strcmp(value, "-1") == 0) value = "all";
    for (int i = 0; o->choices[i]; i++)
        if (strcmp(value, o->choices[i]) == 0) {
            *field = i;
            return -1;
        }
    return wrong_choice(o, value);
}

static int add_property(const option *o, bench_options *to, const char *value) {
    if (!strchr(value, '=') || value[0] == '=') return wrong_value(o, value, "NAME=VALUE");
    if (to->property_count == BENCH_PROPERTIES_MAX)
        return wrong_value(o, value, "taken: there are 64 properties already");
    to->properties[to->property_count++] = value;
    return -1;
}

static int set(const option *o, bench_options *to, const char *value) {
    void *field = (char *)to + o->field;
    switch (o->kind) {
    case TEXT: *(const char **)field = value; return -1;
    case NUMBER:
    case TIME: return set_number(o, field, value);
    case CHOICE: return set_choice(o, field, value);
    case FLAG: *(bool *)field = true; return -1;
    case PROPERTY: return add_property(o, to, value);
    case WITHOUT_EFFECT:
    case FLAG_WITHOUT_EFFECT: return -1;
    case REFUSED: fprintf(stderr, "chronik-bench: --%s: %s\n", o->name, o->doc); break;
    }
    return BENCH_EXIT_USAGE;
}

static bool takes_value(const option *o) { return o->kind != FLAG && o->kind != FLAG_WITHOUT_EFFECT; }

/* Insertions, deletions and replacements that make one of the other; names are short. */
static int distance(const char *a, const char *b) {
    enum { LONGEST = 40 };
    int row[LONGEST + 1], n = (int)strlen(b);
    if (n > LONGEST || strlen(a) > LONGEST) return LONGEST;
    for (int j = 0; j <= n; j++) row[j] = j;
    for (int i = 1; a[i - 1]; i++) {
        int diagonal = row[0];
        row[0] = i;
        for (int j = 1; j <= n; j++) {
            int replaced = diagonal + (a[i - 1] != b[j - 1]);
            diagonal = row[j];
            int other = (row[j] < row[j - 1] ? row[j] : row[j - 1]) + 1;
            row[j] = replaced < other ? replaced : other;
        }
    }
    return row[n];
}

static int unknown(const char *word) {
    const char *nearest = NULL;
    int best = 4;
    for (int i = 0; i < OPTIONS && strncmp(word, "--", 2) == 0; i++) {
        bool begins = word[2] && strncmp(word + 2, table[i].name, strlen(word + 2)) == 0;
        int d = begins ? 0 : distance(word + 2, table[i].name);
        if (d < best) best = d, nearest = table[i].name;
    }
    if (nearest) fprintf(stderr, "chronik-bench: there is no option %.64s; did you mean --%s?\n", word, nearest);
    else fprintf(stderr, "chronik-bench: there is no option %.64s; 'chronik-bench help' lists them\n", word);
    return BENCH_EXIT_USAGE;
}

/* The option that a word names, and a value that is part of the word (--name=value, -c128), or NULL. */
static const option *find(const char *word, const char **ret_value) {
    *ret_value = NULL;
    for (int i = 0; i < OPTIONS; i++) {
        const option *o = &table[i];
        if (word[0] == '-' && word[1] && word[1] == o->letter) {
            if (word[2] && takes_value(o)) *ret_value = word + 2;
            else if (word[2]) continue;
            return o;
        }
        size_t n = strlen(o->name);
        if (strncmp(word, "--", 2) != 0 || strncmp(word + 2, o->name, n) != 0) continue;
        if (word[2 + n] == '=' && takes_value(o)) *ret_value = word + 2 + n + 1;
        else if (word[2 + n]) continue;
        return o;
    }
    return NULL;
}

static int parse_words(bench_options *to, int argc, char **argv) {
    bool seen[OPTIONS] = {false};
    for (int i = 1; i < argc; i++) {
        const char *value;
        const option *o = find(argv[i], &value);
        if (!o) return unknown(argv[i]);
        if (seen[o - table] && o->kind != PROPERTY) {
            fprintf(stderr, "chronik-bench: --%s is given twice\n", o->name);
            return BENCH_EXIT_USAGE;
        }
        seen[o - table] = true;
        if (takes_value(o) && !value) {
            if (i + 1 == argc) {
                fprintf(stderr, "chronik-bench: --%s: its value is missing\n", o->name);
                return BENCH_EXIT_USAGE;
            }
            value = argv[++i];
        }
        int code = set(o, to, value);
        if (code >= 0) return code;
        if (o->given) *(bool *)((char *)to + o->given) = true;
    }
    return -1;
}

static int check(bench_options *o) {
    if (o->message_count > 0 && !o->duration_given) o->duration_ms = 0;
    if (!o->warmup_given && (o->message_count > 0 || o->mode == BENCH_CONSUME)) o->warmup_ms = 0;
    const char *wrong = NULL;
    if (!o->brokers[0]) wrong = "-b: the broker's address is empty; give HOST:PORT";
    else if (!o->topic[0]) wrong = "-t: the topic's name is empty";
    else if (o->mode == BENCH_CONSUME && o->rate_limit)
        wrong = "--rate-limit is for the other modes: consume reads as fast as it goes";
    if (!wrong) return -1;
    fprintf(stderr, "chronik-bench: %s\n", wrong);
    return BENCH_EXIT_USAGE;
}

int bench_options_parse(bench_options *o, int argc, char **argv) {
    *o = (bench_options){0};
    for (int i = 1; i < argc; i++) { /* these work whatever the environment says */
        if (strcmp(argv[i], "--help") == 0 || strcmp(argv[i], "-h") == 0 || (i == 1 && strcmp(argv[i], "help") == 0))
            return help();
        if (strcmp(argv[i], "--version") == 0 || strcmp(argv[i], "-V") == 0 ||
            (i == 1 && strcmp(argv[i], "version") == 0)) {
            printf("chronik-bench %s, librdkafka %s\n", CNK_VERSION, rd_kafka_version_str());
            return BENCH_EXIT_OK;
        }
    }
    if (argc == 2 && strcmp(argv[1], "options-roff") == 0) return manual();
    for (int i = 0; i < OPTIONS; i++) {
        const char *value = table[i].variable ? getenv(table[i].variable) : NULL;
        if (!value || !value[0]) value = table[i].fallback;
        int code = value ? set(&table[i], o, value) : -1;
        if (code >= 0) return code;
    }
    int code = parse_words(o, argc, argv);
    return code >= 0 ? code : check(o);
}
