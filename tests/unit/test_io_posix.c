/* The POSIX world: files, sockets, job lanes. */
#include <check.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <dirent.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <poll.h>
#include <sched.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>
#ifdef __linux__
#include <errno.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <stddef.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#endif

#include <chronik/io_posix.h>

#include "base/list.h"
#include "base/mem.h"
#include "io/event.h"

static chronik_io *io;
static const chronik_disk_ops *disk;
static char dir[64], path[2][128];
static chronik_error error;

static void setup(void) {
    error = (chronik_error)CHRONIK_ERROR_INIT;
    ck_assert_int_eq(chronik_io_posix_new(NULL, &error, &io), 0);
    disk = io->disk_ops;
    const char *tmp = getenv("TMPDIR");
    snprintf(dir, sizeof dir, "%s/chronik-io-XXXXXX", tmp ? tmp : "/tmp");
    ck_assert_ptr_nonnull(mkdtemp(dir));
    for (int i = 0; i < 2; i++)
        snprintf(path[i], sizeof path[i], "%s/file%d", dir, i);
}

static int remove_one(void *arg, const char *name) {
    (void)arg;
    char full[400];
    snprintf(full, sizeof full, "%s/%s", dir, name);
    return remove(full);
}

static void teardown(void) {
    disk->list(io->disk, dir, remove_one, NULL, NULL);
    ck_assert_int_eq(rmdir(dir), 0);
    chronik_io_posix_free(io);
}

static chronik_file *open_ok(const char *name, unsigned flags) {
    chronik_file *file = NULL;
    int rc = disk->open(io->disk, name, flags, &error, &file);
    ck_assert_msg(rc == 0, "%s", error.text);
    return file;
}

/* ---- disk ------------------------------------------------------------------------------------------------------- */

START_TEST(write_gathers_many_pieces) {
    chronik_file *file = open_ok(path[0], CHRONIK_OPEN_READ | CHRONIK_OPEN_WRITE | CHRONIK_OPEN_CREATE);
    enum { PIECES = 3000 }; /* more than IOV_MAX */
    static struct iovec iov[PIECES];
    static uint8_t want[PIECES * 7], got[sizeof want + 10];
    size_t len = 0;
    for (size_t i = 0; i < PIECES; i++) {
        iov[i].iov_base = want + len;
        iov[i].iov_len = i % 8; /* empty ones too */
        for (size_t k = 0; k < i % 8; k++)
            want[len++] = (uint8_t)(i * 31 + k);
    }
    ck_assert_int_eq(disk->write(io->disk, file, iov, PIECES, 5, &error), 0);
    ck_assert_int_eq(disk->sync(io->disk, file, &error), 0);
    ck_assert_int_eq(disk->read(io->disk, file, got, sizeof got, 5, &error), (int64_t)len);
    ck_assert_mem_eq(got, want, len);
    uint64_t size = 0;
    ck_assert_int_eq(disk->size_get(io->disk, file, &error, &size), 0);
    ck_assert_uint_eq(size, len + 5);
    ck_assert_int_eq(disk->read(io->disk, file, got, 10, size, &error), 0);
    disk->close(io->disk, file);
    disk->close(io->disk, NULL);
}
END_TEST

START_TEST(direct_files_read_back) {
    chronik_file *file =
        open_ok(path[0], CHRONIK_OPEN_READ | CHRONIK_OPEN_WRITE | CHRONIK_OPEN_CREATE | CHRONIK_OPEN_EXCL | CHRONIK_OPEN_DIRECT);
    enum { LEN = 3 * 4096 };
    uint8_t *buf = cnk_pages_alloc(LEN), *back = cnk_pages_alloc(2 * LEN);
    for (size_t i = 0; i < LEN; i++)
        buf[i] = (uint8_t)(i * 7 / 3);
    struct iovec iov[2] = {{buf, 4096}, {buf + 4096, LEN - 4096}};
    ck_assert_int_eq(disk->allocate(io->disk, file, LEN, &error), 0);
    ck_assert_int_eq(disk->write(io->disk, file, iov, 2, 4096, &error), 0);
    ck_assert_int_eq(disk->sync(io->disk, file, &error), 0);
    ck_assert_int_eq(disk->read(io->disk, file, back, 2 * LEN, 4096, &error), LEN); /* stops at the end */
    ck_assert_mem_eq(back, buf, LEN);
    disk->close(io->disk, file);

    /* A ragged end, made through the page cache, is read in full by a direct handle. */
    file = open_ok(path[0], CHRONIK_OPEN_WRITE);
    ck_assert_int_eq(disk->truncate(io->disk, file, 4096 + 100, &error), 0);
    ck_assert_int_eq(disk->sync(io->disk, file, &error), 0);
    disk->close(io->disk, file);
    file = open_ok(path[0], CHRONIK_OPEN_READ | CHRONIK_OPEN_DIRECT);
    ck_assert_int_eq(disk->read(io->disk, file, back, 2 * LEN, 4096, &error), 100);
    ck_assert_mem_eq(back, buf, 100);
    disk->close(io->disk, file);
    cnk_pages_free(buf, LEN);
    cnk_pages_free(back, 2 * LEN);
}
END_TEST

START_TEST(errors_name_the_path) {
    chronik_file *file = NULL;
    ck_assert_int_eq(disk->open(io->disk, path[0], CHRONIK_OPEN_READ, &error, &file), CHRONIK_ENOTFOUND);
    ck_assert_ptr_null(file);
    ck_assert_ptr_nonnull(strstr(error.text, path[0]));
    ck_assert_int_eq(disk->open(io->disk, path[0], CHRONIK_OPEN_READ, NULL, &file), CHRONIK_ENOTFOUND);
    file = open_ok(path[0], CHRONIK_OPEN_WRITE | CHRONIK_OPEN_CREATE);
    char byte;
    ck_assert_int_eq(disk->read(io->disk, file, &byte, 1, 0, &error), CHRONIK_EIO); /* opened for writing alone */
    ck_assert_ptr_nonnull(strstr(error.text, path[0]));
    disk->close(io->disk, file);
    ck_assert_int_eq(disk->open(io->disk, path[0], CHRONIK_OPEN_WRITE | CHRONIK_OPEN_CREATE | CHRONIK_OPEN_EXCL, &error, &file),
                     CHRONIK_EEXIST);
    ck_assert_int_eq(disk->unlink(io->disk, path[1], &error), CHRONIK_ENOTFOUND);
    ck_assert_int_eq(disk->rename(io->disk, path[1], path[0], &error), CHRONIK_ENOTFOUND);
    ck_assert_int_eq(disk->mkdir(io->disk, dir, &error), CHRONIK_EEXIST);
    ck_assert_int_eq(disk->sync_dir(io->disk, path[1], &error), CHRONIK_ENOTFOUND);
    ck_assert_int_eq(disk->list(io->disk, path[1], remove_one, NULL, &error), CHRONIK_ENOTFOUND);
}
END_TEST

START_TEST(a_full_device_says_enospc) {
    if (access("/dev/full", W_OK) != 0)
        return;
    chronik_file *file = open_ok("/dev/full", CHRONIK_OPEN_WRITE);
    struct iovec iov = {(char[]){"x"}, 1};
    ck_assert_int_eq(disk->write(io->disk, file, &iov, 1, 0, &error), CHRONIK_ENOSPC);
    disk->close(io->disk, file);
}
END_TEST

static int count_names(void *arg, const char *name) {
    int *count = arg;
    ck_assert_ptr_nonnull(strstr("file0 file1", name));
    (*count)++;
    return *count == 100 ? 7 : 0;
}

static int stop_with_7(void *arg, const char *name) {
    (void)arg;
    (void)name;
    return 7;
}

START_TEST(names_come_and_go) {
    disk->close(io->disk, open_ok(path[0], CHRONIK_OPEN_WRITE | CHRONIK_OPEN_CREATE));
    disk->close(io->disk, open_ok(path[1], CHRONIK_OPEN_WRITE | CHRONIK_OPEN_CREATE));
    int count = 0;
    ck_assert_int_eq(disk->list(io->disk, dir, count_names, &count, &error), 0);
    ck_assert_int_eq(count, 2);
    ck_assert_int_eq(disk->list(io->disk, dir, stop_with_7, NULL, &error), 7);
    ck_assert_int_eq(disk->rename(io->disk, path[0], path[1], &error), 0);
    ck_assert_int_eq(disk->sync_dir(io->disk, dir, &error), 0);
    count = 0;
    ck_assert_int_eq(disk->list(io->disk, dir, count_names, &count, &error), 0);
    ck_assert_int_eq(count, 1);
    ck_assert_int_eq(disk->unlink(io->disk, path[1], &error), 0);
    chronik_disk_space space = {0};
    ck_assert_int_eq(disk->space(io->disk, dir, &error, &space), 0);
    ck_assert_uint_gt(space.usable_bytes, 0);
    ck_assert_uint_ge(space.total_bytes, space.usable_bytes);
    char name[PATH_MAX], dotted[2 * PATH_MAX + 8];
    ck_assert_int_eq(disk->absolute(io->disk, dir, name, sizeof name), 0);
    ck_assert_int_eq(name[0], '/');
    snprintf(dotted, sizeof dotted, "%s/../%s", name, strrchr(name, '/') + 1);
    char again[PATH_MAX];
    ck_assert_int_eq(disk->absolute(io->disk, dotted, again, sizeof again), 0);
    ck_assert_str_eq(again, name);
    ck_assert_int_eq(disk->absolute(io->disk, dir, again, strlen(name)), CHRONIK_ETOOLARGE);
    ck_assert_int_eq(disk->absolute(io->disk, path[1], again, sizeof again), CHRONIK_ENOTFOUND);
}
END_TEST

START_TEST(allocate_never_shrinks) {
    chronik_file *file = open_ok(path[0], CHRONIK_OPEN_READ | CHRONIK_OPEN_WRITE | CHRONIK_OPEN_CREATE);
    uint64_t size = 0;
    ck_assert_int_eq(disk->allocate(io->disk, file, 100000, &error), 0);
    ck_assert_int_eq(disk->size_get(io->disk, file, &error, &size), 0);
    ck_assert_uint_eq(size, 100000);
    ck_assert_int_eq(disk->allocate(io->disk, file, 5000, &error), 0);
    ck_assert_int_eq(disk->size_get(io->disk, file, &error, &size), 0);
    ck_assert_uint_eq(size, 100000);
    disk->close(io->disk, file);
}
END_TEST

#ifdef __linux__
/* As on a file system that reserves no space: for this process, and for ever. */
static bool without_fallocate(void) {
    struct sock_filter code[] = {BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
                                 BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_fallocate, 0, 1),
                                 BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | EOPNOTSUPP),
                                 BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW)};
    struct sock_fprog filter = {sizeof code / sizeof *code, code};
    return prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0 && prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &filter) == 0;
}

enum { RESERVED = 300 * 4096 };

/* 0; or which step it was. */
static int reserve_by_hand(unsigned flags) {
    static _Alignas(4096) char data[4096], got[RESERVED];
    chronik_file *file;
    struct iovec iov = {data, sizeof data};
    struct stat st;
    memset(data, 'x', sizeof data);
    if (!without_fallocate()) return 77;
    if (disk->open(io->disk, path[0], flags | CHRONIK_OPEN_READ | CHRONIK_OPEN_WRITE | CHRONIK_OPEN_CREATE, &error, &file)) return 1;
    if (disk->write(io->disk, file, &iov, 1, 0, &error)) return 2;
    if (disk->allocate(io->disk, file, RESERVED, &error)) return 3;
    if (disk->allocate(io->disk, file, 4096, &error)) return 4; /* there is more */
    disk->close(io->disk, file);
    if (stat(path[0], &st) || st.st_size != RESERVED || st.st_blocks < RESERVED / 512) return 5;
    int fd = open(path[0], O_RDONLY);
    if (fd < 0 || read(fd, got, sizeof got) != RESERVED || memcmp(got, data, sizeof data) != 0) return 6;
    for (size_t n = sizeof data; n < sizeof got; n++)
        if (got[n]) return 7;
    close(fd);
    return 0;
}

START_TEST(space_is_reserved_by_hand) {
    const pid_t child = fork();
    int status;
    if (child == 0) _exit(reserve_by_hand(_i == 0 ? 0 : CHRONIK_OPEN_DIRECT));
    ck_assert_int_eq(waitpid(child, &status, 0), child);
    ck_assert(WIFEXITED(status));
    if (WEXITSTATUS(status) != 77) ck_assert_int_eq(WEXITSTATUS(status), 0); /* 77: no seccomp here */
}
END_TEST
#endif

START_TEST(cached_reads_do_not_lie) {
    chronik_file *file = open_ok(path[0], CHRONIK_OPEN_READ | CHRONIK_OPEN_WRITE | CHRONIK_OPEN_CREATE);
    char got[16] = {0};
    struct iovec iov = {(char[]){"hello world"}, 11};
    ck_assert_int_eq(disk->write(io->disk, file, &iov, 1, 0, &error), 0);
    int64_t n = disk->read_cached(io->disk, file, got, sizeof got, 0);
    ck_assert(n == CHRONIK_EAGAIN || (n >= 0 && n <= 11));
    if (n > 0)
        ck_assert_mem_eq(got, "hello world", (size_t)n);
    ck_assert_int_eq(disk->sync(io->disk, file, &error), 0);
    disk->forget(io->disk, file, 0, 11);
    disk->close(io->disk, file);
}
END_TEST

START_TEST(one_lock_for_one_directory) {
    chronik_file *first = NULL, *second = NULL;
    ck_assert_int_eq(disk->lock(io->disk, path[0], &error, &first), 0);
    ck_assert_int_eq(disk->lock(io->disk, path[0], &error, &second), CHRONIK_EBUSY);
    ck_assert_ptr_null(second);
    ck_assert_ptr_nonnull(strstr(error.text, path[0]));
    pid_t child = fork();
    if (child == 0)
        _exit(disk->lock(io->disk, path[0], NULL, &second) == CHRONIK_EBUSY ? 0 : 1);
    int status = 0;
    ck_assert_int_eq(waitpid(child, &status, 0), child);
    ck_assert_int_eq(status, 0);
    disk->close(io->disk, first);
    ck_assert_int_eq(disk->lock(io->disk, path[0], &error, &second), 0);
    disk->close(io->disk, second);
}
END_TEST

START_TEST(descriptors_are_close_on_exec) {
    chronik_file *files[2] = {NULL};
    files[0] = open_ok(path[0], CHRONIK_OPEN_WRITE | CHRONIK_OPEN_CREATE | CHRONIK_OPEN_DIRECT);
    ck_assert_int_eq(disk->lock(io->disk, path[1], &error, &files[1]), 0);
    cnk_event_loop *loop = NULL;
    ck_assert_int_eq(cnk_event_loop_new(NULL, &error, &loop), 0);
    int fd = -1;
    chronik_address local;
    ck_assert_int_eq(io->net_ops->listen(io->net, "*", 0, &error, &fd, &local), 0);
    int seen = 0;
    for (int i = 3; i < 256; i++) {
        char link[64], target[256] = {0};
        snprintf(link, sizeof link, "/proc/self/fd/%d", i);
        if (readlink(link, target, sizeof target - 1) < 0)
            continue;
        if (strstr(target, dir) || strstr(target, "eventfd") || i == fd) {
            seen++;
            ck_assert_msg(fcntl(i, F_GETFD) & FD_CLOEXEC, "%s leaks into children", target);
        }
    }
    ck_assert_int_ge(seen, 4);
    io->net_ops->close(io->net, fd);
    cnk_event_loop_free(loop);
    for (int i = 0; i < 2; i++)
        disk->close(io->disk, files[i]);
}
END_TEST

/* ---- sockets ---------------------------------------------------------------------------------------------------- */

static void wait_for(int fd, short events) {
    struct pollfd p = {fd, events, 0};
    ck_assert_int_eq(poll(&p, 1, -1), 1);
}

static int connect_to(int family, uint16_t port) {
    struct sockaddr_in v4 = {.sin_family = AF_INET, .sin_port = htons(port), .sin_addr = {htonl(INADDR_LOOPBACK)}};
    int fd = socket(family, SOCK_STREAM, 0);
    ck_assert_int_eq(connect(fd, (struct sockaddr *)&v4, sizeof v4), 0);
    return fd;
}

START_TEST(sockets_talk) {
    const chronik_net_ops *net = io->net_ops;
    static const char *const hosts[] = {"", "*", "127.0.0.1", "localhost"};
    for (size_t i = 0; i < sizeof hosts / sizeof *hosts; i++) {
        int listener = -1, fd = -1, other = -1;
        chronik_address at, local, peer;
        if (i == 3) { /* may be IPv6 only */
            ck_assert_int_eq(net->listen(io->net, hosts[i], 0, &error, &listener, &at), 0);
            net->close(io->net, listener);
            continue;
        }
        int rc = net->listen(io->net, hosts[i], 0, &error, &listener, &at);
        ck_assert_msg(rc == 0, "%s", error.text);
        ck_assert_uint_ne(at.port, 0);
        ck_assert_int_eq(net->accept(io->net, listener, &fd, &local, &peer), CHRONIK_EAGAIN);
        int client = connect_to(AF_INET, at.port);
        wait_for(listener, POLLIN);
        ck_assert_int_eq(net->accept(io->net, listener, &fd, &local, &peer), 0);
        ck_assert_str_eq(local.host, "127.0.0.1");
        ck_assert_str_eq(peer.host, "127.0.0.1");
        ck_assert_uint_eq(local.port, at.port);

        char got[2][3];
        struct iovec in[2] = {{got[0], 3}, {got[1], 3}};
        ck_assert_int_eq(net->recv(io->net, fd, in, 2), CHRONIK_EAGAIN);
        ck_assert_int_eq(write(client, "abcde", 5), 5);
        wait_for(fd, POLLIN);
        ck_assert_int_eq(net->recv(io->net, fd, in, 2), 5);
        ck_assert_mem_eq(got[1], "de", 2);
        ck_assert_int_eq(net->send(io->net, fd, in, 1), 3);
        ck_assert_int_eq(read(client, got[1], 3), 3);

        ck_assert_int_eq(net->listen(io->net, hosts[i], at.port, &error, &other, &local), CHRONIK_EBUSY);
        close(client);
        wait_for(fd, POLLIN);
        ck_assert_int_eq(net->recv(io->net, fd, in, 2), 0);
        net->close(io->net, fd);
        net->close(io->net, listener);
    }
    int fd = -1;
    chronik_address at;
    ck_assert_int_eq(net->listen(io->net, "not.an.address.invalid.", 0, &error, &fd, &at), CHRONIK_EINVAL);
    ck_assert_int_eq(fd, -1);
}
END_TEST

START_TEST(a_reset_is_no_signal) {
    const chronik_net_ops *net = io->net_ops;
    int listener = -1, fd = -1;
    chronik_address at, local, peer;
    ck_assert_int_eq(net->listen(io->net, "127.0.0.1", 0, &error, &listener, &at), 0);
    int client = connect_to(AF_INET, at.port);
    wait_for(listener, POLLIN);
    ck_assert_int_eq(net->accept(io->net, listener, &fd, &local, &peer), 0);
    struct linger now = {1, 0};
    ck_assert_int_eq(setsockopt(client, SOL_SOCKET, SO_LINGER, &now, sizeof now), 0);
    close(client);
    wait_for(fd, POLLIN);
    char byte = 'x';
    struct iovec iov = {&byte, 1};
    ck_assert_int_eq(net->recv(io->net, fd, &iov, 1), CHRONIK_ECLOSED);
    ck_assert_int_eq(net->send(io->net, fd, &iov, 1), CHRONIK_ECLOSED); /* EPIPE: SIGPIPE would end this program */
    net->close(io->net, fd);
    net->close(io->net, listener);
}
END_TEST

START_TEST(entropy_differs) {
    uint8_t a[64] = {0}, b[64] = {0};
    io->entropy(io->entropy_self, a, sizeof a);
    io->entropy(io->entropy_self, b, sizeof b);
    ck_assert_mem_ne(a, b, sizeof a);
}
END_TEST

/* ---- jobs ------------------------------------------------------------------------------------------------------- */

typedef struct count_job {
    chronik_job job;
    int steps_left;
    int64_t delay_ns;
    uint64_t asked_ns;
    atomic_int stepping, steps;
    bool late_ok;
    cnk_event_loop *loop;
    atomic_int *running;
} count_job;

static int64_t count_step(chronik_job *job) {
    count_job *c = CNK_CONTAINER(job, count_job, job);
    ck_assert_int_eq(atomic_fetch_add(&c->stepping, 1), 0); /* never two at once */
    if (c->asked_ns)
        ck_assert_uint_ge(io->jobs_ops->now_ns(io->jobs), c->asked_ns);
    sigset_t mask;
    pthread_sigmask(SIG_BLOCK, NULL, &mask);
    ck_assert_int_eq(sigismember(&mask, SIGTERM), 1);
    ck_assert_int_eq(sigismember(&mask, SIGINT), 1);
    atomic_fetch_add(&c->steps, 1);
    int64_t next = --c->steps_left > 0 ? c->delay_ns : CHRONIK_JOB_DONE;
    c->asked_ns = next > 0 ? io->jobs_ops->now_ns(io->jobs) + (uint64_t)next : 0;
    atomic_fetch_sub(&c->stepping, 1);
    return next;
}

static int done_count, done_wanted;

static void count_done(chronik_job *job) {
    count_job *c = CNK_CONTAINER(job, count_job, job);
    ck_assert_int_eq(c->steps_left, 0);
    if (++done_count == done_wanted)
        cnk_event_loop_stop(c->loop);
}

START_TEST(jobs_step_and_report) {
    cnk_event_loop *loop = NULL;
    ck_assert_int_eq(cnk_event_loop_new(NULL, &error, &loop), 0);
    enum { JOBS = 60 };
    static count_job jobs[JOBS];
    memset(jobs, 0, sizeof jobs);
    done_count = 0;
    done_wanted = JOBS;
    for (int i = 0; i < JOBS; i++) {
        jobs[i].job = (chronik_job){.loop = cnk_event_loop_get(loop), .step = count_step, .done = count_done};
        jobs[i].steps_left = 1 + i % 5;
        jobs[i].delay_ns = i % 3 == 0 ? 0 : i * 50000;
        jobs[i].loop = loop;
        io->jobs_ops->submit(io->jobs, (unsigned)(i % CHRONIK_LANE_COUNT), &jobs[i].job);
    }
    cnk_event_loop_run(loop);
    ck_assert_int_eq(done_count, JOBS);
    for (int i = 0; i < JOBS; i++)
        ck_assert_int_eq(atomic_load(&jobs[i].steps), 1 + i % 5);
    cnk_event_loop_free(loop);
}
END_TEST

/* A job of the one-thread lane asks for a day's delay; others must go on, and _free must not wait for it. */
START_TEST(delayed_jobs_hold_nobody_up) {
    cnk_event_loop *loop = NULL;
    ck_assert_int_eq(cnk_event_loop_new(NULL, &error, &loop), 0);
    static count_job slow, quick[3];
    memset(&slow, 0, sizeof slow);
    memset(quick, 0, sizeof quick);
    slow.job = (chronik_job){.step = count_step};
    slow.steps_left = 2;
    slow.delay_ns = INT64_C(86400) * 1000000000;
    io->jobs_ops->submit(io->jobs, CHRONIK_LANE_WAL, &slow.job);
    done_count = 0;
    done_wanted = 3;
    for (int i = 0; i < 3; i++) {
        quick[i].job = (chronik_job){.loop = cnk_event_loop_get(loop), .step = count_step, .done = count_done};
        quick[i].steps_left = 3;
        quick[i].delay_ns = (3 - i) * 100000;
        quick[i].loop = loop;
        io->jobs_ops->submit(io->jobs, CHRONIK_LANE_WAL, &quick[i].job);
    }
    cnk_event_loop_run(loop);
    ck_assert_int_eq(atomic_load(&slow.steps), 1);
    cnk_event_loop_free(loop);
}
END_TEST

/* Without `done`: the owner learns by itself that the last step is over, and submits again, or frees, at once. */
typedef struct again_job {
    chronik_job job;
    atomic_bool busy;
    int rounds;
} again_job;

static int64_t again_step(chronik_job *job) {
    again_job *a = CNK_CONTAINER(job, again_job, job);
    a->rounds++;
    atomic_store(&a->busy, false);
    return CHRONIK_JOB_DONE;
}

static int64_t self_again_step(chronik_job *job) {
    again_job *a = CNK_CONTAINER(job, again_job, job);
    if (++a->rounds == 1000)
        atomic_store(&a->busy, false);
    else
        io->jobs_ops->submit(io->jobs, CHRONIK_LANE_READ, job);
    return CHRONIK_JOB_DONE;
}

START_TEST(a_job_without_done_is_free_at_once) {
    again_job *a = cnk_calloc(1, sizeof *a);
    a->job = (chronik_job){.step = again_step};
    for (int i = 0; i < 2000; i++) {
        atomic_store(&a->busy, true);
        io->jobs_ops->submit(io->jobs, i % 2 ? CHRONIK_LANE_READ : CHRONIK_LANE_WAL, &a->job);
        while (atomic_load(&a->busy))
            sched_yield();
    }
    ck_assert_int_eq(a->rounds, 2000);
    cnk_free(a);
    static again_job self;
    self = (again_job){.job = {.step = self_again_step}};
    atomic_store(&self.busy, true);
    io->jobs_ops->submit(io->jobs, CHRONIK_LANE_READ, &self.job);
    while (atomic_load(&self.busy))
        sched_yield();
    ck_assert_int_eq(self.rounds, 1000);
}
END_TEST

/* Two threads in the READ lane: each step waits until it has seen the other one. */
static atomic_int meeting;

static int64_t meet_step(chronik_job *job) {
    (void)job;
    atomic_fetch_add(&meeting, 1);
    while (atomic_load(&meeting) < 2)
        sched_yield();
    return CHRONIK_JOB_DONE;
}

static void meet_done(chronik_job *job) {
    if (++done_count == 2)
        cnk_event_loop_stop((cnk_event_loop *)job->loop->self);
}

START_TEST(the_read_lane_has_two_threads) {
    cnk_event_loop *loop = NULL;
    ck_assert_int_eq(cnk_event_loop_new(NULL, &error, &loop), 0);
    static chronik_job jobs[2];
    atomic_store(&meeting, 0);
    done_count = 0;
    for (int i = 0; i < 2; i++) {
        jobs[i] = (chronik_job){.loop = cnk_event_loop_get(loop), .step = meet_step, .done = meet_done};
        io->jobs_ops->submit(io->jobs, CHRONIK_LANE_READ, &jobs[i]);
    }
    cnk_event_loop_run(loop);
    ck_assert_int_eq(atomic_load(&meeting), 2);
    cnk_event_loop_free(loop);
}
END_TEST

#ifdef __linux__
/* What nobody waits for yields: a thread's nice is its own. */
static atomic_int niceness;

static int64_t nice_step(chronik_job *job) {
    (void)job;
    atomic_store(&niceness, getpriority(PRIO_PROCESS, 0));
    return CHRONIK_JOB_DONE;
}

static void nice_done(chronik_job *job) { cnk_event_loop_stop((cnk_event_loop *)job->loop->self); }

/* Threads that keep a processor busy yield to loops, to the WAL's writer and to readers. */
START_TEST(busy_lanes_are_nice) {
    cnk_event_loop *loop = NULL;
    ck_assert_int_eq(cnk_event_loop_new(NULL, &error, &loop), 0);
    const int own = getpriority(PRIO_PROCESS, 0);
    for (unsigned lane = 0; lane < CHRONIK_LANE_COUNT; lane++) {
        chronik_job job = {.loop = cnk_event_loop_get(loop), .step = nice_step, .done = nice_done};
        io->jobs_ops->submit(io->jobs, lane, &job);
        cnk_event_loop_run(loop);
        const int at_most = own + 5 < 19 ? own + 5 : 19;
        const bool busy = lane == CHRONIK_LANE_BACKGROUND || lane == CHRONIK_LANE_COMPUTE;
        ck_assert_int_eq(atomic_load(&niceness), busy ? at_most : own);
    }
    ck_assert_int_eq(getpriority(PRIO_PROCESS, 0), own);
    cnk_event_loop_free(loop);
}
END_TEST
#endif

START_TEST(options_are_checked) {
    chronik_io *other = NULL;
    chronik_io_posix_options options = CHRONIK_IO_POSIX_OPTIONS_INIT;
    options.read_threads = 65;
    ck_assert_int_eq(chronik_io_posix_new(&options, &error, &other), CHRONIK_EINVAL);
    options.size = 1;
    ck_assert_int_eq(chronik_io_posix_new(&options, &error, &other), CHRONIK_EINVAL);
    ck_assert_ptr_null(other);
    chronik_io_posix_free(NULL);
}
END_TEST

#ifdef CNK_TEST_HOOKS
/* Each allocation fails in turn: an error, nothing leaked (AddressSanitizer looks), outputs untouched. */
START_TEST(each_allocation_may_fail) {
    int rc = CHRONIK_ENOMEM;
    for (long n = 0; rc == CHRONIK_ENOMEM && n < 50; n++) {
        chronik_io *other = NULL;
        cnk_event_loop *loop = NULL;
        chronik_timer *timer = NULL;
        chronik_watch *watch = NULL;
        chronik_file *files[2] = {NULL, NULL};
        const chronik_loop *l = NULL;
        cnk_mem_fail_at(n);
        rc = chronik_io_posix_new(NULL, &error, &other);
        if (rc == 0)
            rc = cnk_event_loop_new(NULL, &error, &loop);
        if (rc == 0) {
            l = cnk_event_loop_get(loop);
            rc = l->ops->timer_new(l->self, NULL, NULL, &timer);
        }
        if (rc == 0)
            rc = l->ops->watch_new(l->self, 0, NULL, NULL, &watch);
        if (rc == 0)
            rc = disk->open(io->disk, path[0], CHRONIK_OPEN_WRITE | CHRONIK_OPEN_CREATE, &error, &files[0]);
        if (rc == 0)
            rc = disk->lock(io->disk, path[1], &error, &files[1]);
        cnk_mem_fail_at(-1);
        ck_assert(rc == 0 || rc == CHRONIK_ENOMEM);
        ck_assert((rc == 0) == (files[1] != NULL));
        disk->close(io->disk, files[0]);
        disk->close(io->disk, files[1]);
        if (l) {
            l->ops->watch_free(l->self, watch);
            l->ops->timer_free(l->self, timer);
        }
        cnk_event_loop_free(loop);
        chronik_io_posix_free(other);
    }
    ck_assert_int_eq(rc, 0);
}
END_TEST
#endif

int main(void) {
    Suite *suite = suite_create("io_posix");
    TCase *t = tcase_create("all");
    tcase_set_timeout(t, 60);
    tcase_add_checked_fixture(t, setup, teardown);
    tcase_add_test(t, write_gathers_many_pieces);
    tcase_add_test(t, direct_files_read_back);
    tcase_add_test(t, errors_name_the_path);
    tcase_add_test(t, a_full_device_says_enospc);
    tcase_add_test(t, names_come_and_go);
    tcase_add_test(t, allocate_never_shrinks);
#ifdef __linux__
    tcase_add_loop_test(t, space_is_reserved_by_hand, 0, 2);
#endif
    tcase_add_test(t, cached_reads_do_not_lie);
    tcase_add_test(t, one_lock_for_one_directory);
    tcase_add_test(t, descriptors_are_close_on_exec);
    tcase_add_test(t, sockets_talk);
    tcase_add_test(t, a_reset_is_no_signal);
    tcase_add_test(t, entropy_differs);
    tcase_add_test(t, jobs_step_and_report);
    tcase_add_test(t, delayed_jobs_hold_nobody_up);
    tcase_add_test(t, a_job_without_done_is_free_at_once);
    tcase_add_test(t, the_read_lane_has_two_threads);
#ifdef __linux__
    tcase_add_test(t, busy_lanes_are_nice);
#endif
    tcase_add_test(t, options_are_checked);
#ifdef CNK_TEST_HOOKS
    tcase_add_test(t, each_allocation_may_fail);
#endif
    suite_add_tcase(suite, t);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
