/* Prints the option table as a section of a manual page. A host program; see the Makefile. */
#include <ctype.h>
#include <stdio.h>
#include <string.h>

#include "conf/conf.h"

/* Text for roff: backslashes, leading dots and hyphens mean something there. */
static void put_text(const char *s) {
    if (*s == '.' || *s == '\'') fputs("\\&", stdout);
    for (; *s; s++) {
        if (*s == '\\') fputs("\\e", stdout);
        else if (*s == '-') fputs("\\-", stdout);
        else putchar(*s);
    }
}

static void put_spelling(const char *prefix, const char *name, char dot, bool capitals) {
    printf("\\fB");
    put_text(prefix);
    for (; *name; name++) {
        char c = *name == '.' ? dot : capitals ? (char)toupper((unsigned char)*name) : *name;
        if (c == '-') fputs("\\-", stdout);
        else putchar(c);
    }
    printf("\\fR");
}

static void put_others(const char *others) {
    if (!*others) return;
    printf("Also ");
    for (const char *p = others; *p;) {
        size_t n = strcspn(p, " ");
        char word[128];
        snprintf(word, sizeof word, "%.*s", (int)n, p);
        if (p != others) printf(", ");
        bool plain = isupper((unsigned char)word[0]) || word[0] == '-';
        put_spelling(plain ? "" : "--", word, plain ? '.' : '-', false);
        p += n;
        p += strspn(p, " ");
    }
    printf(".\n");
}

static void put_option(const cnk_conf_option *o) {
    printf(".TP\n");
    put_spelling("--", o->name, '-', false);
    if (o->type != CNK_CONF_BOOL) {
        static const char *const kinds[] = {"", "number", "bytes", "ms", "port", "text", "choice"};
        const char *kind = o->type == CNK_CONF_CHOICE || o->unit[0] ? o->unit : kinds[o->type];
        printf(" \\fI");
        put_text(kind);
        printf("\\fR");
    }
    printf("\n");
    put_text(o->doc);
    printf("\n");
    if (o->flags & CNK_CONF_NO_EFFECT) printf("Accepted, and without effect.\n");
    if (o->flags & CNK_CONF_REFUSED) printf("Not supported yet: any value but the default is refused.\n");
    if (o->fallback[0]) {
        printf("Default: ");
        put_text(o->fallback);
        printf(".\n");
    }
    put_others(o->others);
}

int main(void) {
    for (unsigned section = 0; section < CNK_CONF_SECTION_COUNT; section++) {
        printf(".SS %s\n", cnk_conf_section_title((cnk_conf_section)section));
        const cnk_conf_option *o;
        for (size_t i = 0; (o = cnk_conf_option_at(i)); i++)
            if ((unsigned)o->section == section && !(o->flags & CNK_CONF_HIDDEN)) put_option(o);
    }
    return 0;
}
