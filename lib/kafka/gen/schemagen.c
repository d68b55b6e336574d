/* schemagen: turns the message schemas into C structs and descriptor tables. A host program, run at build time:
 *
 *     schemagen OUTDIR SCHEMA…        writes OUTDIR/kafka/messages.h and OUTDIR/kafka/messages.c
 *
 * Syntax of a schema, line by line; `#` starts a comment, blank lines are skipped.
 *
 *     api KEY NAME                        the API that the messages below belong to (the header has none)
 *     Message VERSIONS flexible VERSIONS  in the first column: a message; its fields follow
 *       Field TYPE VERSIONS [nullable VERSIONS] [default VALUE] [tag N] [ignorable] [inflexible]
 *         Field …                         two columns deeper: the fields of a structure
 *
 * VERSIONS is `3+`, `0-12` or `4`. TYPE is one of bool int8 int16 uint16 int32 uint32 int64 float64 string uuid bytes
 * records, or the name of a structure whose fields follow; `[]TYPE` is an array. A tagged field is tagged in all of its
 * versions. A structure that may be null is held as an array of none (null) or one. `ignorable`: dropped without an error when encoding a version that lacks it. `inflexible`: encoded the old
 * way even in a flexible version. Any error ends the program with 1 and says file and line. */
#include <ctype.h>
#include <errno.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#define NAME_MAX_ 96
#define FIELDS_MAX 4096   /* in all schemas */
#define MESSAGES_MAX 512  /* likewise */
#define DEPTH_MAX 8
#define VERSION_MAX 32767 /* stands for "and all later ones" */

typedef struct versions { int min, max; } versions; /* min > max: none */

typedef struct field {
    char name[NAME_MAX_], type[NAME_MAX_], text[64]; /* text: the default's */
    int depth, line, tag, parent;                    /* parent: index of the field, or -1 */
    bool array, optional, structure, ignorable, inflexible, has_default;
    versions present, null;
} field;

typedef struct message {
    char name[NAME_MAX_];
    const char *file;
    int api_key, first, count;
    versions valid;
    int flexible_min;
} message;

static field fields[FIELDS_MAX];
static message messages[MESSAGES_MAX];
static int field_count, message_count;
static struct { char name[NAME_MAX_]; int key; } apis[MESSAGES_MAX];
static int api_count;
static const char *file_name;
static int line_number;

static _Noreturn void fail(const char *format, ...) {
    va_list args;
    va_start(args, format);
    fprintf(stderr, "%s:%d: ", file_name, line_number);
    vfprintf(stderr, format, args);
    fputc('\n', stderr);
    va_end(args);
    exit(1);
}

static void copy_name(char *to, const char *from) {
    size_t len = strlen(from);
    if (len == 0 || len >= NAME_MAX_) fail("bad name '%s'", from);
    memcpy(to, from, len + 1);
}

/* ---- reading ---------------------------------------------------------------------------------------------------- */

static int number(const char *text) {
    char *end;
    long v = strtol(text, &end, 10);
    if (*text == 0 || *end != 0 || v < 0 || v > VERSION_MAX) fail("not a number: '%s'", text);
    return (int)v;
}

static versions parse_versions(const char *text) {
    char buf[32];
    versions v = {1, 0};
    if (strcmp(text, "none") == 0) return v;
    if (strlen(text) >= sizeof buf) fail("bad versions '%s'", text);
    strcpy(buf, text);
    char *dash = strchr(buf, '-'), *plus = strchr(buf, '+');
    if (dash) {
        *dash = 0;
        v.min = number(buf);
        v.max = number(dash + 1);
    } else if (plus && plus[1] == 0) {
        *plus = 0;
        v.min = number(buf);
        v.max = VERSION_MAX;
    } else {
        v.min = v.max = number(buf);
    }
    if (v.min > v.max) fail("versions '%s' are empty", text);
    return v;
}

static const char *const primitives[] = {"bool",   "int8",  "int16",   "uint16", "int32",  "uint32",
                                         "int64", "float64", "string", "uuid",   "bytes", "records"};

static bool is_primitive(const char *type) {
    for (size_t i = 0; i < sizeof primitives / sizeof *primitives; i++)
        if (strcmp(type, primitives[i]) == 0) return true;
    return false;
}

static void parse_field(char **words, int count, int depth, message *m) {
    if (field_count == FIELDS_MAX) fail("more than %d fields", FIELDS_MAX);
    if (count < 3) fail("a field needs a name, a type and versions");
    field *f = &fields[field_count];
    memset(f, 0, sizeof *f);
    copy_name(f->name, words[0]);
    f->array = strncmp(words[1], "[]", 2) == 0;
    copy_name(f->type, words[1] + (f->array ? 2 : 0));
    f->structure = !is_primitive(f->type);
    f->present = parse_versions(words[2]);
    f->null = (versions){1, 0};
    f->depth = depth;
    f->line = line_number;
    f->tag = -1;
    f->parent = -1;
    for (int i = 3; i < count; i++) {
        if (strcmp(words[i], "ignorable") == 0) { f->ignorable = true; continue; }
        if (strcmp(words[i], "inflexible") == 0) { f->inflexible = true; continue; }
        if (i + 1 == count) fail("'%s' is unknown or lacks its value", words[i]);
        if (strcmp(words[i], "nullable") == 0) f->null = parse_versions(words[++i]);
        else if (strcmp(words[i], "tag") == 0) f->tag = number(words[++i]);
        else if (strcmp(words[i], "default") == 0) {
            snprintf(f->text, sizeof f->text, "%s", words[++i]);
            f->has_default = true;
        } else
            fail("'%s' is unknown", words[i]);
    }
    f->optional = f->structure && !f->array && f->null.min <= f->null.max;
    f->array |= f->optional;
    if (f->optional && strcmp(f->text, "null") != 0) fail("the default of '%s' must be null", f->name);
    if (depth > 0) {
        int p = field_count - 1;
        while (p >= m->first && fields[p].depth >= depth) p--;
        if (p < m->first || fields[p].depth != depth - 1) fail("too deep");
        if (!fields[p].structure) fail("'%s' is no structure", fields[p].name);
        f->parent = p;
    }
    field_count++;
    m->count++;
}

static void parse_line(char *line, int *api_key, message **current) {
    int indent = 0, count = 0;
    char *words[16];
    char *hash = strchr(line, '#');
    if (hash) *hash = 0;
    while (line[indent] == ' ') indent++;
    for (char *w = strtok(line, " \t\r\n"); w; w = strtok(NULL, " \t\r\n")) {
        if (count == 16) fail("too many words");
        words[count++] = w;
    }
    if (count == 0) return;
    if (indent > 0) {
        if (!*current) fail("a field without a message");
        if (indent % 2 || indent / 2 > DEPTH_MAX) fail("bad indentation");
        parse_field(words, count, indent / 2 - 1, *current);
        return;
    }
    if (count == 3 && strcmp(words[0], "api") == 0) {
        *api_key = number(words[1]);
        copy_name(apis[api_count].name, words[2]);
        apis[api_count++].key = *api_key;
        return;
    }
    if (count != 4 || strcmp(words[2], "flexible") != 0) fail("expected 'Message VERSIONS flexible VERSIONS'");
    if (message_count == MESSAGES_MAX) fail("more than %d messages", MESSAGES_MAX);
    message *m = *current = &messages[message_count++];
    copy_name(m->name, words[0]);
    m->file = file_name;
    m->api_key = *api_key;
    m->first = field_count;
    m->valid = parse_versions(words[1]);
    versions flexible = parse_versions(words[3]);
    m->flexible_min = flexible.min > flexible.max ? VERSION_MAX : flexible.min;
}

static void parse_file(const char *path) {
    FILE *in = fopen(path, "r");
    char line[512];
    int api_key = -1;
    message *current = NULL;
    file_name = path;
    line_number = 0;
    if (!in) fail("%s", strerror(errno));
    while (fgets(line, sizeof line, in)) {
        line_number++;
        if (!strchr(line, '\n')) fail("the line is too long");
        parse_line(line, &api_key, &current);
    }
    if (ferror(in)) fail("cannot read");
    fclose(in);
}

/* ---- writing ---------------------------------------------------------------------------------------------------- */

/* ProduceRequest → produce_request; Enable2Pc → enable2_pc. */
static const char *snake(const char *camel) {
    static char buf[4][2 * NAME_MAX_];
    static int next;
    char *out = buf[next++ & 3];
    size_t n = 0;
    for (size_t i = 0; camel[i]; i++) {
        if (isupper((unsigned char)camel[i])) {
            if (i > 0 && !isupper((unsigned char)camel[i - 1])) out[n++] = '_';
            out[n++] = (char)tolower((unsigned char)camel[i]);
        } else {
            out[n++] = camel[i];
        }
    }
    out[n] = 0;
    return out;
}

static const char *c_type(const char *type) {
    if (strcmp(type, "bool") == 0) return "bool";
    if (strcmp(type, "string") == 0) return "cnk_kafka_string";
    if (strcmp(type, "uuid") == 0) return "cnk_uuid";
    if (strcmp(type, "bytes") == 0 || strcmp(type, "records") == 0) return "cnk_kafka_bytes";
    if (strcmp(type, "float64") == 0) return "double";
    static char buf[16];
    snprintf(buf, sizeof buf, "%s_t", type);
    return buf;
}

/* parent: index of the structure's field, or -1 for the message itself. A second structure of the same name is called
 * after its field. */
static void struct_name(const message *m, int parent, char *out, size_t size) {
    bool taken = false;
    for (int i = m->first; i < parent; i++) taken |= fields[i].structure && strcmp(fields[i].type, fields[parent].type) == 0;
    if (parent < 0) snprintf(out, size, "cnk_%s", snake(m->name));
    else if (taken) snprintf(out, size, "cnk_%s_%s", snake(m->name), snake(fields[parent].name));
    else snprintf(out, size, "cnk_%s_%s", snake(m->name), snake(fields[parent].type));
}

static void check_siblings(const message *m, const field *f) {
    file_name = m->file;
    line_number = f->line;
    if (f->tag >= 0 && f->present.min < m->flexible_min) fail("'%s' is tagged below the flexible versions", f->name);
    if (f->present.min > m->valid.max || (f->null.min <= f->null.max && f->null.min > m->valid.max))
        fail("'%s' is in no valid version", f->name);
    for (const field *g = &fields[m->first]; g < f; g++) {
        if (g->parent == f->parent && strcmp(g->name, f->name) == 0) fail("'%s' is there twice", f->name);
        if (g->parent == f->parent && f->tag >= 0 && g->tag == f->tag) fail("tag %d is there twice", f->tag);
    }
}

static int struct_fields(const message *m, int parent) {
    int n = 0;
    for (int i = m->first; i < m->first + m->count; i++) n += fields[i].parent == parent;
    return n;
}

static void write_struct(FILE *out, const message *m, int parent) {
    char name[3 * NAME_MAX_], sub[3 * NAME_MAX_];
    for (int i = m->first; i < m->first + m->count; i++)
        if (fields[i].parent == parent && fields[i].structure) write_struct(out, m, i);
    struct_name(m, parent, name, sizeof name);
    fprintf(out, "typedef struct %s {\n", name);
    for (int i = m->first; i < m->first + m->count; i++) {
        const field *f = &fields[i];
        if (f->parent != parent) continue;
        check_siblings(m, f);
        if (f->structure) struct_name(m, i, sub, sizeof sub);
        else snprintf(sub, sizeof sub, "%s", c_type(f->type));
        if (f->array) fprintf(out, "    struct { %s *items; int32_t count; } %s;\n", sub, snake(f->name));
        else fprintf(out, "    %s %s;\n", sub, snake(f->name));
    }
    if (struct_fields(m, parent) == 0) fprintf(out, "    char unused;\n");
    fprintf(out, "} %s;\n\n", name);
}

/* The default as an integer; strings and arrays know only empty and null. */
static long long default_value(const message *m, const field *f, bool *ret_null) {
    char *end;
    *ret_null = false;
    if (!f->has_default) return 0;
    file_name = m->file;
    line_number = f->line;
    if (strcmp(f->text, "null") == 0) {
        if (f->null.min > f->null.max) fail("'%s' cannot be null", f->name);
        *ret_null = true;
        return 0;
    }
    if (strcmp(f->text, "true") == 0 && strcmp(f->type, "bool") == 0) return 1;
    errno = 0;
    long long v = strtoll(f->text, &end, 10);
    if (*end != 0 || errno || f->array || f->structure || strncmp(f->type, "int", 3) != 0)
        fail("bad default '%s' for '%s'", f->text, f->name);
    return v;
}

static void write_integer(FILE *out, long long v) {
    if (v == INT64_MIN) fprintf(out, "INT64_MIN");
    else fprintf(out, "INT64_C(%lld)", v);
}

static void write_field(FILE *out, const message *m, int i) {
    const field *f = &fields[i];
    char owner[3 * NAME_MAX_], sub[3 * NAME_MAX_], upper[NAME_MAX_];
    bool null;
    size_t n = 0;
    long long value = default_value(m, f, &null);
    struct_name(m, f->parent, owner, sizeof owner);
    for (const char *p = f->structure ? "struct" : f->type; *p; p++) upper[n++] = (char)toupper((unsigned char)*p);
    upper[n] = 0;
    fprintf(out, "    {\"%s\", CNK_KAFKA_%s, %s, %s, %s, %s, %s, %d, %d, %d, %d, %d,\n     offsetof(%s, %s), ", f->name,
            upper, f->array ? "true" : "false", f->optional ? "true" : "false", f->ignorable ? "true" : "false", f->inflexible ? "true" : "false",
            null ? "true" : "false", f->tag, f->present.min, f->present.max, f->null.min, f->null.max, owner,
            snake(f->name));
    write_integer(out, value);
    if (f->structure) {
        struct_name(m, i, sub, sizeof sub);
        fprintf(out, ", &%s_struct},\n", sub);
    } else {
        fprintf(out, ", NULL},\n");
    }
}

static void write_tables(FILE *out, const message *m, int parent) {
    char name[3 * NAME_MAX_];
    for (int i = m->first; i < m->first + m->count; i++)
        if (fields[i].parent == parent && fields[i].structure) write_tables(out, m, i);
    struct_name(m, parent, name, sizeof name);
    int count = struct_fields(m, parent);
    if (count > 0) {
        fprintf(out, "static const cnk_kafka_field %s_fields[] = {\n", name);
        for (int i = m->first; i < m->first + m->count; i++)
            if (fields[i].parent == parent) write_field(out, m, i);
        fprintf(out, "};\n");
    }
    fprintf(out, "static const cnk_kafka_struct %s_struct = {\"%s\", sizeof(%s), %d, ", name,
            parent < 0 ? m->name : fields[parent].type, name, count);
    if (count > 0) fprintf(out, "%s_fields};\n\n", name);
    else fprintf(out, "NULL};\n\n");
}

static FILE *create(const char *dir, const char *name) {
    char path[4096];
    file_name = dir;
    line_number = 0;
    snprintf(path, sizeof path, "%s/kafka", dir);
    if (mkdir(path, 0777) != 0 && errno != EEXIST) fail("cannot make %s: %s", path, strerror(errno));
    snprintf(path, sizeof path, "%s/kafka/%s", dir, name);
    FILE *out = fopen(path, "w");
    if (!out) fail("cannot write %s: %s", path, strerror(errno));
    return out;
}

static void finish(FILE *out) {
    if (ferror(out) | fclose(out)) fail("cannot write: %s", strerror(errno));
}

static void write_header(const char *dir) {
    FILE *out = create(dir, "messages.h");
    fprintf(out, "/* Made by schemagen from lib/kafka/schema; do not edit. */\n#ifndef CNK_KAFKA_MESSAGES_H\n"
                 "#define CNK_KAFKA_MESSAGES_H\n\n#include \"kafka/message.h\"\n\nenum {\n");
    for (int i = 0; i < api_count; i++) {
        fprintf(out, "    CNK_KAFKA_API_");
        for (const char *p = snake(apis[i].name); *p; p++) fputc(toupper((unsigned char)*p), out);
        fprintf(out, " = %d%s\n", apis[i].key, i + 1 < api_count ? "," : "");
    }
    fprintf(out, "};\n\n");
    for (int i = 0; i < message_count; i++) {
        write_struct(out, &messages[i], -1);
        fprintf(out, "extern const cnk_kafka_message cnk_%s_message;\n\n", snake(messages[i].name));
    }
    fprintf(out, "/* All of them, ending with NULL. */\nextern const cnk_kafka_message *const "
                 "cnk_kafka_messages[];\n\n#endif\n");
    finish(out);
}

static void write_source(const char *dir) {
    FILE *out = create(dir, "messages.c");
    fprintf(out, "/* Made by schemagen from lib/kafka/schema; do not edit. */\n#include \"kafka/messages.h\"\n\n");
    for (int i = 0; i < message_count; i++) {
        const message *m = &messages[i];
        char name[2 * NAME_MAX_];
        snprintf(name, sizeof name, "%s", snake(m->name)); /* snake's buffers are few */
        write_tables(out, m, -1);
        fprintf(out, "const cnk_kafka_message cnk_%s_message = {&cnk_%s_struct, %d, %d, %d, %d};\n\n", name, name,
                m->api_key, m->valid.min, m->valid.max, m->flexible_min);
    }
    fprintf(out, "const cnk_kafka_message *const cnk_kafka_messages[] = {\n");
    for (int i = 0; i < message_count; i++) fprintf(out, "    &cnk_%s_message,\n", snake(messages[i].name));
    fprintf(out, "    NULL};\n");
    finish(out);
}

int main(int argc, char **argv) {
    if (argc < 3) {
        fprintf(stderr, "usage: schemagen OUTDIR SCHEMA…\n");
        return 2;
    }
    for (int i = 2; i < argc; i++) parse_file(argv[i]);
    write_header(argv[1]);
    write_source(argv[1]);
    return 0;
}
