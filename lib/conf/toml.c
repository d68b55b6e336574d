/* A strict reader of the part of TOML 1.0 that configuration needs: one pass, no tree; each key is handed out with its
 * whole path. Refuses what it does not know, with file and line. */
#include <ctype.h>
#include <stdio.h>
#include <string.h>

#include "base/error.h"
#include "base/mem.h"
#include "conf/toml.h"

typedef struct parser {
    const char *p, *end, *path;
    int line;
    chronik_error *err;
    char table[CNK_TOML_KEY_MAX]; /* the path of the table at hand, with a dot at its end, or "" */
    int element;                  /* its number, where it is of an array of tables */
    char **seen;                  /* keys and tables, to find duplicates */
    size_t seen_count, seen_capacity;
    int (*each)(void *arg, const cnk_toml_item *item);
    void *arg;
} parser;

typedef struct text {
    char *buf;
    size_t len, size;
} text;

static int fail(parser *s, const char *what) {
    return cnk_error(s->err, CHRONIK_EINVAL, 0, "%s:%d: %s", s->path, s->line, what);
}

static int peek(const parser *s) { return s->p < s->end ? (unsigned char)*s->p : -1; }

static void skip_blanks(parser *s) {
    while (peek(s) == ' ' || peek(s) == '\t') s->p++;
}

/* Blanks, a comment, and the end of the line, or of the file. */
static int end_line(parser *s) {
    skip_blanks(s);
    if (peek(s) == '#')
        while (peek(s) != -1 && peek(s) != '\n') s->p++;
    if (peek(s) == '\r' && s->p + 1 < s->end && s->p[1] == '\n') s->p++;
    if (peek(s) == -1) return 0;
    if (peek(s) != '\n') return fail(s, "there is something after the value that does not belong there");
    s->p++;
    s->line++;
    return 0;
}

static int put(parser *s, text *t, const char *bytes, size_t n) {
    if (t->len + n >= t->size) return fail(s, "a key or a value is too long");
    memcpy(t->buf + t->len, bytes, n);
    t->len += n;
    t->buf[t->len] = '\0';
    return 0;
}

static int put_code_point(parser *s, text *t, unsigned long c) {
    char b[4];
    size_t n = 0;
    if (c == 0 || c > 0x10ffff || (c >= 0xd800 && c <= 0xdfff)) return fail(s, "not a character");
    if (c < 0x80) b[n++] = (char)c;
    else {
        if (c < 0x800) b[n++] = (char)(0xc0 | c >> 6);
        else {
            if (c < 0x10000) b[n++] = (char)(0xe0 | c >> 12);
            else {
                b[n++] = (char)(0xf0 | c >> 18);
                b[n++] = (char)(0x80 | (c >> 12 & 0x3f));
            }
            b[n++] = (char)(0x80 | (c >> 6 & 0x3f));
        }
        b[n++] = (char)(0x80 | (c & 0x3f));
    }
    return put(s, t, b, n);
}

static int read_escape(parser *s, text *t) {
    static const char from[] = "btnfr\"\\", to[] = "\b\t\n\f\r\"\\";
    int c = peek(s);
    const char *at = c > 0 ? strchr(from, c) : NULL;
    if (at) {
        s->p++;
        return put(s, t, &to[at - from], 1);
    }
    int digits = c == 'u' ? 4 : c == 'U' ? 8 : 0;
    if (!digits) return fail(s, "unknown escape in a string");
    unsigned long code = 0;
    s->p++;
    for (int i = 0; i < digits; i++, s->p++) {
        int d = peek(s);
        if (d < 0 || !isxdigit(d)) return fail(s, "unknown escape in a string");
        code = code * 16 + (unsigned long)(isdigit(d) ? d - '0' : tolower(d) - 'a' + 10);
    }
    return put_code_point(s, t, code);
}

static int read_string(parser *s, text *t) {
    char quote = *s->p++;
    if (s->end - s->p >= 2 && s->p[0] == quote && s->p[1] == quote)
        return fail(s, "strings of several lines are not accepted; write it on one line");
    for (;;) {
        int c = peek(s), rc;
        if (c == -1 || c == '\n') return fail(s, "a string has no closing quote on its line");
        if ((c < 0x20 && c != '\t') || c == 0x7f) return fail(s, "a control character in a string");
        s->p++;
        if (c == quote) return 0;
        if (c == '\\' && quote == '"') rc = read_escape(s, t);
        else rc = put(s, t, s->p - 1, 1);
        if (rc) return rc;
    }
}

static bool is_bare(int c) { return c == '_' || c == '-' || (c > 0 && c < 0x80 && isalnum(c)); }

/* a.b."c" */
static int read_key(parser *s, text *t) {
    for (int depth = 0;; depth++) {
        skip_blanks(s);
        size_t before = t->len;
        int rc = 0, c = peek(s);
        if (c == '"' || c == '\'') rc = read_string(s, t);
        else
            while (!rc && is_bare(peek(s))) rc = put(s, t, s->p++, 1);
        if (rc) return rc;
        if (t->len == before) return fail(s, "a key is missing or holds a character that a key cannot have");
        if (depth >= 64) return fail(s, "too many levels");
        skip_blanks(s);
        if (peek(s) != '.') return 0;
        s->p++;
        if ((rc = put(s, t, ".", 1))) return rc;
    }
}

/* Numbers and booleans: their form is checked here, their meaning by the option. Underscores between digits go. */
static int read_bare_value(parser *s, text *t) {
    const char *from = s->p;
    while (is_bare(peek(s)) || peek(s) == '+' || peek(s) == '.' || peek(s) == ':') s->p++;
    size_t len = (size_t)(s->p - from);
    if ((len == 4 && memcmp(from, "true", 4) == 0) || (len == 5 && memcmp(from, "false", 5) == 0))
        return put(s, t, from, len);
    if (peek(s) == '{') return fail(s, "inline tables are not accepted; write a [table]");
    size_t digits = 0, dots = 0;
    for (size_t i = 0; i < len; i++) {
        char c = from[i];
        bool between = i > 0 && i + 1 < len && isdigit((unsigned char)from[i - 1]) && isdigit((unsigned char)from[i + 1]);
        if (isdigit((unsigned char)c)) digits++;
        else if (c == '.' && between && !dots) dots++;
        else if (!(c == '_' && between) && !((c == '-' || c == '+') && i == 0))
            return fail(s, "not a value: strings stand in quotes; dates are not accepted");
    }
    if (!digits) return fail(s, "the value is missing");
    for (size_t i = from[0] == '+'; i < len; i++)
        if (from[i] != '_') {
            int rc = put(s, t, from + i, 1);
            if (rc) return rc;
        }
    return 0;
}

/* Blanks, comments and line ends inside an array. */
static void skip_lines(parser *s) {
    for (;;) {
        skip_blanks(s);
        if (peek(s) == '#')
            while (peek(s) != -1 && peek(s) != '\n') s->p++;
        if (peek(s) == '\n') s->line++;
        else if (peek(s) != '\r') return;
        s->p++;
    }
}

static int read_value(parser *s, text *t, bool in_array);

static int read_array(parser *s, text *t) {
    s->p++;
    for (bool first = true;; first = false) {
        skip_lines(s);
        if (peek(s) == ']') break;
        int rc = first ? 0 : put(s, t, ",", 1);
        if (rc || (rc = read_value(s, t, true))) return rc;
        skip_lines(s);
        if (peek(s) == ']') break;
        if (peek(s) != ',') return fail(s, "an array has no closing bracket, or no comma between its elements");
        s->p++;
    }
    s->p++;
    return 0;
}

static int read_value(parser *s, text *t, bool in_array) {
    int c = peek(s);
    if (c == '"' || c == '\'') return read_string(s, t);
    if (c == '[') return in_array ? fail(s, "arrays in arrays are not accepted") : read_array(s, t);
    return read_bare_value(s, t);
}

/* Remembers a name; EINVAL where it has been seen. */
static int once(parser *s, const char *name, const char *what) {
    for (size_t i = 0; i < s->seen_count; i++)
        if (strcmp(s->seen[i], name) == 0) return fail(s, what);
    void *items = s->seen;
    if (cnk_array_reserve(&items, &s->seen_capacity, s->seen_count + 1, sizeof *s->seen))
        return cnk_error(s->err, CHRONIK_ENOMEM, 0, "%s: out of memory", s->path);
    s->seen = items;
    s->seen[s->seen_count] = cnk_strdup(name);
    if (!s->seen[s->seen_count]) return cnk_error(s->err, CHRONIK_ENOMEM, 0, "%s: out of memory", s->path);
    s->seen_count++;
    return 0;
}

/* How many elements an array of tables has had. */
static int elements_of(const parser *s, const char *table) {
    char mark[CNK_TOML_KEY_MAX + 16];
    for (int n = 0;; n++) {
        snprintf(mark, sizeof mark, "[[%s%d", table, n);
        bool there = false;
        for (size_t i = 0; i < s->seen_count; i++) there = there || strcmp(s->seen[i], mark) == 0;
        if (!there) return n;
    }
}

static int read_table(parser *s) {
    bool array = s->end - s->p >= 2 && s->p[1] == '[';
    s->p += array ? 2 : 1;
    text t = {s->table, 0, sizeof s->table - 1};
    s->table[0] = '\0';
    int rc = read_key(s, &t);
    if (rc) return rc;
    if (peek(s) != ']' || (array && (s->end - s->p < 2 || s->p[1] != ']'))) return fail(s, "a table's bracket is not closed");
    s->p += array ? 2 : 1;
    memcpy(s->table + t.len, ".", 2);
    char mark[CNK_TOML_KEY_MAX + 16];
    s->element = array ? elements_of(s, s->table) : -1;
    if (array) snprintf(mark, sizeof mark, "[[%s%d", s->table, s->element);
    else snprintf(mark, sizeof mark, "[%s", s->table);
    rc = once(s, mark, "the table stands twice in the file");
    return rc ? rc : end_line(s);
}

static int read_pair(parser *s) {
    char key[CNK_TOML_KEY_MAX], value[CNK_TOML_VALUE_MAX], mark[CNK_TOML_KEY_MAX + 16];
    text k = {key, 0, sizeof key}, v = {value, 0, sizeof value};
    value[0] = '\0';
    int line = s->line;
    int rc = put(s, &k, s->table, strlen(s->table));
    if (rc || (rc = read_key(s, &k))) return rc;
    if (peek(s) != '=') return fail(s, "'=' is missing after the key");
    s->p++;
    skip_blanks(s);
    if ((rc = read_value(s, &v, false))) return rc;
    snprintf(mark, sizeof mark, "%d:%s", s->element, key);
    if ((rc = once(s, mark, "the key stands twice in the file"))) return rc;
    if ((rc = end_line(s))) return rc;
    cnk_toml_item item = {key, s->element, value, line};
    return s->each(s->arg, &item);
}

int cnk_toml_read(const char *bytes, size_t len, const char *path, int (*each)(void *arg, const cnk_toml_item *item),
                  void *arg, chronik_error *err) {
    parser s = {.p = bytes, .end = bytes + len, .path = path, .line = 1, .err = err, .element = -1, .each = each,
                .arg = arg};
    int rc = 0;
    if (len > CNK_TOML_BYTES_MAX) return fail(&s, "the file is larger than 1 MiB");
    if (memchr(bytes, '\0', len)) return fail(&s, "the file holds a NUL byte");
    while (!rc && s.p < s.end) {
        skip_blanks(&s);
        int c = peek(&s);
        if (c == '[') rc = read_table(&s);
        else if (c == '#' || c == '\n' || c == '\r' || c == -1) rc = end_line(&s);
        else rc = read_pair(&s);
    }
    for (size_t i = 0; i < s.seen_count; i++) cnk_free(s.seen[i]);
    cnk_free(s.seen);
    return rc;
}
