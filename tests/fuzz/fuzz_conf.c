/* Configuration: byte 0 picks the source: a TOML file, a command line or an environment (words that end with NUL). What is
 * refused comes with a sentence; what is taken can be shown, and read again from what is shown. */
#include <stdlib.h>
#include <string.h>

#include "base/assert.h"
#include "base/mem.h"
#include "conf/conf.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum { WORDS_MAX = 64 };

static int words_of(char *text, size_t size, char **words) {
    int count = 0;
    for (size_t at = 0; at < size && count < WORDS_MAX; at += strlen(text + at) + 1) words[count++] = text + at;
    words[count] = NULL;
    return count;
}

static void check_shown(const cnk_conf *conf) {
    chronik_error err = CHRONIK_ERROR_INIT;
    cnk_conf *again;
    char text[8192], same[8192];
    CNK_ASSERT(cnk_conf_new(&again) == 0);
    for (size_t i = 0; i < CNK_CONF_COUNT; i++) {
        const cnk_conf_option *o = cnk_conf_option_at(i);
        if (cnk_conf_source_of(conf, o->id) == CNK_CONF_FROM_DEFAULT) continue;
        CNK_ASSERT(cnk_conf_format(conf, o->id, text, sizeof text) >= 0);
        CNK_ASSERT(cnk_conf_set(again, o->name, text, CNK_CONF_FROM_FLAG, NULL, &err) == 0);
        CNK_ASSERT(cnk_conf_int(again, o->id) == cnk_conf_int(conf, o->id));
        CNK_ASSERT(cnk_conf_format(again, o->id, same, sizeof same) >= 0 && strcmp(text, same) == 0);
    }
    cnk_conf_free(again);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    chronik_error err = CHRONIK_ERROR_INIT;
    cnk_conf *conf, *copy;
    char *words[WORDS_MAX + 1];
    if (size == 0) return 0;
    char *text = malloc(size);
    CNK_ASSERT(text != NULL && cnk_conf_new(&conf) == 0);
    memcpy(text, data + 1, size - 1);
    text[size - 1] = '\0'; /* a file has none at its end: its length is given */
    int rc, count = data[0] % 3 ? words_of(text, size, words) : 0;
    if (data[0] % 3 == 0) rc = cnk_conf_load_toml(conf, text, size - 1, "file", &err);
    else if (data[0] % 3 == 1) rc = cnk_conf_load_args(conf, count, words, &err, &count);
    else rc = cnk_conf_load_env(conf, words, &err);
    CNK_ASSERT(rc == 0 || err.text[0] || rc == CHRONIK_ENOMEM);
    if (rc == 0) {
        check_shown(conf);
        CNK_ASSERT(cnk_conf_check(conf, &err) == 0 || err.text[0]);
        CNK_ASSERT(cnk_conf_copy(conf, &copy) == 0);
        cnk_conf_free(copy);
    }
    cnk_conf_free(conf);
    free(text);
    return 0;
}
