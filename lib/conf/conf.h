/* conf: the options of a node, from every source, checked. The table is options.h; README.md has the rules.
 *
 * Threads: a cnk_conf belongs to its maker; once a node has it, nobody changes it. */
#ifndef CNK_CONF_CONF_H
#define CNK_CONF_CONF_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <chronik/error.h>

#include "conf/options.h"

typedef enum cnk_conf_id {
#define CNK_X(id, section, name, type, fallback, min, max, unit, flags, others, doc) CNK_CONF_##id,
    CNK_CONF_OPTIONS(CNK_X)
#undef CNK_X
    CNK_CONF_COUNT
} cnk_conf_id;

typedef enum cnk_conf_type {
    CNK_CONF_BOOL, CNK_CONF_INT, CNK_CONF_BYTES, CNK_CONF_MS, CNK_CONF_PORT, CNK_CONF_TEXT, CNK_CONF_CHOICE
} cnk_conf_type;

typedef enum cnk_conf_section {
    CNK_CONF_NODE, CNK_CONF_NET, CNK_CONF_STORAGE, CNK_CONF_TOPICS, CNK_CONF_CLIENTS, CNK_CONF_SECURITY,
    CNK_CONF_CLUSTER, CNK_CONF_SECTION_COUNT
} cnk_conf_section;

enum {
    CNK_CONF_NO_EFFECT = 1, /* accepted and documented so; told as a warning where it is set */
    CNK_CONF_REFUSED = 2,   /* promises what is not there yet: only the default is accepted */
    CNK_CONF_HIDDEN = 4,    /* for developers: not in the help */
    CNK_CONF_SECRET = 8,    /* its value is never shown */
    CNK_CONF_DYNAMIC = 16   /* may change while the node runs */
};

typedef struct cnk_conf_option {
    cnk_conf_id id;
    cnk_conf_section section;
    const char *name;     /* dotted */
    cnk_conf_type type;
    const char *fallback; /* the default, as text; "" for TEXT, and for numbers: unset */
    int64_t min, max;
    const char *unit;     /* a CHOICE's choices, separated by | */
    unsigned flags;
    const char *others;   /* other names, separated by blanks */
    const char *doc;
} cnk_conf_option;

/* Where a value comes from; the larger wins. */
typedef enum cnk_conf_source {
    CNK_CONF_FROM_DEFAULT, CNK_CONF_FROM_AMBIENT, CNK_CONF_FROM_FILE, CNK_CONF_FROM_ENV, CNK_CONF_FROM_FLAG,
    CNK_CONF_FROM_PROGRAM
} cnk_conf_source;

typedef struct cnk_conf cnk_conf;

const cnk_conf_option *cnk_conf_option_at(size_t index);                  /* NULL past the end */
const char *cnk_conf_section_title(cnk_conf_section section);
const cnk_conf_option *cnk_conf_option_find(const char *name);            /* any spelling; NULL: unknown */
const char *cnk_conf_nearest(const char *name);                           /* dotted; NULL where nothing is near */

int cnk_conf_new(cnk_conf **ret_conf);
void cnk_conf_free(cnk_conf *conf); /* NULL-safe */
int cnk_conf_copy(const cnk_conf *conf, cnk_conf **ret_conf);

/* Takes `value` for the option with this name, in any spelling. EINVAL with a sentence: unknown name, bad value, or a
 * different value from the same source (`where` names the place, for the sentence; may be NULL). */
int cnk_conf_set(cnk_conf *conf, const char *name, const char *value, cnk_conf_source source, const char *where,
                 chronik_error *err);

/* All CHRONIK_ variables, and those that the table lists. `environment`: NULL-terminated "NAME=value". */
int cnk_conf_load_env(cnk_conf *conf, char *const *environment, chronik_error *err);
/* A file's contents; `path` is for error messages. */
int cnk_conf_load_toml(cnk_conf *conf, const char *text, size_t len, const char *path, chronik_error *err);
/* --name value, --name=value, -x value; a BOOL may stand alone. Takes options out of argv: *ret_argc words that are none
 * stay, in order, argv[0] among them. After `--` all words stay. --help and --version stay too. */
int cnk_conf_load_args(cnk_conf *conf, int argc, char **argv, chronik_error *err, int *ret_argc);

/* What goes together and what does not: EINVAL with a sentence that names the remedy. Call after the last source. */
int cnk_conf_check(const cnk_conf *conf, chronik_error *err);

/* Values. Numbers that are unset are -1 (see cnk_conf_is_set). */
const char *cnk_conf_text(const cnk_conf *conf, cnk_conf_id id); /* as given; never NULL; borrowed */
int64_t cnk_conf_int(const cnk_conf *conf, cnk_conf_id id);      /* in ms, bytes, or as it is; CHOICE: its number */
bool cnk_conf_bool(const cnk_conf *conf, cnk_conf_id id);
cnk_conf_source cnk_conf_source_of(const cnk_conf *conf, cnk_conf_id id);
bool cnk_conf_is_set(const cnk_conf *conf, cnk_conf_id id);      /* not the default, or a default other than "" */

/* The value in its plain form, as DescribeConfigs shows it: bytes and milliseconds as numbers, true or false. */
int cnk_conf_format(const cnk_conf *conf, cnk_conf_id id, char *buf, size_t size);

#endif
