/* A strict reader of the part of TOML that configuration needs; README.md says which part. Private to conf. */
#ifndef CNK_CONF_TOML_H
#define CNK_CONF_TOML_H

#include <stdbool.h>
#include <stddef.h>

#include <chronik/error.h>

enum { CNK_TOML_BYTES_MAX = 1 << 20, CNK_TOML_KEY_MAX = 512, CNK_TOML_VALUE_MAX = 4096 };

/* One key with its value. */
typedef struct cnk_toml_item {
    const char *key;   /* the whole path, joined by dots: "bind.kafka"; in an array of tables without the number */
    int element;       /* which of an array of tables, from 0; -1: none */
    const char *value; /* text; the elements of an array joined by commas */
    int line;
} cnk_toml_item;

/* Calls `each` for every key in order. A non-zero return ends the walk and is returned. EINVAL with file and line. */
int cnk_toml_read(const char *text, size_t len, const char *path, int (*each)(void *arg, const cnk_toml_item *item),
                  void *arg, chronik_error *err);

#endif
