/* The frame of a simulation program; program.h says what it does. */
#include "sim/program.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

typedef struct options {
    uint64_t seeds, from;
    size_t bug;
    bool trace, coverage, keep_going;
} options;

uint64_t sim_first_seed(void) {
    const char *given = getenv("CNK_TEST_SEED");
    return given ? strtoull(given, NULL, 10) : (uint64_t)time(NULL) * 1000;
}

static bool number_of(const char *text, uint64_t *ret_number) {
    char *end;
    if (!text || !*text) return false;
    *ret_number = strtoull(text, &end, 10);
    return !*end;
}

static bool bug_of(const sim_program *program, const char *name, size_t *ret_bug) {
    for (size_t n = 0; name && program->bugs[n]; n++) {
        if (strcmp(name, program->bugs[n]) != 0) continue;
        *ret_bug = n;
        return true;
    }
    return false;
}

static bool parse(const sim_program *program, int argc, char **argv, options *o) {
    for (int n = 1; n < argc; n++) {
        const char *name = argv[n], *value = n + 1 < argc ? argv[n + 1] : NULL;
        bool ok = true;
        if (!strcmp(name, "--trace")) o->trace = true;
        else if (!strcmp(name, "--coverage")) o->coverage = true;
        else if (!strcmp(name, "--keep-going")) o->keep_going = true;
        else if (!strcmp(name, "--seeds")) ok = number_of(value, &o->seeds), n++;
        else if (!strcmp(name, "--from")) ok = number_of(value, &o->from), n++;
        else if (!strcmp(name, "--bug")) ok = bug_of(program, value, &o->bug), n++;
        else ok = false;
        if (ok) continue;
        fprintf(stderr, "%s: %s %s: there are --seeds N, --from S, --bug NAME, --trace, --coverage, --keep-going\n",
                program->name, name, value ? value : "");
        return false;
    }
    return true;
}

static void print_point(void *arg, const char *label, uint64_t calls, uint64_t crashes, uint64_t failures) {
    (void)arg;
    printf("  %-40s %10llu calls %8llu crashes %8llu failures\n", label, (unsigned long long)calls,
           (unsigned long long)crashes, (unsigned long long)failures);
}

int sim_main(const sim_program *program, int argc, char **argv) {
    options o = {.seeds = program->seeds, .from = sim_first_seed()};
    if (!parse(program, argc, argv, &o)) return 2;
    program->bug_set(o.bug);
    sim_coverage *coverage = sim_coverage_new();
    uint64_t done = 0, failed = 0, first = 0, worlds = 0, crashes = 0, calls = 0;
    printf("%s: seeds %llu to %llu, bug: %s\n", program->name, (unsigned long long)o.from,
           (unsigned long long)(o.from + o.seeds - 1), program->bugs[o.bug]);
    fflush(stdout);
    while (done < o.seeds && (failed == 0 || o.keep_going)) {
        sim_run run = {.seed = o.from + done++, .trace = o.trace, .coverage = coverage};
        bool clean = program->run(&run);
        worlds += run.worlds;
        crashes += run.crashes;
        calls += run.calls;
        if (clean) continue;
        if (failed++ == 0) first = done;
        printf("seed %llu: %s\n", (unsigned long long)run.seed, run.what);
        fflush(stdout);
    }
    printf("%llu seeds, %llu worlds, %llu crashes, %llu calls; ", (unsigned long long)done, (unsigned long long)worlds,
           (unsigned long long)crashes, (unsigned long long)calls);
    program->print_totals();
    printf("\n");
    if (o.coverage) sim_coverage_each(coverage, print_point, NULL);
    sim_coverage_free(coverage);
    if (o.bug) {
        if (failed) printf("found after %llu seeds\n", (unsigned long long)first);
        printf("%d passed, %d failed\n", failed ? 1 : 0, failed ? 0 : 1);
        return failed ? 0 : 1;
    }
    printf("%llu passed, %llu failed\n", (unsigned long long)(done - failed), (unsigned long long)failed);
    return failed ? 1 : 0;
}
