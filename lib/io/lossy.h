/* A disk that forgets what was not synced, for tests with real processes. See the top of lossy.c. */
#ifndef CNK_IO_LOSSY_H
#define CNK_IO_LOSSY_H

#include <chronik/error.h>
#include <chronik/io.h>

/* Unsynced bytes kept in memory, of all files. Beyond it the file being written is written through, unsynced, as a kernel
 * short of memory would do. */
#define CNK_LOSSY_BYTES_MAX (UINT64_C(512) << 20)

/* Wraps the disk of `io`, which is borrowed and must outlive the result; sockets, jobs and entropy are those of `io`.
 * unsynced_bytes_max 0: CNK_LOSSY_BYTES_MAX. Errors: ENOMEM. Any thread; so is all that the result offers. */
int cnk_lossy_new(const chronik_io *io, uint64_t unsynced_bytes_max, chronik_error *err, chronik_io **ret_io);

/* NULL-safe. After all files are closed. Forgets what was not synced, as a kill would. */
void cnk_lossy_free(chronik_io *io);

#endif
