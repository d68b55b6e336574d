/* The public face of lib/conf: chronik_config and the table of options. */
#include <string.h>
#include <unistd.h>

#include "base/error.h"
#include "base/mem.h"
#include "io/posix.h"
#include "node/internal.h"

struct chronik_config {
    cnk_conf *conf;
};

enum { FILE_BYTES_MAX = 1 << 20 };

const cnk_conf *cnk_config_conf(const chronik_config *config) { return config->conf; }

int chronik_config_new(chronik_config **ret_config) {
    chronik_config *config = cnk_calloc(1, sizeof *config);
    int rc = config ? cnk_conf_new(&config->conf) : CHRONIK_ENOMEM;
    if (rc) cnk_free(config);
    else *ret_config = config;
    return rc;
}

void chronik_config_free(chronik_config *config) {
    if (!config) return;
    cnk_conf_free(config->conf);
    cnk_free(config);
}

int chronik_config_set(chronik_config *config, const char *name, const char *value, chronik_error *err) {
    return cnk_conf_set(config->conf, name, value, CNK_CONF_FROM_PROGRAM, NULL, err);
}

const char *chronik_config_get(const chronik_config *config, const char *name) {
    const cnk_conf_option *o = cnk_conf_option_find(name);
    return o ? cnk_conf_text(config->conf, o->id) : NULL;
}

int chronik_config_load_file(chronik_config *config, const char *path, chronik_error *err) {
    cnk_posix_disk disk = {.buffered = true};
    chronik_file *file = NULL;
    char *text = NULL;
    int rc = cnk_posix_disk_ops.open(&disk, path, CHRONIK_OPEN_READ, err, &file);
    if (rc) goto out;
    /* One byte more than is allowed, so that a file that is too large is seen to be. */
    text = cnk_malloc(FILE_BYTES_MAX + 1);
    if (!text) {
        rc = cnk_error(err, CHRONIK_ENOMEM, 0, "%s: out of memory", path);
        goto out;
    }
    int64_t len = cnk_posix_disk_ops.read(&disk, file, text, FILE_BYTES_MAX + 1, 0, err);
    rc = len < 0 ? (int)len : cnk_conf_load_toml(config->conf, text, (size_t)len, path, err);
out:
    cnk_free(text);
    cnk_posix_disk_ops.close(&disk, file);
    return rc;
}

int chronik_config_load_env(chronik_config *config, char *const *environment, chronik_error *err) {
    return cnk_conf_load_env(config->conf, environment ? environment : environ, err);
}

int chronik_config_load_args(chronik_config *config, int argc, char **argv, chronik_error *err, int *ret_argc) {
    return cnk_conf_load_args(config->conf, argc, argv, err, ret_argc);
}

int chronik_config_check(const chronik_config *config, chronik_error *err) { return cnk_conf_check(config->conf, err); }

const char *chronik_config_next_idle(const chronik_config *config, size_t *it) {
    const cnk_conf_option *o;
    while ((o = cnk_conf_option_at((*it)++)))
        if ((o->flags & CNK_CONF_NO_EFFECT) && cnk_conf_source_of(config->conf, o->id) > CNK_CONF_FROM_AMBIENT)
            return o->name;
    return NULL;
}

/* ---- the table; a chronik_option is a cnk_conf_option ----------------------------------------------------------- */

static const cnk_conf_option *row(const chronik_option *option) { return (const cnk_conf_option *)(const void *)option; }

const chronik_option *chronik_option_next(size_t *it) {
    const cnk_conf_option *o;
    do o = cnk_conf_option_at((*it)++);
    while (o && (o->flags & CNK_CONF_HIDDEN));
    return (const chronik_option *)(const void *)o;
}

const char *chronik_option_name(const chronik_option *option) { return row(option)->name; }
const char *chronik_option_section(const chronik_option *option) { return cnk_conf_section_title(row(option)->section); }
const char *chronik_option_unit(const chronik_option *option) { return row(option)->unit; }
const char *chronik_option_default(const chronik_option *option) { return row(option)->fallback; }
const char *chronik_option_others(const chronik_option *option) { return row(option)->others; }
const char *chronik_option_doc(const chronik_option *option) { return row(option)->doc; }

const char *chronik_option_type(const chronik_option *option) {
    static const char *const names[] = {"bool", "int", "bytes", "ms", "port", "text", "choice"};
    return names[row(option)->type];
}

const char *chronik_option_limits(const chronik_option *option) {
    unsigned flags = row(option)->flags;
    return flags & CNK_CONF_REFUSED ? "refused" : flags & CNK_CONF_NO_EFFECT ? "none" : "";
}
