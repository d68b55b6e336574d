/* Compares the schemas, as the library has them, with tables of Kafka's own messages, version by version and field by
 * field: order, name, type, versions, nullable, default, tag, flexible, ignorable. CHRONIK_PROTOCOL_TABLES names a
 * folder with kafka-4.3/ and kafka-3.9/, one file for each message; without it the program says so and
 * exits with 77: skipped. */
#include <check.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "kafka/messages.h"

#define FIELDS_MAX 256

typedef struct row {
    int depth, min, max, null_min, null_max, tag;
    char name[96], type[96], def[64];
    bool ignorable, inflexible, used;
} row;

typedef struct table {
    int min, max, flexible, count;
    row rows[FIELDS_MAX];
} table;

static int differences;

static void differ(const char *format, ...) {
    va_list args;
    va_start(args, format);
    vfprintf(stderr, format, args);
    va_end(args);
    fputc('\n', stderr);
    differences++;
}

static void range(const char *text, int *ret_min, int *ret_max) {
    char *end;
    *ret_min = 1;
    *ret_max = 0;
    if (strncmp(text, "none", 4) == 0) return;
    *ret_min = *ret_max = (int)strtol(text, &end, 10);
    if (*end == '+') *ret_max = 32767;
    if (*end == '-') *ret_max = (int)strtol(end + 1, NULL, 10);
}

/* Cuts a table's line at runs of two or more spaces. */
static int columns(char *line, char **ret_columns, int max) {
    int n = 0;
    line[strcspn(line, "\n")] = 0;
    while (*line == ' ') line++;
    while (*line && n < max) {
        ret_columns[n++] = line;
        char *gap = strstr(line, "  ");
        if (!gap) break;
        *gap = 0;
        line = gap + 2;
        while (*line == ' ') line++;
    }
    return n;
}

static void read_row(char **col, int n, row *r) {
    snprintf(r->name, sizeof r->name, "%s", col[0]);
    snprintf(r->type, sizeof r->type, "%s", col[1]);
    range(col[2], &r->min, &r->max);
    r->null_min = 1;
    r->tag = -1;
    for (int i = 3; i < n; i++) {
        int none_min, none_max;
        if (strncmp(col[i], "nullable ", 9) == 0) range(col[i] + 9, &r->null_min, &r->null_max);
        else if (strncmp(col[i], "default ", 8) == 0) snprintf(r->def, sizeof r->def, "%s", col[i] + 8);
        else if (strncmp(col[i], "tag ", 4) == 0) r->tag = atoi(col[i] + 4);
        else if (strcmp(col[i], "ignorable") == 0) r->ignorable = true;
        else if (strncmp(col[i], "flexible ", 9) == 0) {
            range(col[i] + 9, &none_min, &none_max);
            r->inflexible = none_min > none_max;
            if (!r->inflexible) differ("%s: a flexible range of its own", col[0]);
        } else if (strcmp(col[i], "map-key") != 0 && strncmp(col[i], "entity ", 7) != 0) {
            differ("%s: '%s' is unknown to this test", col[0], col[i]);
        }
    }
}

static bool read_table(const char *dir, const char *release, const char *message, table *t) {
    char path[4096], line[1024], *col[16];
    int unused;
    snprintf(path, sizeof path, "%s/kafka-%s/%s.txt", dir, release, message);
    FILE *in = fopen(path, "r");
    if (!in) return false;
    memset(t, 0, sizeof *t);
    t->flexible = 32767;
    while (fgets(line, sizeof line, in)) {
        const int indent = (int)strspn(line, " ");
        const int n = columns(line, col, 16);
        if (n == 0) continue;
        if (indent == 0) {
            for (int i = 1; i < n; i++) {
                if (strncmp(col[i], "versions ", 9) == 0) range(col[i] + 9, &t->min, &t->max);
                if (strncmp(col[i], "flexible ", 9) == 0 && strcmp(col[i] + 9, "none") != 0) range(col[i] + 9, &t->flexible, &unused);
            }
            continue;
        }
        ck_assert_int_lt(t->count, FIELDS_MAX);
        t->rows[t->count].depth = indent / 2 - 1;
        read_row(col, n, &t->rows[t->count++]);
    }
    fclose(in);
    return true;
}

static void type_name(const cnk_kafka_field *f, char *out, size_t size) {
    static const char *const names[] = {"bool",  "int8",    "int16",  "uint16", "int32", "uint32",
                                        "int64", "float64", "string", "uuid",   "bytes", "records"};
    snprintf(out, size, "%s%s", f->array && !f->optional ? "[]" : "", f->type == CNK_KAFKA_STRUCT ? f->sub->name : names[f->type]);
}

static void default_name(const cnk_kafka_field *f, char *out, size_t size) {
    if (f->default_null) snprintf(out, size, "null");
    else if (f->type == CNK_KAFKA_BOOL) snprintf(out, size, "%s", f->default_value ? "true" : "");
    else if (f->default_value) snprintf(out, size, "%lld", (long long)f->default_value);
    else out[0] = 0;
}

/* "0x7fffffff" → 2147483647; what a field has anyway → "". */
static void table_default(const char *text, char *out, size_t size) {
    char bare[64];
    snprintf(bare, sizeof bare, "%s", text + (*text == '"'));
    bare[strcspn(bare, "\"")] = 0;
    if (strncmp(bare, "0x", 2) == 0) snprintf(out, size, "%lld", strtoll(bare, NULL, 16));
    else snprintf(out, size, "%s", strcmp(bare, "0") == 0 || strcmp(bare, "false") == 0 ? "" : bare);
}

typedef struct walk {
    const char *message;
    table *t;
    int version, next;
    bool newest; /* also compare what versions do not show */
} walk;

static void compare_field(walk *w, const cnk_kafka_field *f, const row *r, int depth) {
    char ours[96], theirs[96];
    const char *m = w->message;
    const int v = w->version;
    if (strcmp(f->name, r->name) != 0 || depth != r->depth) differ("%s v%d: %s where %s is", m, v, f->name, r->name);
    type_name(f, ours, sizeof ours);
    if (strcmp(ours, r->type) != 0) differ("%s v%d %s: type %s, not %s", m, v, f->name, ours, r->type);
    default_name(f, ours, sizeof ours);
    table_default(r->def, theirs, sizeof theirs);
    if (strcmp(ours, theirs) != 0) differ("%s v%d %s: default '%s', not '%s'", m, v, f->name, ours, theirs);
    const bool null = v >= f->null_min && v <= f->null_max;
    if (null != (v >= r->null_min && v <= r->null_max)) differ("%s v%d %s: nullable", m, v, f->name);
    if (f->tag != r->tag) differ("%s v%d %s: tag %d, not %d", m, v, f->name, f->tag, r->tag);
    if (f->inflexible != r->inflexible) differ("%s v%d %s: inflexible", m, v, f->name);
    if (!w->newest) return;
    if (f->ignorable != r->ignorable) differ("%s %s: ignorable", m, f->name);
    if (f->version_min != r->min || f->version_max != r->max)
        differ("%s %s: versions %d-%d, not %d-%d", m, f->name, f->version_min, f->version_max, r->min, r->max);
}

/* Both sides list the fields of one version in order; a structure's children follow it. */
static void compare_struct(walk *w, const cnk_kafka_struct *s, int depth) {
    for (int i = 0; i < s->field_count; i++) {
        const cnk_kafka_field *f = &s->fields[i];
        if (w->version < f->version_min || w->version > f->version_max) continue;
        table *t = w->t;
        while (w->next < t->count && (w->version < t->rows[w->next].min || w->version > t->rows[w->next].max)) {
            const int skipped = t->rows[w->next++].depth; /* and what is in it */
            while (w->next < t->count && t->rows[w->next].depth > skipped) w->next++;
        }
        if (w->next == t->count) {
            differ("%s v%d: %s is not there", w->message, w->version, f->name);
            return;
        }
        row *r = &t->rows[w->next++];
        r->used = true;
        compare_field(w, f, r, depth);
        if (f->type == CNK_KAFKA_STRUCT) compare_struct(w, f->sub, depth + 1);
    }
}

static void compare(const char *dir, const char *release, const cnk_kafka_message *m, bool newest) {
    static table t;
    char name[64];
    snprintf(name, sizeof name, "%s (%s)", m->root->name, release);
    if (!read_table(dir, release, m->root->name, &t)) {
        if (!newest && strncmp(m->root->name, "ListConfigResources", 19) == 0) return; /* 3.9 has another name for it */
        differ("%s: no table", name);
        return;
    }
    if (t.flexible != m->flexible_min) differ("%s: flexible from %d, not %d", name, m->flexible_min, t.flexible);
    if (m->version_min > t.min || m->version_max < t.max)
        differ("%s: versions %d-%d do not cover %d-%d", name, m->version_min, m->version_max, t.min, t.max);
    if (newest && m->version_max != t.max) differ("%s: newest version %d, not %d", name, m->version_max, t.max);
    for (int v = t.min; v <= t.max; v++) {
        walk w = {name, &t, v, 0, newest};
        compare_struct(&w, m->root, 0);
        while (w.next < t.count && (v < t.rows[w.next].min || v > t.rows[w.next].max)) w.next++;
        /* a structure that the version lacks hides its children's rows */
        for (int i = w.next; i < t.count; i++)
            if (t.rows[i].depth == 0 && v >= t.rows[i].min && v <= t.rows[i].max)
                differ("%s v%d: %s is missing", name, v, t.rows[i].name);
    }
    for (int i = 0; i < t.count; i++)
        if (!t.rows[i].used && t.rows[i].min <= t.max && t.rows[i].max >= t.min)
            differ("%s: %s is in no version", name, t.rows[i].name);
}

START_TEST(schemas_are_kafkas) {
    const char *dir = getenv("CHRONIK_PROTOCOL_TABLES");
    int messages = 0;
    for (const cnk_kafka_message *const *m = cnk_kafka_messages; *m; m++, messages++) {
        compare(dir, "4.3", *m, true);
        compare(dir, "3.9", *m, false);
    }
    ck_assert_int_ge(messages, 22);
    ck_assert_int_eq(differences, 0);
}
END_TEST

int main(void) {
    if (!getenv("CHRONIK_PROTOCOL_TABLES")) {
        puts("CHRONIK_PROTOCOL_TABLES names no folder with Kafka's tables");
        return 77;
    }
    Suite *s = suite_create("kafka_schema");
    TCase *t = tcase_create("all");
    tcase_add_test(t, schemas_are_kafkas);
    suite_add_tcase(s, t);
    SRunner *r = srunner_create(s);
    srunner_run_all(r, CK_NORMAL);
    const int failed = srunner_ntests_failed(r);
    srunner_free(r);
    return failed ? 1 : 0;
}
