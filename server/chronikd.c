/* chronikd: the broker as a program. A thin user of chronik/node.h: options, log lines, signals, exit codes.
 *
 *     chronikd [start] [OPTIONS]     serve until SIGTERM or SIGINT
 *     chronikd fsck [cut|quarantine]  check the data directory, or repair it
 *     chronikd version               the version
 *     chronikd help                  commands and options
 *
 * On standard output: one line, `ready kafka=127.0.0.1:9092 …`, when it serves. On standard error: the log.
 * Exit codes: 0 stopped as asked; 1 could not start, or fsck found damage; 2 wrong words or options; 3 the storage failed while it served.
 *
 * One thread, the program's first, waits for signals and for the node's events. */
#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/signalfd.h>
#include <time.h>
#include <unistd.h>

#include <chronik/node.h>

enum { EXIT_OK = 0, EXIT_START = 1, EXIT_USAGE = 2, EXIT_STORAGE = 3 };

typedef struct daemon {
    chronik_config *config;
    chronik_queue *queue;
    chronik_node *node;
    int signals; /* a signalfd */
    bool json, stopping, stopped;
    int exit_code;
} daemon_state;

/* ---- the log ---------------------------------------------------------------------------------------------------- */

static const char *const level_names[] = {"error", "warn", "info", "debug", "trace"};

static void put_json_string(const char *s) {
    fputc('"', stderr);
    for (; *s; s++) {
        unsigned char c = (unsigned char)*s;
        if (c == '"' || c == '\\') fprintf(stderr, "\\%c", c);
        else if (c < 0x20) fprintf(stderr, "\\u%04x", c);
        else fputc(c, stderr);
    }
    fputc('"', stderr);
}

static void log_line(const daemon_state *d, int level, int64_t time_ms, const char *text) {
    char when[32];
    time_t seconds = (time_t)(time_ms / 1000);
    struct tm tm;
    gmtime_r(&seconds, &tm);
    strftime(when, sizeof when, "%Y-%m-%dT%H:%M:%S", &tm);
    int ms = (int)(time_ms % 1000);
    if (d->json) {
        fprintf(stderr, "{\"time\":\"%s.%03dZ\",\"level\":\"%s\",\"message\":", when, ms, level_names[level]);
        put_json_string(text);
        fputs("}\n", stderr);
    } else {
        fprintf(stderr, "%s.%03dZ %-5s %s\n", when, ms, level_names[level], text);
    }
}

static int64_t now_ms(void) {
    struct timespec t;
    clock_gettime(CLOCK_REALTIME, &t);
    return (int64_t)t.tv_sec * 1000 + t.tv_nsec / 1000000;
}

static int usage(const char *text) {
    fprintf(stderr, "chronikd: %s\n", text);
    return EXIT_USAGE;
}

/* ---- help ------------------------------------------------------------------------------------------------------- */

static void print_flag(const char *name) {
    fputs("  --", stdout);
    for (; *name; name++) putchar(*name == '.' ? '-' : *name);
}

/* Words, filled into lines of 96 columns behind a margin. */
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

static void print_option(const chronik_option *o) {
    const char *type = chronik_option_type(o), *unit = chronik_option_unit(o), *others = chronik_option_others(o);
    const char *limits = chronik_option_limits(o), *fallback = chronik_option_default(o);
    print_flag(chronik_option_name(o));
    if (strcmp(type, "bool") != 0) printf(" %s", unit[0] ? unit : type);
    if (fallback[0]) printf("   [%s]", fallback);
    for (const char *p = others; *p;) { /* short flags */
        size_t n = strcspn(p, " ");
        if (n == 2 && p[0] == '-') printf("   %.2s", p);
        p += n + strspn(p + n, " ");
    }
    putchar('\n');
    print_filled(chronik_option_doc(o), 8);
    if (strcmp(limits, "none") == 0) print_filled("Accepted, and without effect.", 8);
    if (strcmp(limits, "refused") == 0) print_filled("Not supported yet: any value but the default is refused.", 8);
}

static int help(void) {
    puts("chronikd: a durable broker that speaks Kafka's protocol.\n\n"
         "  chronikd [start] [OPTIONS]   serve until SIGTERM or SIGINT\n"
         "  chronikd fsck                check the data directory that --data-dir names; exit code 1: it is damaged\n"
         "  chronikd fsck cut            repair the write-ahead log: keep all that is whole, put damaged files aside\n"
         "  chronikd fsck quarantine     put damaged packs aside\n"
         "  chronikd version             print the version\n"
         "  chronikd help                print this\n\n"
         "Every option is also an environment variable (CHRONIK_NUM_PARTITIONS for --num-partitions) and a key\n"
         "of the TOML file that --config names (num_partitions). Flags are stronger than variables, and variables\n"
         "than the file. Its default stands in brackets.");
    const char *section = "";
    size_t it = 0;
    for (const chronik_option *o; (o = chronik_option_next(&it));) {
        if (strcmp(section, chronik_option_section(o)) != 0) printf("\n%s\n", section = chronik_option_section(o));
        print_option(o);
    }
    return EXIT_OK;
}

/* ---- serving ---------------------------------------------------------------------------------------------------- */

/* All sources of options, the weaker ones too late to matter: their order is of no consequence. */
static int load(daemon_state *d, int argc, char **argv, int *ret_argc) {
    chronik_error err = CHRONIK_ERROR_INIT;
    if (chronik_config_load_args(d->config, argc, argv, &err, ret_argc) ||
        chronik_config_load_env(d->config, NULL, &err))
        return usage(err.text);
    const char *file = chronik_config_get(d->config, "config");
    if (file[0] && chronik_config_load_file(d->config, file, &err)) return usage(err.text);
    return EXIT_OK;
}

static void stop(daemon_state *d) {
    chronik_node_stop(d->node, d->stopping ? 0 : -1); /* a second signal means now */
    d->stopping = true;
}

static void on_event(daemon_state *d, const chronik_event *event) {
    switch (chronik_event_type(event)) {
    case CHRONIK_EVENT_LOG:
        log_line(d, chronik_event_level(event), chronik_event_time_ms(event), chronik_event_text(event));
        break;
    case CHRONIK_EVENT_READY:
        printf("ready %s\n", chronik_event_text(event));
        fflush(stdout);
        break;
    case CHRONIK_EVENT_FAILED: d->exit_code = EXIT_START; break;
    case CHRONIK_EVENT_FENCED:
        /* Going on would serve reads of a node that cannot write; a new start recovers what is on the disk. */
        d->exit_code = EXIT_STORAGE;
        stop(d);
        break;
    case CHRONIK_EVENT_STOPPED:
        if (chronik_event_error(event) && !d->exit_code) d->exit_code = EXIT_STORAGE;
        d->stopped = true;
        break;
    default: break;
    }
}

static void serve(daemon_state *d) {
    while (!d->stopped) {
        struct pollfd fds[2] = {{d->signals, POLLIN, 0}, {chronik_queue_fd(d->queue), POLLIN, 0}};
        if (poll(fds, 2, -1) < 0 && errno != EINTR) abort();
        struct signalfd_siginfo info;
        if ((fds[0].revents & POLLIN) && read(d->signals, &info, sizeof info) == (ssize_t)sizeof info) stop(d);
        chronik_event *event;
        while (!d->stopped && chronik_queue_poll(d->queue, 0, &event) == 1) {
            on_event(d, event);
            chronik_event_free(event);
        }
    }
}

/* From here on SIGTERM, SIGINT and SIGHUP are read, not delivered; the library's threads block all signals anyway. */
static int take_signals(void) {
    sigset_t set;
    sigemptyset(&set);
    sigaddset(&set, SIGTERM);
    sigaddset(&set, SIGINT);
    sigaddset(&set, SIGHUP);
    sigprocmask(SIG_BLOCK, &set, NULL);
    signal(SIGPIPE, SIG_IGN); /* standard output may be closed by its reader */
    return signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
}

static int start(daemon_state *d) {
    chronik_error err = CHRONIK_ERROR_INIT;
    int rc = chronik_config_check(d->config, &err);
    if (rc) return usage(err.text);
    d->json = strcmp(chronik_config_get(d->config, "log.format"), "json") == 0;
    if (chronik_queue_new(&err, &d->queue) || chronik_node_new(d->config, d->queue, &err, &d->node)) return usage(err.text);
    size_t it = 0;
    for (const char *name; (name = chronik_config_next_idle(d->config, &it));) {
        char line[256];
        snprintf(line, sizeof line, "%s is set, and without effect", name);
        log_line(d, CHRONIK_LOG_WARN, now_ms(), line);
    }
    d->signals = take_signals();
    if (d->signals < 0) return EXIT_START;
    rc = chronik_node_start(d->node, &err);
    if (rc) {
        log_line(d, CHRONIK_LOG_ERROR, now_ms(), err.text);
        return rc == CHRONIK_EINVAL || rc == CHRONIK_EUNSUPPORTED ? EXIT_USAGE : EXIT_START;
    }
    serve(d);
    return d->exit_code;
}

static void print_line(void *arg, const char *text) {
    (void)arg;
    puts(text);
}

static int fsck(const daemon_state *d, const char *how) {
    chronik_error err = CHRONIK_ERROR_INIT;
    unsigned flags = 0;
    if (how && strcmp(how, "cut") == 0) flags = CHRONIK_FSCK_CUT;
    else if (how && strcmp(how, "quarantine") == 0) flags = CHRONIK_FSCK_QUARANTINE;
    else if (how) return usage("fsck knows 'cut' and 'quarantine'");
    int rc = chronik_fsck(chronik_config_get(d->config, "data.dir"), flags, print_line, NULL, &err);
    if (rc) fprintf(stderr, "chronikd: %s\n", err.text[0] ? err.text : chronik_strerror(rc));
    return rc ? EXIT_START : EXIT_OK;
}

/* What is there to say of commands that come later. */
static int not_yet(const char *command) {
    static const char *const later[] = {"cluster", "compact", NULL};
    char text[256];
    for (int i = 0; later[i]; i++)
        if (strcmp(command, later[i]) == 0) {
            snprintf(text, sizeof text, "'%s' is not supported yet: this version runs a single node", command);
            return usage(text);
        }
    snprintf(text, sizeof text, "there is no command '%.64s'; the commands are start, fsck, version and help", command);
    return usage(text);
}

int main(int argc, char **argv) {
    daemon_state d = {.signals = -1};
    int words = argc, code;
    if (chronik_config_new(&d.config)) return EXIT_START;
    /* Help and version work whatever the environment says. */
    for (int i = 1; i < argc; i++) {
        if (strcmp(argv[i], "--help") == 0 || strcmp(argv[i], "-h") == 0 || (i == 1 && strcmp(argv[i], "help") == 0)) {
            code = help();
            goto out;
        }
        if (strcmp(argv[i], "--version") == 0 || strcmp(argv[i], "-V") == 0 ||
            (i == 1 && strcmp(argv[i], "version") == 0)) {
            printf("chronikd %s\n", chronik_version());
            code = EXIT_OK;
            goto out;
        }
    }
    code = load(&d, argc, argv, &words);
    if (code) goto out;
    const char *command = words > 1 ? argv[1] : "start";
    if (strcmp(command, "fsck") == 0 && words <= 3) code = fsck(&d, words > 2 ? argv[2] : NULL);
    else if (strcmp(command, "start") != 0 && strcmp(command, "fsck") != 0) code = not_yet(command);
    else if (words > 2) code = usage("too many words; options begin with --");
    else code = start(&d);
out:
    chronik_node_free(d.node);
    chronik_queue_free(d.queue);
    chronik_config_free(d.config);
    if (d.signals >= 0) close(d.signals);
    return code;
}
