/* A disk of one file, whose bytes are `image`, for fuzzers of what stands in files. Whoever includes it says what is asked of
 * a name that is opened and of a read: check_open, check_read. One thread. */
#ifndef CNK_FUZZ_IMAGE_DISK_H
#define CNK_FUZZ_IMAGE_DISK_H

#include <stdint.h>
#include <string.h>

#include <chronik/io.h>

static uint8_t *image;
static size_t image_len;

static void check_open(const char *path);
static void check_read(uint64_t pos, size_t len);

struct chronik_file {
    int unused;
};
static struct chronik_file the_file;

static int m_open(void *d, const char *path, unsigned flags, chronik_error *err, chronik_file **ret) {
    (void)d, (void)flags, (void)err;
    check_open(path);
    *ret = &the_file;
    return 0;
}
static void m_close(void *d, chronik_file *f) { (void)d, (void)f; }
static int64_t m_read(void *d, chronik_file *f, void *buf, size_t len, uint64_t pos, chronik_error *err) {
    (void)d, (void)f, (void)err;
    check_read(pos, len);
    size_t left = pos < image_len ? image_len - (size_t)pos : 0, n = left < len ? left : len;
    memcpy(buf, image + (left ? pos : 0), n);
    return (int64_t)n;
}
static int m_size(void *d, chronik_file *f, chronik_error *err, uint64_t *ret) {
    (void)d, (void)f, (void)err;
    *ret = image_len;
    return 0;
}

static const chronik_disk_ops disk = {
    .size = sizeof disk, .open = m_open, .close = m_close, .read = m_read, .size_get = m_size};
static const chronik_io io = {.size = sizeof io, .disk_ops = &disk};

#endif
