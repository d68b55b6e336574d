/* Values of options: the table, parsing, sources, and what goes together. Owned by its maker; no thread of its own. */
#include <ctype.h>
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "base/assert.h"
#include "base/error.h"
#include "base/mem.h"
#include "conf/conf.h"

#define NO_EFFECT CNK_CONF_NO_EFFECT
#define REFUSED CNK_CONF_REFUSED
#define HIDDEN CNK_CONF_HIDDEN
#define SECRET CNK_CONF_SECRET
#define DYNAMIC CNK_CONF_DYNAMIC

static const cnk_conf_option options[CNK_CONF_COUNT] = {
#define CNK_X(id, section, name, type, fallback, min, max, unit, flags, others, doc)                                  \
    {CNK_CONF_##id, CNK_CONF_##section, name, CNK_CONF_##type, fallback, min, max, unit, flags, others, doc},
    CNK_CONF_OPTIONS(CNK_X)
#undef CNK_X
};

typedef struct value {
    char *text; /* NULL: the default */
    int64_t number;
    cnk_conf_source source;
} value;

struct cnk_conf {
    value values[CNK_CONF_COUNT];
};

/* ---- the table ------------------------------------------------------------------------------------------------- */

const cnk_conf_option *cnk_conf_option_at(size_t index) { return index < CNK_CONF_COUNT ? &options[index] : NULL; }

const char *cnk_conf_section_title(cnk_conf_section section) {
    static const char *const titles[CNK_CONF_SECTION_COUNT] = {
        "The node", "Addresses and connections", "Storage", "Topics", "Clients", "Security", "Clusters"};
    return (unsigned)section < CNK_CONF_SECTION_COUNT ? titles[section] : "";
}

/* ---- parsing --------------------------------------------------------------------------------------------------- */

typedef struct suffix {
    const char *name;
    int64_t factor;
} suffix;

static const suffix byte_suffixes[] = {
    {"", 1}, {"b", 1}, {"k", 1000}, {"kb", 1000}, {"m", 1000000}, {"mb", 1000000}, {"g", 1000000000},
    {"gb", 1000000000}, {"tb", INT64_C(1000000000000)}, {"kib", 1024}, {"mib", 1048576}, {"gib", 1073741824},
    {"tib", INT64_C(1099511627776)}, {NULL, 0}};
static const suffix time_suffixes[] = {{"", 1}, {"ms", 1}, {"s", 1000}, {"m", 60000}, {"h", 3600000},
                                       {"d", 86400000}, {NULL, 0}};
static const suffix no_suffixes[] = {{"", 1}, {NULL, 0}};

static int parse_number(const char *text, const suffix *suffixes, int64_t *ret_number) {
    char *end;
    errno = 0;
    long long v = strtoll(text, &end, 10);
    if (errno || end == text || isspace((unsigned char)text[0])) return CHRONIK_EINVAL;
    while (*end == ' ') end++;
    for (const suffix *s = suffixes; s->name; s++) {
        if (strcasecmp(end, s->name) != 0) continue;
        int64_t product;
        if (__builtin_mul_overflow((int64_t)v, s->factor, &product)) return CHRONIK_EINVAL;
        *ret_number = product;
        return 0;
    }
    return CHRONIK_EINVAL;
}

static int parse_bool(const char *text, int64_t *ret_number) {
    static const char *const words[] = {"false", "true", "no", "yes", "off", "on", "0", "1", NULL};
    for (int i = 0; words[i]; i++)
        if (strcasecmp(text, words[i]) == 0) {
            *ret_number = i & 1;
            return 0;
        }
    return CHRONIK_EINVAL;
}

static int parse_choice(const char *choices, const char *text, int64_t *ret_number) {
    size_t len = strlen(text);
    int64_t n = 0;
    for (const char *p = choices;; p++, n++) {
        size_t word = strcspn(p, "|");
        if (word == len && strncasecmp(p, text, len) == 0) {
            *ret_number = n;
            return 0;
        }
        p += word;
        if (!*p) return CHRONIK_EINVAL;
    }
}

static int parse(const cnk_conf_option *o, const char *text, int64_t *ret_number) {
    int64_t v = -1;
    int rc = 0;
    switch (o->type) {
    case CNK_CONF_TEXT: {
        int64_t len = (int64_t)strlen(text);
        if (len < o->min || len > o->max) return CHRONIK_EINVAL;
        *ret_number = -1;
        return 0;
    }
    case CNK_CONF_BOOL: return parse_bool(text, ret_number);
    case CNK_CONF_CHOICE: return parse_choice(o->unit, text, ret_number);
    case CNK_CONF_BYTES: rc = parse_number(text, byte_suffixes, &v); break;
    case CNK_CONF_MS: rc = parse_number(text, time_suffixes, &v); break;
    case CNK_CONF_INT:
    case CNK_CONF_PORT: rc = parse_number(text, no_suffixes, &v); break;
    }
    if (rc) return rc;
    if (v < o->min || v > o->max) return CHRONIK_EINVAL;
    *ret_number = v;
    return 0;
}

/* A number's default may be "": unset. */
static int64_t default_number(const cnk_conf_option *o) {
    int64_t v = -1;
    if (o->type == CNK_CONF_TEXT || !o->fallback[0]) return -1;
    int rc = parse(o, o->fallback, &v);
    CNK_ASSERT(rc == 0);
    return v;
}

static void describe_wanted(const cnk_conf_option *o, char *buf, size_t size) {
    switch (o->type) {
    case CNK_CONF_BOOL: snprintf(buf, size, "true or false"); break;
    case CNK_CONF_CHOICE: snprintf(buf, size, "one of %s", o->unit); break;
    case CNK_CONF_TEXT: snprintf(buf, size, "a text of %" PRId64 " to %" PRId64 " bytes", o->min, o->max); break;
    case CNK_CONF_BYTES:
        snprintf(buf, size, "a size between %" PRId64 " and %" PRId64 " bytes, such as 100MB", o->min, o->max);
        break;
    case CNK_CONF_MS:
        snprintf(buf, size, "a time between %" PRId64 " and %" PRId64 " ms, such as 30s", o->min, o->max);
        break;
    case CNK_CONF_INT:
    case CNK_CONF_PORT:
        snprintf(buf, size, "a whole number between %" PRId64 " and %" PRId64, o->min, o->max);
        break;
    }
}

/* ---- life ------------------------------------------------------------------------------------------------------ */

int cnk_conf_new(cnk_conf **ret_conf) {
    cnk_conf *c = cnk_calloc(1, sizeof *c);
    if (!c) return CHRONIK_ENOMEM;
    for (size_t i = 0; i < CNK_CONF_COUNT; i++) {
        CNK_ASSERT(options[i].id == (cnk_conf_id)i);
        c->values[i].number = default_number(&options[i]);
    }
    *ret_conf = c;
    return 0;
}

void cnk_conf_free(cnk_conf *c) {
    if (!c) return;
    for (size_t i = 0; i < CNK_CONF_COUNT; i++) cnk_free(c->values[i].text);
    cnk_free(c);
}

int cnk_conf_copy(const cnk_conf *from, cnk_conf **ret_conf) {
    cnk_conf *c;
    int rc = cnk_conf_new(&c);
    if (rc) return rc;
    for (size_t i = 0; i < CNK_CONF_COUNT; i++) {
        c->values[i] = from->values[i];
        if (!from->values[i].text) continue;
        c->values[i].text = cnk_strdup(from->values[i].text);
        if (!c->values[i].text) rc = CHRONIK_ENOMEM;
    }
    if (rc) {
        cnk_conf_free(c);
        return rc;
    }
    *ret_conf = c;
    return 0;
}

/* ---- setting --------------------------------------------------------------------------------------------------- */

static const char *shown(const cnk_conf_option *o, const char *text) {
    return o->flags & CNK_CONF_SECRET ? "(not shown)" : text;
}

int cnk_conf_set(cnk_conf *c, const char *name, const char *text, cnk_conf_source source, const char *where,
                 chronik_error *err) {
    const char *at = where ? where : name;
    const cnk_conf_option *o = cnk_conf_option_find(name);
    if (!o) {
        const char *near = cnk_conf_nearest(name);
        return near ? cnk_error(err, CHRONIK_EINVAL, 0, "%s: there is no such option; did you mean %s?", at, near)
                    : cnk_error(err, CHRONIK_EINVAL, 0, "%s: there is no such option; --help lists them", at);
    }
    int64_t number;
    if (parse(o, text, &number)) {
        char wanted[128];
        describe_wanted(o, wanted, sizeof wanted);
        return cnk_error(err, CHRONIK_EINVAL, 0, "%s: '%s' is not accepted for %s; give %s", at, shown(o, text), o->name,
                         wanted);
    }
    if ((o->flags & CNK_CONF_REFUSED) &&
        (o->type == CNK_CONF_TEXT ? strcmp(text, o->fallback) != 0 : number != default_number(o)))
        return cnk_error(err, CHRONIK_EUNSUPPORTED, 0, "%s: %s is not supported yet; leave it out, or set it to '%s'", at,
                         o->name, o->fallback);
    value *v = &c->values[o->id];
    if (v->text && source < v->source) return 0;
    if (v->text && source == v->source && source != CNK_CONF_FROM_PROGRAM && source != CNK_CONF_FROM_AMBIENT &&
        (o->type == CNK_CONF_TEXT ? strcmp(text, v->text) != 0 : number != v->number))
        return cnk_error(err, CHRONIK_EINVAL, 0, "%s: %s has been given already, as '%s'; give it once", at, o->name,
                         shown(o, v->text));
    char *copy = cnk_strdup(text);
    if (!copy) return cnk_error(err, CHRONIK_ENOMEM, 0, "%s: out of memory", at);
    cnk_free(v->text);
    *v = (value){copy, number, source};
    return 0;
}

/* ---- reading --------------------------------------------------------------------------------------------------- */

const char *cnk_conf_text(const cnk_conf *c, cnk_conf_id id) {
    return c->values[id].text ? c->values[id].text : options[id].fallback;
}
int64_t cnk_conf_int(const cnk_conf *c, cnk_conf_id id) { return c->values[id].number; }
bool cnk_conf_bool(const cnk_conf *c, cnk_conf_id id) { return c->values[id].number == 1; }
cnk_conf_source cnk_conf_source_of(const cnk_conf *c, cnk_conf_id id) { return c->values[id].source; }
bool cnk_conf_is_set(const cnk_conf *c, cnk_conf_id id) { return c->values[id].text || options[id].fallback[0]; }

int cnk_conf_format(const cnk_conf *c, cnk_conf_id id, char *buf, size_t size) {
    const cnk_conf_option *o = &options[id];
    int n;
    if (o->type == CNK_CONF_BOOL) n = snprintf(buf, size, "%s", cnk_conf_bool(c, id) ? "true" : "false");
    else if (o->type == CNK_CONF_TEXT || o->type == CNK_CONF_CHOICE || !cnk_conf_is_set(c, id))
        n = snprintf(buf, size, "%s", cnk_conf_text(c, id));
    else n = snprintf(buf, size, "%" PRId64, cnk_conf_int(c, id));
    return n >= 0 && (size_t)n < size ? 0 : CHRONIK_ETOOLARGE;
}

/* ---- what goes together ---------------------------------------------------------------------------------------- */

static int check_ports(const cnk_conf *c, chronik_error *err) {
    static const cnk_conf_id ports[] = {CNK_CONF_KAFKA_PORT, CNK_CONF_HTTP_PORT, CNK_CONF_METRICS_PORT};
    for (size_t i = 0; i < 3; i++)
        for (size_t j = i + 1; j < 3; j++) {
            bool http = ports[i] == CNK_CONF_HTTP_PORT || ports[j] == CNK_CONF_HTTP_PORT;
            if (http && !cnk_conf_bool(c, CNK_CONF_HTTP_ENABLE)) continue;
            int64_t a = cnk_conf_int(c, ports[i]), b = cnk_conf_int(c, ports[j]);
            if (a == b && a > 0)
                return cnk_error(err, CHRONIK_EINVAL, 0, "%s and %s are both %" PRId64 "; give each a port of its own",
                                 options[ports[i]].name, options[ports[j]].name, a);
        }
    return 0;
}

int cnk_conf_check(const cnk_conf *c, chronik_error *err) {
    int rc = check_ports(c, err);
    if (rc) return rc;
    if (cnk_conf_int(c, CNK_CONF_REPLICATION_FACTOR) != 1)
        return cnk_error(err, CHRONIK_EUNSUPPORTED, 0,
                         "default.replication.factor is %s, but there is one node; leave it out, or set it to 1",
                         cnk_conf_text(c, CNK_CONF_REPLICATION_FACTOR));
    if (cnk_conf_int(c, CNK_CONF_MIN_INSYNC) > cnk_conf_int(c, CNK_CONF_REPLICATION_FACTOR))
        return cnk_error(err, CHRONIK_EINVAL, 0,
                         "min.insync.replicas (%s) is larger than default.replication.factor (%s): no topic could be "
                         "written with acks=all; make it smaller",
                         cnk_conf_text(c, CNK_CONF_MIN_INSYNC), cnk_conf_text(c, CNK_CONF_REPLICATION_FACTOR));
    if (cnk_conf_source_of(c, CNK_CONF_WAL_BUDGET) != CNK_CONF_FROM_DEFAULT && /* else it follows the files */
        cnk_conf_int(c, CNK_CONF_WAL_BUDGET) < 4 * cnk_conf_int(c, CNK_CONF_WAL_ROTATION_SIZE))
        return cnk_error(err, CHRONIK_EINVAL, 0,
                         "wal.budget.bytes (%s) must hold four files of wal.rotation.size (%s); make it larger, or "
                         "the files smaller",
                         cnk_conf_text(c, CNK_CONF_WAL_BUDGET), cnk_conf_text(c, CNK_CONF_WAL_ROTATION_SIZE));
    if (cnk_conf_int(c, CNK_CONF_MESSAGE_MAX) > cnk_conf_int(c, CNK_CONF_REQUEST_MAX))
        return cnk_error(err, CHRONIK_EINVAL, 0,
                         "message.max.bytes (%s) is larger than socket.request.max.bytes (%s), so such a message could "
                         "not be sent; make it smaller, or the requests larger",
                         cnk_conf_text(c, CNK_CONF_MESSAGE_MAX), cnk_conf_text(c, CNK_CONF_REQUEST_MAX));
    return 0;
}
