/* Codes, their names and texts, and the filling of a caller's chronik_error. No state; any thread. */
#include "base/error.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

const char *chronik_strerror(int code) {
    switch (code) {
    case CHRONIK_OK: return "success";
#define X(name, number, text)                                                                                          \
    case CHRONIK_##name: return text;
        CHRONIK_ERRORS(X)
#undef X
    default: return "unknown error";
    }
}

const char *chronik_error_name(int code) {
    switch (code) {
    case CHRONIK_OK: return "OK";
#define X(name, number, text)                                                                                          \
    case CHRONIK_##name: return #name;
        CHRONIK_ERRORS(X)
#undef X
    default: return "?";
    }
}

/* strerror_r is GNU's (gives the text) or POSIX's (fills the buffer): which one is up to the libc. */
static inline const char *text_of_gnu(const char *given, const char *buf) {
    (void)buf;
    return given;
}
static inline const char *text_of_posix(int failed, const char *buf) { return failed ? "unknown system error" : buf; }
#define SYSTEM_TEXT(no, buf)                                                                                           \
    _Generic(strerror_r(no, buf, sizeof(buf)), char *: text_of_gnu, int: text_of_posix)(                              \
        strerror_r(no, buf, sizeof(buf)), buf)

/* Where a text that was cut at `len` must end so that no UTF-8 character is cut in two. */
static size_t cut_at_character(const char *text, size_t len) {
    size_t start = len;
    while (start > 0 && len - start < 4 && ((unsigned char)text[start - 1] & 0xC0u) == 0x80u) start--;
    if (start == 0) return len;
    unsigned char lead = (unsigned char)text[start - 1];
    size_t want = lead < 0xC0 ? 1 : lead < 0xE0 ? 2 : lead < 0xF0 ? 3 : 4;
    return len - (start - 1) < want ? start - 1 : len;
}

int cnk_error(chronik_error *err, int code, int sys_errno, const char *format, ...) {
    if (err == NULL) return code;
    err->code = code;
    err->sys_errno = sys_errno;
    size_t room = sizeof err->text;
    va_list args;
    va_start(args, format);
    int n = vsnprintf(err->text, room, format, args);
    va_end(args);
    if (n < 0) {
        err->text[0] = '\0';
        n = 0;
    }
    size_t len = (size_t)n;
    if (sys_errno != 0 && len < room) {
        char buf[128];
        n = snprintf(err->text + len, room - len, ": %s", SYSTEM_TEXT(sys_errno, buf));
        len += n < 0 ? 0 : (size_t)n;
    }
    if (len >= room) err->text[cut_at_character(err->text, room - 1)] = '\0';
    return code;
}

int cnk_error_because(chronik_error *err, int code, const chronik_error *why) {
    if (err == NULL) return code;
    *err = *why;
    err->code = code;
    return code;
}

int cnk_error_from_errno(int sys_errno) {
    switch (sys_errno) {
    case ENOSPC:
#if defined(EDQUOT) && EDQUOT != ENOSPC
    case EDQUOT:
#endif
        return CHRONIK_ENOSPC;
    case ENOENT: return CHRONIK_ENOTFOUND;
    case EEXIST: return CHRONIK_EEXIST;
    case ENOMEM: return CHRONIK_ENOMEM;
    case EAGAIN:
#if EWOULDBLOCK != EAGAIN
    case EWOULDBLOCK:
#endif
        return CHRONIK_EAGAIN;
    case ECONNRESET:
    case EPIPE: return CHRONIK_ECLOSED;
    default: return CHRONIK_EIO;
    }
}
