/* A node in the test's own process, in a directory of the test's own. */
#ifndef TESTS_NODE_HOST_H
#define TESTS_NODE_HOST_H

#include <check.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <chronik/node.h>

static char root[64];
static chronik_error err;

typedef struct host {
    chronik_config *config;
    chronik_queue *queue;
    chronik_node *node;
} host;

static inline void root_make(void) {
    strcpy(root, "/tmp/chronik-test-XXXXXX");
    ck_assert_ptr_nonnull(mkdtemp(root));
    memset(&err, 0, sizeof err);
}

static inline void root_remove(void) {
    char command[160];
    snprintf(command, sizeof command, "rm -rf '%s'", root);
    ck_assert_int_eq(system(command), 0);
}

/* On 127.0.0.1, at ports that the kernel picks; `name` is the option that is given besides. */
static inline chronik_config *config_in(const char *dir, const char *name, const char *value) {
    chronik_config *c = NULL;
    const char *settings[][2] = {
        {"data.dir", dir}, {"bind", "127.0.0.1"}, {"kafka.port", "0"}, {"http.port", "0"}, {name, value}};
    ck_assert_int_eq(chronik_config_new(&c), 0);
    for (size_t i = 0; i < sizeof settings / sizeof settings[0]; i++)
        ck_assert_msg(chronik_config_set(c, settings[i][0], settings[i][1], &err) == 0, "%s", err.text);
    return c;
}

static inline host host_with(chronik_config *config) {
    host h = {.config = config};
    ck_assert_int_eq(chronik_queue_new(&err, &h.queue), 0);
    ck_assert_msg(chronik_node_new(h.config, h.queue, &err, &h.node) == 0, "%s", err.text);
    return h;
}

static inline void host_up(host *h) {
    ck_assert_msg(chronik_node_start(h->node, &err) == 0, "%s", err.text);
    ck_assert_msg(chronik_node_wait_ready(h->node, 20000, &err) == 0, "%s", err.text);
}

static inline void host_end(host *h) {
    chronik_node_stop(h->node, 5000);
    ck_assert_int_eq(chronik_node_wait_stopped(h->node, 20000), 0);
    chronik_node_free(h->node);
    chronik_queue_free(h->queue);
    chronik_config_free(h->config);
}

#endif
