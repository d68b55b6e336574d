/* The clocks of the benchmark clients: the wall's, and a broker's CPU time. */
#ifndef CNK_BENCH_CLOCK_H
#define CNK_BENCH_CLOCK_H

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

static inline double now_s(void) {
    struct timespec ts;
    clock_gettime(CLOCK_MONOTONIC, &ts);
    return (double)ts.tv_sec + (double)ts.tv_nsec / 1e9;
}

/* User and system seconds of a whole process: fields 14 and 15 of its stat, which sum up its threads. 0 for none. */
static inline double cpu_s(int pid) {
    char path[64], text[1024];
    unsigned long user = 0, sys = 0;
    if (pid == 0) return 0;
    snprintf(path, sizeof path, "/proc/%d/stat", pid);
    FILE *f = fopen(path, "r");
    size_t n = f ? fread(text, 1, sizeof text - 1, f) : 0;
    if (f) fclose(f);
    text[n] = 0;
    char *p = strrchr(text, ')');
    if (!p || sscanf(p + 2, "%*c %*d %*d %*d %*d %*d %*u %*u %*u %*u %*u %lu %lu", &user, &sys) != 2) {
        fprintf(stderr, "%s cannot be read\n", path);
        exit(1);
    }
    return (double)(user + sys) / (double)sysconf(_SC_CLK_TCK);
}

#endif
