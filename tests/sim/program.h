/* The frame of a simulation program: options, seeds one after the other, coverage, closing lines.
 *
 *     sim_NAME [--seeds N] [--from S] [--bug NAME] [--trace] [--coverage] [--keep-going]
 *
 * Without --from the seeds begin at the time of day, so that each run has new ones; the first line says which. A run ends
 * at the first seed that fails, or with --keep-going after all of them. With --bug a known mistake is put back, and the run
 * succeeds when it is found. The last line is `N passed, M failed`; exit code 0: all seeds clean, or the bug found; 2: an
 * option that there is not. */
#ifndef SIM_PROGRAM_H
#define SIM_PROGRAM_H

#include <stdbool.h>
#include <stdint.h>

#include "sim/io_sim.h"

enum { SIM_WHAT_BYTES = 600 };

typedef struct sim_run {
    uint64_t seed;
    bool trace;
    sim_coverage *coverage;
    /* what the run gives back */
    uint64_t worlds, crashes, calls;
    char what[SIM_WHAT_BYTES]; /* why it failed */
} sim_run;

typedef struct sim_program {
    const char *name;
    uint64_t seeds;            /* without --seeds */
    const char *const *bugs;   /* their names; the first is "none"; NULL at the end */
    void (*bug_set)(size_t bug);
    bool (*run)(sim_run *run); /* false: it failed */
    void (*print_totals)(void); /* what the program itself has counted, as the rest of a sentence, without an end of line */
} sim_program;

int sim_main(const sim_program *program, int argc, char **argv);

/* Where none is given: $CNK_TEST_SEED, or one made of the time. */
uint64_t sim_first_seed(void);

#endif
