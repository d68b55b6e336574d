/* For forks of a test that are going to be killed. libcheck's assertions write a note each into a file that the runner, the
 * test and its forks share; a fork that is killed amid one leaves half a note there, and the runner misreads all that
 * follows: it fails, dies of SIGSEGV, or never ends. */
#ifndef CNK_TEST_LEAVE_LIBCHECK_H
#define CNK_TEST_LEAVE_LIBCHECK_H

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* In the fork, before any assertion: notes go nowhere from here on. libcheck's file is the only one that is open and has no
 * name. */
static inline void leave_libcheck(void) {
    static const char nameless[] = " (deleted)";
    int nowhere = open("/dev/null", O_WRONLY | O_CLOEXEC), found = 0;
    for (int fd = 3; fd < 256; fd++) {
        char link[64], name[512];
        snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
        ssize_t len = readlink(link, name, sizeof name);
        if (len < (ssize_t)sizeof nameless || memcmp(name + len - (sizeof nameless - 1), nameless, sizeof nameless - 1) != 0) continue;
        if (dup2(nowhere, fd) != fd) abort();
        found++;
    }
    if (nowhere < 0 || found != 1) abort();
}

#endif
