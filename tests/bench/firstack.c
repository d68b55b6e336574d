/* From exec to the first acknowledged record: how long a broker takes to start on an empty directory.
 *
 *   firstack TOPIC PROGRAM ARGS…
 *
 * Starts the program, reads its `ready … kafka=HOST:PORT` line, connects, creates the topic (CreateTopics 2), sends one
 * record with acks=all (Produce 3) and waits for the answer without an error. Then it prints one line,
 * `pid=… ready_ms=… first_ack_ms=… address=…`, and leaves the program running, for whoever called to look at and to
 * stop. Speaks the protocol itself: a client library would take longer to start than the broker. */
#include <spawn.h>

#include "bench/wire.h"

extern char **environ;

int main(int argc, char **argv) {
    wire_program = "firstack";
    if (argc < 3) return fprintf(stderr, "usage: firstack TOPIC PROGRAM ARGS…\n"), 2;
    const char *topic = argv[1];
    int out[2];
    posix_spawn_file_actions_t fa;
    pid_t pid;
    if (pipe(out)) die("pipe");
    posix_spawn_file_actions_init(&fa);
    posix_spawn_file_actions_adddup2(&fa, out[1], 1);
    posix_spawn_file_actions_addclose(&fa, out[0]);
    posix_spawn_file_actions_addclose(&fa, out[1]);
    double began = now_s();
    errno = posix_spawnp(&pid, argv[2], &fa, NULL, argv + 2, environ);
    if (errno) die(argv[2]);
    close(out[1]);
    FILE *f = fdopen(out[0], "r");
    char line[1024], *at = NULL;
    while (f && !at && fgets(line, sizeof line, f)) at = strncmp(line, "ready", 5) == 0 ? strstr(line, "kafka=") : NULL;
    if (!at) die("no ready line");
    double ready = now_s();

    at += 6;
    at[strcspn(at, " \n,")] = 0;
    int fd = wire_connect(at);
    topic_create(fd, topic, 1);
    for (int tries = 0;; tries++) {
        produce_begin(topic, 0, "first", 5);
        size_t got = exchange(fd);
        int error = (int16_t)get(produce_error_at(topic), 2, got);
        if (error == 0) break;
        if (tries == 1000 || !error_passes(error))
            return fprintf(stderr, "firstack: Produce: error %d\n", error), 1;
        usleep(5000);
    }
    double acked = now_s();
    close(fd);
    printf("pid=%d ready_ms=%.1f first_ack_ms=%.1f address=%s\n", (int)pid, (ready - began) * 1e3,
           (acked - began) * 1e3, at);
    return 0;
}
