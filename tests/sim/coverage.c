/* Counts what happened at each crash point. */
#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "sim/io_sim.h"

typedef struct point {
    char label[SIM_LABEL_SIZE];
    uint64_t calls, crashes, failures;
} point;

struct sim_coverage {
    point *points; /* sorted by label */
    size_t count, capacity;
};

sim_coverage *sim_coverage_new(void) {
    sim_coverage *coverage = calloc(1, sizeof *coverage);
    if (!coverage)
        abort();
    return coverage;
}

void sim_coverage_free(sim_coverage *coverage) {
    if (!coverage)
        return;
    free(coverage->points);
    free(coverage);
}

/* The place of the label, or where it belongs. */
static size_t place_of(const sim_coverage *coverage, const char *label) {
    size_t low = 0, high = coverage->count;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        if (strcmp(coverage->points[middle].label, label) < 0)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

void sim_coverage_add(sim_coverage *coverage, const char *label, uint64_t calls, uint64_t crashes, uint64_t failures) {
    size_t i = place_of(coverage, label);
    if (i == coverage->count || strcmp(coverage->points[i].label, label) != 0) {
        if (coverage->count == coverage->capacity) {
            coverage->capacity = coverage->capacity ? 2 * coverage->capacity : 32;
            coverage->points = realloc(coverage->points, coverage->capacity * sizeof *coverage->points);
            if (!coverage->points)
                abort();
        }
        memmove(coverage->points + i + 1, coverage->points + i, (coverage->count - i) * sizeof *coverage->points);
        coverage->count++;
        memset(&coverage->points[i], 0, sizeof coverage->points[i]);
        snprintf(coverage->points[i].label, sizeof coverage->points[i].label, "%s", label);
    }
    coverage->points[i].calls += calls;
    coverage->points[i].crashes += crashes;
    coverage->points[i].failures += failures;
}

void sim_coverage_merge(sim_coverage *into, const sim_coverage *from) {
    for (size_t i = 0; i < from->count; i++) {
        const point *p = &from->points[i];
        sim_coverage_add(into, p->label, p->calls, p->crashes, p->failures);
    }
}

void sim_coverage_each(const sim_coverage *coverage,
                       void (*each)(void *arg, const char *label, uint64_t calls, uint64_t crashes, uint64_t failures),
                       void *arg) {
    for (size_t i = 0; i < coverage->count; i++) {
        const point *p = &coverage->points[i];
        each(arg, p->label, p->calls, p->crashes, p->failures);
    }
}

uint64_t sim_coverage_crashes(const sim_coverage *coverage) {
    uint64_t crashes = 0;
    for (size_t i = 0; i < coverage->count; i++)
        crashes += coverage->points[i].crashes;
    return crashes;
}

/* The length of a number at p: digits, or a word of eight or more hexadecimal digits with a digit among them. */
static size_t number_len(const char *p) {
    size_t digits = strspn(p, "0123456789"), hex = strspn(p, "0123456789abcdef");
    return hex >= 8 && strcspn(p, "0123456789") < hex ? hex : digits;
}

void sim_path_class(const char *path, char *buf, size_t size) {
    const char *last = strrchr(path, '/'), *start = path;
    for (const char *p = path; last && p < last; p++)
        if (*p == '/')
            start = p + 1;
    size_t n = 0;
    while (*start && n + 1 < size) {
        size_t len = number_len(start);
        buf[n++] = len ? '#' : *start;
        start += len ? len : 1;
    }
    buf[n] = '\0';
}
