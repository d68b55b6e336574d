/* Filling a caller's chronik_error. */
#ifndef CNK_BASE_ERROR_H
#define CNK_BASE_ERROR_H

#include <chronik/error.h>

/* Fills `err` where it is not NULL and returns `code`, so that a failure is one line:
 *     return cnk_error(err, CHRONIK_EIO, errno, "%s: cannot write", path);
 * With a sys_errno other than 0, ": " and its text are appended. */
int cnk_error(chronik_error *err, int code, int sys_errno, const char *format, ...) CHRONIK_PRINTF(4, 5);

/* The same cause under a code of the caller's: the text and the sys_errno are those of `why`. */
int cnk_error_because(chronik_error *err, int code, const chronik_error *why);

/* The library's code for a system errno: ENOSPC and EDQUOT are CHRONIK_ENOSPC, ENOENT is ENOTFOUND, EEXIST is EEXIST,
 * ENOMEM is ENOMEM, EAGAIN is EAGAIN, ECONNRESET and EPIPE are ECLOSED, all else EIO. */
int cnk_error_from_errno(int sys_errno);

#endif
