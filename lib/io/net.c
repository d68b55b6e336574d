/* Sockets by POSIX calls. Everything is non-blocking and close-on-exec; a send never raises SIGPIPE. Any thread. */
#include <arpa/inet.h>
#include <errno.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <unistd.h>

#include "base/error.h"
#include "io/posix.h"

enum { BACKLOG = 1024, IOV_LIMIT = 1024, ACCEPT_TRIES = 16 };

typedef union any_address {
    struct sockaddr sa;
    struct sockaddr_in v4;
    struct sockaddr_in6 v6;
    struct sockaddr_storage room;
} any_address;

/* Numeric text; an IPv4 address that came through a dual-stack socket is shown as IPv4. */
static void address_set(chronik_address *to, const any_address *from) {
    memset(to, 0, sizeof *to);
    if (from->sa.sa_family == AF_INET) {
        inet_ntop(AF_INET, &from->v4.sin_addr, to->host, sizeof to->host);
        to->port = ntohs(from->v4.sin_port);
    } else if (from->sa.sa_family == AF_INET6) {
        if (IN6_IS_ADDR_V4MAPPED(&from->v6.sin6_addr))
            inet_ntop(AF_INET, &from->v6.sin6_addr.s6_addr[12], to->host, sizeof to->host);
        else
            inet_ntop(AF_INET6, &from->v6.sin6_addr, to->host, sizeof to->host);
        to->port = ntohs(from->v6.sin6_port);
    }
}

/* A listening socket at one address, or -1 with errno. */
static int listen_at(const struct sockaddr *address, socklen_t len, bool dual, any_address *ret_local) {
    int fd = socket(address->sa_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return -1;
    int on = 1, v6only = dual ? 0 : 1;
    socklen_t local_len = sizeof *ret_local;
    bool ok = setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on) == 0;
    if (ok && address->sa_family == AF_INET6)
        ok = setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &v6only, sizeof v6only) == 0;
    ok = ok && bind(fd, address, len) == 0 && listen(fd, BACKLOG) == 0 &&
         getsockname(fd, &ret_local->sa, &local_len) == 0;
    if (ok)
        return fd;
    int e = errno;
    close(fd);
    errno = e;
    return -1;
}

static int listen_fail(chronik_error *err, const char *host, uint16_t port) {
    int e = errno;
    const char *shown = *host ? host : "*";
    if (e == EADDRINUSE)
        return cnk_error(err, CHRONIK_EBUSY, e, "cannot listen on %s:%u; choose another port, or 0 for any free one",
                         shown, port);
    return cnk_error(err, cnk_error_from_errno(e), e, "cannot listen on %s:%u", shown, port);
}

/* All addresses: one IPv6 socket that takes IPv4 too; IPv4 alone where the machine has no IPv6. */
static int listen_all(uint16_t port, any_address *ret_local) {
    struct sockaddr_in6 v6 = {.sin6_family = AF_INET6, .sin6_port = htons(port), .sin6_addr = IN6ADDR_ANY_INIT};
    int fd = listen_at((const struct sockaddr *)&v6, sizeof v6, true, ret_local);
    if (fd >= 0 || (errno != EAFNOSUPPORT && errno != EADDRNOTAVAIL && errno != EPROTONOSUPPORT))
        return fd;
    struct sockaddr_in v4 = {.sin_family = AF_INET, .sin_port = htons(port), .sin_addr = {htonl(INADDR_ANY)}};
    return listen_at((const struct sockaddr *)&v4, sizeof v4, false, ret_local);
}

static int net_listen(void *self, const char *host, uint16_t port, chronik_error *err, int *ret_fd,
                      chronik_address *ret_local) {
    (void)self;
    any_address local;
    memset(&local, 0, sizeof local);
    int fd = -1;
    if (*host == '\0' || strcmp(host, "*") == 0) {
        fd = listen_all(port, &local);
    } else {
        char service[8];
        snprintf(service, sizeof service, "%u", port);
        struct addrinfo hints = {.ai_family = AF_UNSPEC, .ai_socktype = SOCK_STREAM, .ai_flags = AI_PASSIVE};
        struct addrinfo *found = NULL;
        int rc = getaddrinfo(host, service, &hints, &found);
        if (rc != 0)
            return cnk_error(err, CHRONIK_EINVAL, 0, "cannot listen on %s: %s", host, gai_strerror(rc));
        for (const struct addrinfo *a = found; a && fd < 0; a = a->ai_next)
            fd = listen_at(a->ai_addr, a->ai_addrlen, false, &local);
        int e = errno;
        freeaddrinfo(found);
        errno = e;
    }
    if (fd < 0)
        return listen_fail(err, host, port);
    address_set(ret_local, &local);
    *ret_fd = fd;
    return 0;
}

/* Errors of the connection that waited, not of the listener: the next one may be well (accept(2), "Error handling"). */
static bool accept_error_passes(int e) {
    switch (e) {
    case EINTR:
    case ECONNABORTED:
    case EPROTO:
    case ENETDOWN:
    case ENOPROTOOPT:
    case EHOSTDOWN:
    case EHOSTUNREACH:
    case EOPNOTSUPP:
    case ENETUNREACH:
    case EPERM:
        return true;
    default:
        return false;
    }
}

static int net_accept(void *self, int fd, int *ret_fd, chronik_address *ret_local, chronik_address *ret_peer) {
    (void)self;
    for (int i = 0; i < ACCEPT_TRIES; i++) {
        any_address peer, local;
        memset(&peer, 0, sizeof peer);
        memset(&local, 0, sizeof local);
        socklen_t peer_len = sizeof peer, local_len = sizeof local;
        int made = accept4(fd, &peer.sa, &peer_len, SOCK_NONBLOCK | SOCK_CLOEXEC);
        if (made < 0 && accept_error_passes(errno))
            continue;
        if (made < 0) /* EMFILE and the like are EIO: the caller rests for a while */
            return errno == EAGAIN || errno == EWOULDBLOCK ? CHRONIK_EAGAIN : cnk_error_from_errno(errno);
        int on = 1;
        (void)setsockopt(made, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
        (void)getsockname(made, &local.sa, &local_len);
        address_set(ret_local, &local);
        address_set(ret_peer, &peer);
        *ret_fd = made;
        return 0;
    }
    return CHRONIK_EAGAIN; /* the listener is still readable: the loop comes back */
}

static ssize_t moved(ssize_t n) {
    if (n >= 0)
        return n;
    if (errno == EAGAIN || errno == EWOULDBLOCK)
        return CHRONIK_EAGAIN;
    return errno == ENOMEM || errno == ENOBUFS ? CHRONIK_ENOMEM : CHRONIK_ECLOSED;
}

static ssize_t net_recv(void *self, int fd, const struct iovec *iov, int iov_count) {
    (void)self;
    ssize_t n;
    do
        n = readv(fd, iov, iov_count < IOV_LIMIT ? iov_count : IOV_LIMIT);
    while (n < 0 && errno == EINTR);
    return moved(n);
}

static ssize_t net_send(void *self, int fd, const struct iovec *iov, int iov_count) {
    (void)self;
    struct msghdr message;
    memset(&message, 0, sizeof message);
    message.msg_iov = (struct iovec *)(uintptr_t)iov; /* sendmsg does not write to it */
    message.msg_iovlen = (size_t)(iov_count < IOV_LIMIT ? iov_count : IOV_LIMIT);
    ssize_t n;
    do
        n = sendmsg(fd, &message, MSG_NOSIGNAL);
    while (n < 0 && errno == EINTR);
    return moved(n);
}

static void net_close(void *self, int fd) {
    (void)self;
    if (fd >= 0)
        close(fd);
}

const chronik_net_ops cnk_posix_net_ops = {
    .size = sizeof(chronik_net_ops),
    .listen = net_listen,
    .accept = net_accept,
    .recv = net_recv,
    .send = net_send,
    .close = net_close,
};
