/* What chronik-bench found out: as text on standard output, as CSV, as JSON. */
#include "bench.h"

#include <errno.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

static const struct {
    const char *name;
    double q; /* 1: the maximum */
} quantiles[] = {{"p50", 0.5}, {"p90", 0.9}, {"p95", 0.95}, {"p99", 0.99}, {"p99.9", 0.999}, {"max", 1}};
enum { QUANTILES = sizeof quantiles / sizeof quantiles[0] };

static double ms_of(uint64_t ns) { return (double)ns / 1e6; }

static double quantile_ms(const bench_result *r, int i) {
    return ms_of(quantiles[i].q < 1 ? bench_distribution_quantile(&r->latency, quantiles[i].q) : r->latency.max_ns);
}

static double mean_ms(const bench_result *r) {
    return r->latency.count ? ms_of(r->latency.sum_ns) / (double)r->latency.count : 0;
}

static double per_s(const bench_result *r) { return r->seconds > 0 ? (double)r->counted / r->seconds : 0; }
static double mb_s(const bench_result *r) { return r->seconds > 0 ? (double)r->counted_bytes / 1e6 / r->seconds : 0; }

void bench_result_problem(bench_result *r, const char *format, ...) {
    va_list args;
    va_start(args, format);
    if (r->problem_count < BENCH_PROBLEMS_MAX)
        vsnprintf(r->problems[r->problem_count], sizeof r->problems[0], format, args);
    r->problem_count++;
    va_end(args);
}

/* ---- figures, the same for all three ---------------------------------------------------------------------------- */

enum { FIGURES_MAX = 40 };

typedef struct figure {
    const char *name;
    double number;
    const char *text; /* or NULL: it is the number */
} figure;

typedef struct figures {
    figure all[FIGURES_MAX];
    int count;
} figures;

static void text(figures *f, const char *name, const char *value) { f->all[f->count++] = (figure){name, 0, value}; }
static void number(figures *f, const char *name, double value) { f->all[f->count++] = (figure){name, value, NULL}; }

static void collect_options(const bench_options *o, const bench_result *r, figures *f) {
    text(f, "mode", bench_modes[o->mode]);
    text(f, "bootstrap_servers", o->brokers);
    text(f, "topic", o->topic);
    text(f, "compression", bench_codecs[o->compression]);
    text(f, "acks", bench_acks[o->acks]);
    number(f, "partitions", r->partitions);
    number(f, "concurrency", (double)o->clients);
    number(f, "in_flight", (double)o->in_flight);
    number(f, "message_size", (double)o->size_bytes);
    number(f, "linger_ms", (double)o->linger_ms);
    number(f, "batch_size", (double)o->batch_bytes);
    number(f, "rate_limit", (double)o->rate_limit);
    number(f, "message_count", (double)o->message_count);
    number(f, "duration_s", (double)o->duration_ms / 1e3);
    number(f, "warmup_s", (double)o->warmup_ms / 1e3);
}

static void collect_results(const bench_result *r, figures *f) {
    number(f, "seconds", r->seconds);
    number(f, "messages", (double)r->counted);
    number(f, "messages_per_s", per_s(r));
    number(f, "mb_per_s", mb_s(r));
    number(f, "sent", (double)r->sent);
    number(f, "acknowledged", (double)r->acked);
    number(f, "failed", (double)r->failed);
    number(f, "offsets_grown", (double)r->offsets_grown);
    number(f, "consumed", (double)r->read);
    number(f, "consumed_own", (double)r->read_own);
    number(f, "own_cpu_percent", r->cpu_percent);
    number(f, "interrupted", r->interrupted);
    number(f, "verified", r->problem_count == 0);
}

/* ---- text ------------------------------------------------------------------------------------------------------- */

static const char *s_of(int64_t n) { return n == 1 ? "" : "s"; }

static void print_load(const bench_options *o, const bench_result *r) {
    if (o->mode == BENCH_CONSUME) printf("%d consumer%s", r->consumers, s_of(r->consumers));
    else printf("%lld client%s, ", (long long)o->clients, s_of(o->clients));
    if (o->rate_limit) printf("%lld/s in all", (long long)o->rate_limit);
    else if (o->mode == BENCH_METADATA) printf("one request underway each");
    else if (o->mode != BENCH_CONSUME) printf("%lld underway each", (long long)o->in_flight);
    if (o->mode == BENCH_ROUND_TRIP) printf(", %d consumer%s", r->consumers, s_of(r->consumers));
    if (o->mode == BENCH_PRODUCE || o->mode == BENCH_ROUND_TRIP)
        printf("; %lld bytes, acks %s, compression %s, linger %lld ms", (long long)o->size_bytes, bench_acks[o->acks],
               bench_codecs[o->compression], (long long)o->linger_ms);
}

void bench_report_head(const bench_options *o, const bench_result *r) {
    printf("%s: %s, topic %s, %d partition%s; ", bench_modes[o->mode], o->brokers, o->topic, r->partitions,
           s_of(r->partitions));
    print_load(o, r);
    putchar('\n');
    fflush(stdout);
}

static void print_latency(const bench_options *o, const bench_result *r) {
    static const char *const ends[] = {"acknowledgement", "", "consumer", "answer"};
    if (!r->latency.count) return;
    bool unanswered = o->mode == BENCH_PRODUCE && o->acks == BENCH_ACKS_NONE;
    printf("latency from %s to %s, ms:", o->rate_limit ? "intended time" : "sending",
           unanswered ? "the socket" : ends[o->mode]);
    for (int i = 0; i < QUANTILES; i++) printf("  %s %.3f", quantiles[i].name, quantile_ms(r, i));
    printf("  mean %.3f\n", mean_ms(r));
}

static void print_verdict(const bench_options *o, const bench_result *r) {
    for (int i = 0; i < r->problem_count && i < BENCH_PROBLEMS_MAX; i++) printf("WRONG %s\n", r->problems[i]);
    if (r->problem_count > BENCH_PROBLEMS_MAX) printf("WRONG and %d more\n", r->problem_count - BENCH_PROBLEMS_MAX);
    if (r->problem_count) return;
    unsigned long long acked = r->acked, read = r->read, own = r->read_own;
    if (o->mode == BENCH_METADATA)
        printf("verified: %llu asked, all answered with %d partition%s\n", acked, r->partitions, s_of(r->partitions));
    else if (o->mode == BENCH_CONSUME)
        printf("verified: %llu consumed, %s\n", read,
               r->early ? "with no offset left out" : "all that the end offsets promise");
    else if (read == own)
        printf("verified: %llu %s, end offsets grew by as much, as many were read back\n", acked,
               o->acks ? "acknowledged" : "sent");
    else
        printf("verified: %llu acknowledged and read back; end offsets grew by %lld, %llu of them of other producers\n",
               acked, (long long)r->offsets_grown, read - own);
}

void bench_report_text(const bench_options *o, const bench_result *r) {
    const char *what = o->mode == BENCH_METADATA ? "requests" : "messages";
    if (r->interrupted) puts("interrupted: what follows is of the time until then");
    if (r->counted && r->seconds > 0) {
        printf("measured %.1f s after %.1f s of warm-up: %llu %s, %.0f/s", r->seconds, (double)o->warmup_ms / 1e3,
               (unsigned long long)r->counted, what, per_s(r));
        if (o->mode != BENCH_METADATA) printf(", %.2f MB/s", mb_s(r));
        putchar('\n');
    } else if (r->problem_count == 0) {
        printf("nothing was measured: it ended %s; give it more to do\n",
               o->warmup_ms ? "in the warm-up" : "as it began");
    }
    print_latency(o, r);
    printf("this program used %.0f %% of a processor\n", r->cpu_percent);
    print_verdict(o, r);
    fflush(stdout);
}

/* ---- files ------------------------------------------------------------------------------------------------------ */

static FILE *open_file(const char *path) {
    FILE *f = fopen(path, "w");
    if (!f) fprintf(stderr, "chronik-bench: %s: %s\n", path, strerror(errno));
    return f;
}

static bool close_file(FILE *f, const char *path) {
    bool good = !ferror(f);
    good = fclose(f) == 0 && good;
    if (!good) fprintf(stderr, "chronik-bench: %s: %s\n", path, strerror(errno));
    return good;
}

static void put_number(FILE *f, double v) {
    if (v == (double)(int64_t)v) fprintf(f, "%lld", (long long)v);
    else fprintf(f, "%.6g", v);
}

static void put_json_string(FILE *f, const char *s) {
    fputc('"', f);
    for (; *s; s++) {
        unsigned char c = (unsigned char)*s;
        if (c == '"' || c == '\\') fprintf(f, "\\%c", c);
        else if (c < 0x20) fprintf(f, "\\u%04x", c);
        else fputc(c, f);
    }
    fputc('"', f);
}

static void put_csv_string(FILE *f, const char *s) {
    fputc('"', f);
    for (; *s; s++) {
        if (*s == '"') fputc('"', f);
        fputc(*s, f);
    }
    fputc('"', f);
}

static void put_json_figures(FILE *f, const char *name, const figures *all) {
    fprintf(f, "  \"%s\": {", name);
    for (int i = 0; i < all->count; i++) {
        fprintf(f, "%s\n    \"%s\": ", i ? "," : "", all->all[i].name);
        if (all->all[i].text) put_json_string(f, all->all[i].text);
        else put_number(f, all->all[i].number);
    }
    fputs("\n  }", f);
}

static void put_json_latency(FILE *f, const bench_result *r) {
    fputs("  \"latency_ms\": {", f);
    for (int i = 0; i < QUANTILES && r->latency.count; i++)
        fprintf(f, "\n    \"%s\": %.6f,", quantiles[i].name, quantile_ms(r, i));
    if (r->latency.count) fprintf(f, "\n    \"mean\": %.6f", mean_ms(r));
    fputs("\n  },\n  \"histogram_ms\": [", f);
    const char *between = "\n    ";
    for (int i = 0; i < BENCH_BUCKETS; i++) {
        if (!r->latency.buckets[i]) continue;
        fprintf(f, "%s[%.6f, %.6f, %llu]", between, ms_of(bench_bucket_lower_ns(i)), ms_of(bench_bucket_upper_ns(i)),
                (unsigned long long)r->latency.buckets[i]);
        between = ",\n    ";
    }
    fputs("\n  ]", f);
}

bool bench_report_json(const bench_options *o, const bench_result *r) {
    FILE *f = open_file(o->json_output);
    figures options = {0}, results = {0};
    if (!f) return false;
    collect_options(o, r, &options);
    collect_results(r, &results);
    fputs("{\n", f);
    put_json_figures(f, "options", &options);
    fputs(",\n", f);
    put_json_figures(f, "results", &results);
    fputs(",\n", f);
    put_json_latency(f, r);
    fputs(",\n  \"intervals\": [", f);
    for (int i = 0; i < r->interval_count; i++) {
        const bench_interval *x = &r->intervals[i];
        fprintf(f, "%s\n    {\"at_s\": %.3f, \"per_s\": %.1f, \"p50_ms\": %.6f, \"p99_ms\": %.6f, \"failed\": %llu}",
                i ? "," : "", x->at_s, x->per_s, ms_of(x->p50_ns), ms_of(x->p99_ns), (unsigned long long)x->failed);
    }
    fputs("\n  ],\n  \"problems\": [", f);
    for (int i = 0; i < r->problem_count && i < BENCH_PROBLEMS_MAX; i++) {
        fputs(i ? ",\n    " : "\n    ", f);
        put_json_string(f, r->problems[i]);
    }
    fputs("\n  ]\n}\n", f);
    return close_file(f, o->json_output);
}

static void put_csv_figures(FILE *f, const char *kind, const figures *all) {
    for (int i = 0; i < all->count; i++) {
        fprintf(f, "%s,%s,", kind, all->all[i].name);
        if (all->all[i].text) put_csv_string(f, all->all[i].text);
        else put_number(f, all->all[i].number);
        fputc('\n', f);
    }
}

/* Lines of kind, name, value: a bucket's name is its upper bound in ms, an interval's the second at which it ends. */
bool bench_report_csv(const bench_options *o, const bench_result *r) {
    FILE *f = open_file(o->csv_output);
    figures options = {0}, results = {0};
    if (!f) return false;
    collect_options(o, r, &options);
    collect_results(r, &results);
    fputs("kind,name,value\n", f);
    put_csv_figures(f, "option", &options);
    put_csv_figures(f, "result", &results);
    for (int i = 0; i < QUANTILES && r->latency.count; i++)
        fprintf(f, "latency_ms,%s,%.6f\n", quantiles[i].name, quantile_ms(r, i));
    if (r->latency.count) fprintf(f, "latency_ms,mean,%.6f\n", mean_ms(r));
    for (int i = 0; i < r->interval_count; i++)
        fprintf(f, "interval_per_s,%.3f,%.1f\ninterval_p99_ms,%.3f,%.6f\n", r->intervals[i].at_s, r->intervals[i].per_s,
                r->intervals[i].at_s, ms_of(r->intervals[i].p99_ns));
    for (int i = 0; i < BENCH_BUCKETS; i++)
        if (r->latency.buckets[i])
            fprintf(f, "bucket_ms,%.6f,%llu\n", ms_of(bench_bucket_upper_ns(i)),
                    (unsigned long long)r->latency.buckets[i]);
    for (int i = 0; i < r->problem_count && i < BENCH_PROBLEMS_MAX; i++) {
        fprintf(f, "problem,%d,", i + 1);
        put_csv_string(f, r->problems[i]);
        fputc('\n', f);
    }
    return close_file(f, o->csv_output);
}
