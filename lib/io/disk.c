/* Files by POSIX calls.
 *
 * Invariants: a write or read is never short for want of a loop; descriptors are close-on-exec; a sync is never tried
 * twice, not even after EINTR, since the kernel may have dropped the dirty pages (io.h). Any thread. */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/uio.h>
#include <unistd.h>

#include "base/assert.h"
#include "base/error.h"
#include "base/mem.h"
#include "io/posix.h"

struct chronik_file {
    int fd;
    bool direct;
    char path[]; /* as opened, for error texts */
};

enum {
    IOV_BATCH = 64,
    DIRECT_ALIGN = 4096,
    ZERO_BYTES = 1 << 20,
    FILE_MODE = 0640,
    DIR_MODE = 0750,
    NO_PROGRESS_MAX = 2
};

static int fail(chronik_error *err, const char *path, const char *what) {
    int e = errno;
    return cnk_error(err, cnk_error_from_errno(e), e, "%s: cannot %s", path, what);
}

static int file_new(const char *path, int fd, chronik_error *err, chronik_file **ret_file) {
    size_t len = strlen(path) + 1;
    chronik_file *file = cnk_malloc(sizeof *file + len);
    if (!file) {
        close(fd);
        return cnk_error(err, CHRONIK_ENOMEM, 0, "%s: no memory to open it", path);
    }
    file->fd = fd;
    file->direct = false;
    memcpy(file->path, path, len);
    *ret_file = file;
    return 0;
}

/* Direct I/O is switched on after opening: with O_DIRECT in open(), a file system without it may create the file before
 * it says EINVAL, and a second try with O_EXCL would then fail on our own file. */
static bool direct_on(int fd) {
#ifdef O_DIRECT
    int flags = fcntl(fd, F_GETFL);
    return flags >= 0 && fcntl(fd, F_SETFL, flags | O_DIRECT) == 0;
#elif defined(F_NOCACHE)
    (void)fcntl(fd, F_NOCACHE, 1); /* needs no alignment, so the file counts as buffered */
    return false;
#else
    (void)fd;
    return false;
#endif
}

static int posix_open(void *self, const char *path, unsigned flags, chronik_error *err, chronik_file **ret_file) {
    const cnk_posix_disk *disk = self;
    int how = O_CLOEXEC;
    if (!(flags & CHRONIK_OPEN_WRITE))
        how |= O_RDONLY;
    else
        how |= (flags & CHRONIK_OPEN_READ) ? O_RDWR : O_WRONLY;
    if (flags & CHRONIK_OPEN_CREATE)
        how |= (flags & CHRONIK_OPEN_EXCL) ? O_CREAT | O_EXCL : O_CREAT;
    int fd;
    do
        fd = open(path, how, FILE_MODE);
    while (fd < 0 && errno == EINTR);
    if (fd < 0)
        return fail(err, path, (flags & CHRONIK_OPEN_CREATE) ? "create" : "open");
    chronik_file *file = NULL;
    int rc = file_new(path, fd, err, &file);
    if (rc < 0)
        return rc;
    if ((flags & CHRONIK_OPEN_DIRECT) && !disk->buffered)
        file->direct = direct_on(fd);
    *ret_file = file;
    return 0;
}

static void posix_close(void *self, chronik_file *file) {
    (void)self;
    if (!file)
        return;
    close(file->fd);
    cnk_free(file);
}

/* A window over a caller's iov, which stays untouched: up to IOV_BATCH pieces from piece `i`, byte `skip` on. */
static int iov_window(struct iovec window[IOV_BATCH], const struct iovec *iov, int iov_count, int i, size_t skip) {
    int n = 0;
    for (; i < iov_count && n < IOV_BATCH; i++, skip = 0) {
        if (iov[i].iov_len == skip)
            continue;
        window[n].iov_base = (char *)iov[i].iov_base + skip;
        window[n++].iov_len = iov[i].iov_len - skip;
    }
    return n;
}

static int posix_write(void *self, chronik_file *file, const struct iovec *iov, int iov_count, uint64_t pos,
                       chronik_error *err) {
    (void)self;
    int i = 0, stuck = 0;
    size_t skip = 0; /* bytes of piece i that are written */
    for (;;) {
        while (i < iov_count && skip >= iov[i].iov_len) {
            skip -= iov[i].iov_len;
            i++;
        }
        if (i == iov_count)
            return 0;
        struct iovec window[IOV_BATCH];
        int n = iov_window(window, iov, iov_count, i, skip);
        ssize_t done = pwritev(file->fd, window, n, (off_t)pos);
        if (done < 0 && errno == EINTR)
            continue;
        if (done < 0)
            return fail(err, file->path, "write");
        if (file->direct)
            done -= done % DIRECT_ALIGN; /* go on from an aligned place; the rest is written once more */
        stuck = done == 0 ? stuck + 1 : 0;
        if (stuck == NO_PROGRESS_MAX)
            return cnk_error(err, CHRONIK_EIO, 0, "%s: cannot write: the system takes no bytes", file->path);
        pos += (uint64_t)done;
        skip += (size_t)done;
    }
}

static int64_t posix_read(void *self, chronik_file *file, void *buf, size_t len, uint64_t pos, chronik_error *err) {
    (void)self;
    size_t got = 0;
    while (got < len) {
        ssize_t n = pread(file->fd, (char *)buf + got, len - got, (off_t)(pos + got));
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return fail(err, file->path, "read");
        got += (size_t)n;
        if (n == 0 || (file->direct && n % DIRECT_ALIGN != 0)) /* a direct read is ragged at the file's end only */
            break;
    }
    return (int64_t)got;
}

static int64_t posix_read_cached(void *self, chronik_file *file, void *buf, size_t len, uint64_t pos) {
    (void)self;
#ifdef RWF_NOWAIT
    if (file->direct)
        return CHRONIK_EAGAIN;
    struct iovec iov = {buf, len};
    ssize_t n;
    do
        n = preadv2(file->fd, &iov, 1, (off_t)pos, RWF_NOWAIT);
    while (n < 0 && errno == EINTR);
    /* Also where the file system cannot say (EOPNOTSUPP), and for errors, which a waiting read will tell. */
    return n < 0 ? CHRONIK_EAGAIN : (int64_t)n;
#else
    (void)file;
    (void)buf;
    (void)len;
    (void)pos;
    return CHRONIK_EAGAIN;
#endif
}

static int posix_sync(void *self, chronik_file *file, chronik_error *err) {
    (void)self;
#ifdef F_FULLFSYNC
    /* fsync on macOS leaves the data in the device's volatile cache. */
    int rc = fcntl(file->fd, F_FULLFSYNC);
#else
    int rc = fdatasync(file->fd);
#endif
    return rc == 0 ? 0 : fail(err, file->path, "sync");
}

/* Where the file system reserves nothing by itself, zeros are written after the end of the file. */
static int fill(chronik_file *file, uint64_t len, chronik_error *err) {
    struct stat st;
    if (fstat(file->fd, &st) != 0)
        return fail(err, file->path, "get its size");
    uint64_t pos = (uint64_t)st.st_size;
    if (file->direct && (pos % DIRECT_ALIGN != 0 || len % DIRECT_ALIGN != 0))
        return cnk_error(err, CHRONIK_EINVAL, 0, "%s: cannot reserve space at a place that is not aligned", file->path);
    void *zeros = pos < len ? cnk_pages_alloc(ZERO_BYTES) : NULL;
    if (pos < len && !zeros)
        return cnk_error(err, CHRONIK_ENOMEM, 0, "%s: no memory to reserve space", file->path);
    int rc = 0;
    while (pos < len && rc == 0) {
        struct iovec iov = {zeros, len - pos < ZERO_BYTES ? (size_t)(len - pos) : ZERO_BYTES};
        rc = posix_write(NULL, file, &iov, 1, pos, err);
        pos += iov.iov_len;
    }
    if (zeros)
        cnk_pages_free(zeros, ZERO_BYTES);
    return rc;
}

static int posix_allocate(void *self, chronik_file *file, uint64_t len, chronik_error *err) {
    (void)self;
    if (len == 0)
        return 0;
#ifdef __linux__
    int rc;
    do
        rc = fallocate(file->fd, 0, 0, (off_t)len);
    while (rc != 0 && errno == EINTR);
    if (rc == 0)
        return 0;
    if (errno != EOPNOTSUPP && errno != ENOSYS)
        return fail(err, file->path, "reserve space");
#endif
    return fill(file, len, err);
}

static int posix_truncate(void *self, chronik_file *file, uint64_t len, chronik_error *err) {
    (void)self;
    int rc;
    do
        rc = ftruncate(file->fd, (off_t)len);
    while (rc != 0 && errno == EINTR);
    return rc == 0 ? 0 : fail(err, file->path, "set its size");
}

static int posix_size_get(void *self, chronik_file *file, chronik_error *err, uint64_t *ret_len) {
    (void)self;
    struct stat st;
    if (fstat(file->fd, &st) != 0)
        return fail(err, file->path, "get its size");
    *ret_len = (uint64_t)st.st_size;
    return 0;
}

static int posix_rename(void *self, const char *from, const char *to, chronik_error *err) {
    (void)self;
    if (rename(from, to) == 0)
        return 0;
    int e = errno;
    return cnk_error(err, cnk_error_from_errno(e), e, "%s: cannot rename it to %s", from, to);
}

static int posix_unlink(void *self, const char *path, chronik_error *err) {
    (void)self;
    return unlink(path) == 0 ? 0 : fail(err, path, "delete");
}

static int posix_mkdir(void *self, const char *path, chronik_error *err) {
    (void)self;
    return mkdir(path, DIR_MODE) == 0 ? 0 : fail(err, path, "make the directory");
}

static int posix_sync_dir(void *self, const char *path, chronik_error *err) {
    (void)self;
    int fd;
    do
        fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    while (fd < 0 && errno == EINTR);
    if (fd < 0)
        return fail(err, path, "open the directory");
    int rc = fsync(fd) == 0 ? 0 : fail(err, path, "sync the directory");
    close(fd);
    return rc;
}

static int posix_list(void *self, const char *path, int (*each)(void *arg, const char *name), void *arg,
                      chronik_error *err) {
    (void)self;
    DIR *dir = opendir(path);
    if (!dir)
        return fail(err, path, "list the directory");
    int rc = 0;
    while (rc == 0) {
        errno = 0;
        const struct dirent *entry = readdir(dir);
        if (!entry) {
            if (errno != 0)
                rc = fail(err, path, "list the directory");
            break;
        }
        if (strcmp(entry->d_name, ".") != 0 && strcmp(entry->d_name, "..") != 0)
            rc = each(arg, entry->d_name);
    }
    closedir(dir);
    return rc;
}

/* A lock of the open file, not of the process: it also holds against a second node in this process, and other
 * descriptors of the file can be closed without losing it. */
static int lock_fd(int fd) {
#ifdef F_OFD_SETLK
    struct flock whole = {.l_type = F_WRLCK, .l_whence = SEEK_SET};
    if (fcntl(fd, F_OFD_SETLK, &whole) == 0)
        return 0;
    if (errno != EINVAL)
        return -1;
#endif
    return flock(fd, LOCK_EX | LOCK_NB);
}

static int posix_lock(void *self, const char *path, chronik_error *err, chronik_file **ret_file) {
    (void)self;
    int fd;
    do
        fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, FILE_MODE);
    while (fd < 0 && errno == EINTR);
    if (fd < 0)
        return fail(err, path, "open");
    if (lock_fd(fd) != 0) {
        int e = errno;
        close(fd);
        if (e == EAGAIN || e == EACCES)
            return cnk_error(err, CHRONIK_EBUSY, e, "%s: another process uses this directory", path);
        errno = e;
        return fail(err, path, "lock");
    }
    return file_new(path, fd, err, ret_file);
}

static int posix_space(void *self, const char *path, chronik_error *err, chronik_disk_space *ret_space) {
    (void)self;
    struct statvfs st;
    int rc;
    do
        rc = statvfs(path, &st);
    while (rc != 0 && errno == EINTR);
    if (rc != 0)
        return fail(err, path, "ask for its free space");
    ret_space->total_bytes = (uint64_t)st.f_blocks * st.f_frsize;
    ret_space->usable_bytes = (uint64_t)st.f_bavail * st.f_frsize;
    return 0;
}

static int posix_absolute(void *self, const char *path, char *ret_text, size_t text_size) {
    (void)self;
    char *name = realpath(path, NULL);
    if (!name)
        return errno == ENOMEM ? CHRONIK_ENOMEM : CHRONIK_ENOTFOUND;
    size_t len = strlen(name);
    if (len < text_size)
        memcpy(ret_text, name, len + 1);
    free(name); /* the C library's */
    return len < text_size ? 0 : CHRONIK_ETOOLARGE;
}

static void posix_forget(void *self, chronik_file *file, uint64_t pos, uint64_t len) {
    (void)self;
#ifdef POSIX_FADV_DONTNEED
    (void)posix_fadvise(file->fd, (off_t)pos, (off_t)len, POSIX_FADV_DONTNEED);
#else
    (void)file;
    (void)pos;
    (void)len;
#endif
}

const chronik_disk_ops cnk_posix_disk_ops = {
    .size = sizeof(chronik_disk_ops),
    .open = posix_open,
    .close = posix_close,
    .write = posix_write,
    .read = posix_read,
    .read_cached = posix_read_cached,
    .sync = posix_sync,
    .allocate = posix_allocate,
    .truncate = posix_truncate,
    .size_get = posix_size_get,
    .rename = posix_rename,
    .unlink = posix_unlink,
    .mkdir = posix_mkdir,
    .sync_dir = posix_sync_dir,
    .list = posix_list,
    .lock = posix_lock,
    .space = posix_space,
    .absolute = posix_absolute,
    .forget = posix_forget,
};

int cnk_disk_absolute(const chronik_disk_ops *ops, void *disk, const char *path, char *ret_text, size_t text_size) {
    if (ops->size <= offsetof(chronik_disk_ops, absolute) || !ops->absolute)
        return CHRONIK_ENOTFOUND;
    return ops->absolute(disk, path, ret_text, text_size);
}
