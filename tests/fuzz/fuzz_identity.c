/* A data directory's `identity`, whatever stands in it: it is taken, or refused with a sentence. Byte 0: 1 puts the checksum
 * right first. Nothing stays open. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/assert.h"
#include "base/crc32c.h"
#include "node/internal.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum { FILE_BYTES_MAX = 2000 };

static char text[FILE_BYTES_MAX + 64];
static size_t text_len;
static int open_files;

struct chronik_file {
    int unused;
};
static struct chronik_file the_file;

static int f_mkdir(void *d, const char *path, chronik_error *err) { (void)d, (void)path, (void)err; return CHRONIK_EEXIST; }
static int f_lock(void *d, const char *path, chronik_error *err, chronik_file **ret) {
    (void)d, (void)path, (void)err;
    open_files++;
    *ret = &the_file;
    return 0;
}
static int f_open(void *d, const char *path, unsigned flags, chronik_error *err, chronik_file **ret) {
    (void)d, (void)path, (void)flags, (void)err;
    open_files++;
    *ret = &the_file;
    return 0;
}
static void f_close(void *d, chronik_file *f) { (void)d; open_files -= f != NULL; }
static int64_t f_read(void *d, chronik_file *f, void *buf, size_t len, uint64_t pos, chronik_error *err) {
    (void)d, (void)f, (void)pos, (void)err;
    size_t n = text_len < len ? text_len : len;
    memcpy(buf, text, n);
    return (int64_t)n;
}

static const chronik_disk_ops disk = {
    .size = sizeof disk, .mkdir = f_mkdir, .lock = f_lock, .open = f_open, .close = f_close, .read = f_read};
static const chronik_io io = {.size = sizeof io, .disk_ops = &disk};

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    if (size == 0 || size > FILE_BYTES_MAX) return 0;
    text_len = size - 1;
    memcpy(text, data + 1, text_len);
    if (data[0] & 1) { /* the checksum is of all bytes before its line */
        text[text_len++] = '\n';
        text_len += (size_t)sprintf(text + text_len, "crc32c=%08x\n", (unsigned)cnk_crc32c(0, text, text_len));
    }
    chronik_error err = CHRONIK_ERROR_INIT;
    chronik_file *lock = NULL;
    cnk_identity id;
    int rc = cnk_directory_take(&io, "/d", data[0] & 2 ? 7 : -1, &err, &lock, &id);
    CNK_ASSERT((rc == 0) == (lock != NULL) && (rc == 0 || err.text[0]));
    if (rc == 0) io.disk_ops->close(io.disk, lock);
    CNK_ASSERT(open_files == 0);
    return 0;
}
