/* Names of options in their four spellings, and the three outer sources: flags, environment, file. */
#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "base/error.h"
#include "base/mem.h"
#include "conf/conf.h"
#include "conf/toml.h"

enum { NAME_MAX_BYTES = 128 };

/* ---- names ----------------------------------------------------------------------------------------------------- */

/* Any spelling to the dotted one. A variable keeps what follows CHRONIK_. False: too long to be a name. */
static bool fold(const char *name, char folded[NAME_MAX_BYTES]) {
    size_t skip = 0;
    if (strncmp(name, "CHRONIK_", 8) == 0) skip = 8;
    else if (strncmp(name, "--", 2) == 0) skip = 2;
    size_t n = 0;
    for (const char *p = name + skip; *p; p++, n++) {
        if (n + 1 >= NAME_MAX_BYTES) return false;
        folded[n] = *p == '_' || *p == '-' ? '.' : (char)tolower((unsigned char)*p);
    }
    folded[n] = '\0';
    return true;
}

static bool among(const char *words, const char *word) {
    size_t len = strlen(word);
    for (const char *p = words; *p;) {
        size_t n = strcspn(p, " ");
        if (n == len && memcmp(p, word, len) == 0) return true;
        p += n;
        p += strspn(p, " ");
    }
    return false;
}

static bool is_short_flag(const char *name) { return name[0] == '-' && name[1] && name[1] != '-' && !name[2]; }

const cnk_conf_option *cnk_conf_option_find(const char *name) {
    char folded[NAME_MAX_BYTES];
    if (!name[0]) return NULL;
    bool exact = is_short_flag(name); /* short flags are not folded */
    if (!exact && !fold(name, folded)) return NULL;
    const cnk_conf_option *o;
    for (size_t i = 0; (o = cnk_conf_option_at(i)); i++) {
        if (!exact && strcmp(o->name, folded) == 0) return o;
        if (among(o->others, name) || (!exact && among(o->others, folded))) return o;
    }
    return NULL;
}

/* The edit distance (Levenshtein), or any number from `limit` on. It is at least the difference of the lengths, and at
 * least the smallest number of each row. */
static size_t distance(const char *a, const char *b, size_t limit) {
    size_t row[NAME_MAX_BYTES + 1], m = strlen(a), n = strlen(b);
    if (n > NAME_MAX_BYTES || (m > n ? m - n : n - m) >= limit) return limit;
    for (size_t j = 0; j <= n; j++) row[j] = j;
    for (size_t i = 1; i <= m; i++) {
        size_t diagonal = row[0], least = i;
        row[0] = i;
        for (size_t j = 1; j <= n; j++) {
            size_t here = diagonal + (a[i - 1] != b[j - 1]);
            diagonal = row[j];
            if (row[j] + 1 < here) here = row[j] + 1;
            if (row[j - 1] + 1 < here) here = row[j - 1] + 1;
            row[j] = here;
            if (here < least) least = here;
        }
        if (least >= limit) return limit;
    }
    return row[n];
}

const char *cnk_conf_nearest(const char *name) {
    char folded[NAME_MAX_BYTES];
    if (!fold(name, folded)) return NULL;
    const char *best = NULL;
    size_t best_distance = strlen(folded) / 3 + 2;
    const cnk_conf_option *o;
    for (size_t i = 0; (o = cnk_conf_option_at(i)); i++) {
        if (o->flags & CNK_CONF_HIDDEN) continue;
        size_t d = distance(folded, o->name, best_distance);
        if (d < best_distance) best = o->name, best_distance = d;
    }
    return best;
}

/* The nearest option's name in the spelling of `like`: a flag for a flag, a variable for a variable. */
static const char *nearest_like(const char *like, char *buf, size_t size) {
    const char *near = cnk_conf_nearest(like);
    if (!near) return NULL;
    bool flag = strncmp(like, "--", 2) == 0, variable = strncmp(like, "CHRONIK_", 8) == 0;
    int n = snprintf(buf, size, "%s%s", flag ? "--" : variable ? "CHRONIK_" : "", near);
    if (n < 0 || (size_t)n >= size) return NULL;
    for (char *p = buf + (variable ? 8 : flag ? 2 : 0); *p; p++) {
        if (*p == '.') *p = flag ? '-' : '_';
        else if (variable) *p = (char)toupper((unsigned char)*p);
    }
    return buf;
}

static int unknown(const char *where, const char *name, chronik_error *err) {
    char buf[NAME_MAX_BYTES + 16];
    const char *near = nearest_like(name, buf, sizeof buf);
    return near ? cnk_error(err, CHRONIK_EINVAL, 0, "%s: there is no such option; did you mean %s?", where, near)
                : cnk_error(err, CHRONIK_EINVAL, 0, "%s: there is no such option; --help lists them", where);
}

/* ---- environment ----------------------------------------------------------------------------------------------- */

/* Kubernetes gives every pod variables for each service; for one called chronik they look like ours. CHRONIK_TEST_… are
 * for our tests, which start programs in their own environment. */
static bool not_an_option(const char *name) {
    return strncmp(name, "CHRONIK_SERVICE_", 16) == 0 || strcmp(name, "CHRONIK_PORT") == 0 ||
           strncmp(name, "CHRONIK_PORT_", 13) == 0 || strncmp(name, "CHRONIK_TEST_", 13) == 0;
}

/* RUST_LOG speaks a language of its own ("info,h2=warn"), and not to us alone: its first plain level counts. */
static int set_rust_log(cnk_conf *conf, const char *value, chronik_error *err) {
    static const char *const levels[] = {"error", "warn", "info", "debug", "trace", NULL};
    for (const char *p = value; *p;) {
        size_t n = strcspn(p, ",");
        for (int i = 0; levels[i]; i++)
            if (strlen(levels[i]) == n && strncasecmp(p, levels[i], n) == 0)
                return cnk_conf_set(conf, "log.level", levels[i], CNK_CONF_FROM_AMBIENT, "RUST_LOG", err);
        p += n + (p[n] == ',');
    }
    return 0;
}

int cnk_conf_load_env(cnk_conf *conf, char *const *environment, chronik_error *err) {
    for (; environment && *environment; environment++) {
        const char *equals = strchr(*environment, '=');
        char name[NAME_MAX_BYTES];
        if (!equals || (size_t)(equals - *environment) >= sizeof name) continue;
        memcpy(name, *environment, (size_t)(equals - *environment));
        name[equals - *environment] = '\0';
        const char *text = equals + 1;
        bool ours = strncmp(name, "CHRONIK_", 8) == 0;
        int rc = 0;
        if (ours) {
            if (not_an_option(name)) continue;
            if (!cnk_conf_option_find(name)) return unknown(name, name, err);
            rc = cnk_conf_set(conf, name, text, CNK_CONF_FROM_ENV, name, err);
        } else if (strcmp(name, "RUST_LOG") == 0) {
            rc = set_rust_log(conf, text, err);
        } else if (text[0]) {
            /* A name in capitals stands in the table as it is. */
            bool capitals = true;
            for (const char *p = name; *p; p++) capitals = capitals && !islower((unsigned char)*p);
            const cnk_conf_option *o = NULL;
            for (size_t i = 0; capitals && (o = cnk_conf_option_at(i)) && !among(o->others, name); i++) {}
            if (capitals && o) rc = cnk_conf_set(conf, o->name, text, CNK_CONF_FROM_AMBIENT, name, err);
        }
        if (rc) return rc;
    }
    return 0;
}

/* ---- file ------------------------------------------------------------------------------------------------------ */

typedef struct file_walk {
    cnk_conf *conf;
    const char *path;
    chronik_error *err;
} file_walk;

/* `bind.kafka = "0.0.0.0:9092"` and the like: a listener's address and port in one. */
static int set_listener(file_walk *w, const cnk_toml_item *item, const char *where, const char *address_option,
                        const char *port_option) {
    char host[256];
    const char *colon = strrchr(item->value, ':');
    if (!colon || (size_t)(colon - item->value) >= sizeof host)
        return cnk_error(w->err, CHRONIK_EINVAL, 0, "%s: '%s' is not an address with a port; give host:port", where,
                         item->value);
    memcpy(host, item->value, (size_t)(colon - item->value));
    host[colon - item->value] = '\0';
    int rc = address_option ? cnk_conf_set(w->conf, address_option, host, CNK_CONF_FROM_FILE, where, w->err) : 0;
    return rc ? rc : cnk_conf_set(w->conf, port_option, colon + 1, CNK_CONF_FROM_FILE, where, w->err);
}

static int take_item(void *arg, const cnk_toml_item *item) {
    static const struct { const char *key, *address, *port; } listeners[] = {
        {"bind.kafka", "bind.addr", "kafka.port"},
        {"bind.wal", NULL, "wal.port"},
        {"bind.raft", NULL, "raft.port"},
        {"bind.metrics", NULL, "metrics.port"},
        {"bind.search", NULL, "http.port"},
    };
    file_walk *w = arg;
    char where[256];
    snprintf(where, sizeof where, "%s:%d: %s", w->path, item->line, item->key);
    for (size_t i = 0; i < sizeof listeners / sizeof *listeners; i++)
        if (strcmp(item->key, listeners[i].key) == 0)
            return set_listener(w, item, where, listeners[i].address, listeners[i].port);
    if (strcmp(item->key, "advertise.kafka") == 0)
        return cnk_conf_set(w->conf, "advertised.addr", item->value, CNK_CONF_FROM_FILE, where, w->err);
    if (strcmp(item->key, "advertise.wal") == 0 || strcmp(item->key, "advertise.raft") == 0) return 0; /* clusters' */
    if (item->element >= 0) {
        if (strncmp(item->key, "peers.", 6) == 0)
            return cnk_error(w->err, CHRONIK_EUNSUPPORTED, 0,
                             "%s: clusters are not supported yet; leave out [[peers]] to run a single node", where);
        return cnk_error(w->err, CHRONIK_EINVAL, 0, "%s: there is no such array of tables", where);
    }
    if (!cnk_conf_option_find(item->key)) return unknown(where, item->key, w->err);
    if (cnk_conf_option_find(item->key)->id == CNK_CONF_CONFIG)
        return cnk_error(w->err, CHRONIK_EINVAL, 0, "%s: a file cannot name another; leave it out", where);
    return cnk_conf_set(w->conf, item->key, item->value, CNK_CONF_FROM_FILE, where, w->err);
}

int cnk_conf_load_toml(cnk_conf *conf, const char *text, size_t len, const char *path, chronik_error *err) {
    file_walk w = {.conf = conf, .path = path, .err = err};
    return cnk_toml_read(text, len, path, take_item, &w, err);
}

/* ---- flags ----------------------------------------------------------------------------------------------------- */

/* A switch may stand alone, or be followed by a word that says which way. */
static bool is_switch_word(const char *word) {
    return word && (strcasecmp(word, "true") == 0 || strcasecmp(word, "false") == 0);
}

int cnk_conf_load_args(cnk_conf *conf, int argc, char **argv, chronik_error *err, int *ret_argc) {
    int kept = argc > 0 ? 1 : 0;
    for (int i = 1; i < argc; i++) {
        char *word = argv[i];
        if (strcmp(word, "--") == 0) {
            while (i < argc) argv[kept++] = argv[i++];
            break;
        }
        if (word[0] != '-' || !word[1] || strcmp(word, "--help") == 0 || strcmp(word, "--version") == 0 ||
            strcmp(word, "-h") == 0 || strcmp(word, "-V") == 0) {
            argv[kept++] = word;
            continue;
        }
        char name[NAME_MAX_BYTES];
        const char *equals = word[1] == '-' ? strchr(word, '=') : NULL;
        size_t len = equals ? (size_t)(equals - word) : strlen(word);
        if (len >= sizeof name) return unknown(word, "", err);
        memcpy(name, word, len);
        name[len] = '\0';
        const cnk_conf_option *o = name[1] == '-' || is_short_flag(name) ? cnk_conf_option_find(name) : NULL;
        if (!o) return unknown(name, name, err);
        const char *text;
        if (equals) text = equals + 1;
        else if (o->type == CNK_CONF_BOOL && !is_switch_word(i + 1 < argc ? argv[i + 1] : NULL)) text = "true";
        else if (i + 1 < argc) text = argv[++i];
        else
            return cnk_error(err, CHRONIK_EINVAL, 0, "%s: the value is missing; give it after a blank or a '='", name);
        int rc = cnk_conf_set(conf, o->name, text, CNK_CONF_FROM_FLAG, name, err);
        if (rc) return rc;
    }
    *ret_argc = kept;
    return 0;
}
