/* chronik/wal.h: the write-ahead log alone.
 *
 * A durable log of many streams, for programs that want what the broker stands on and nothing else: entries appended to
 * any of the streams become durable together, by one fdatasync; after a crash every entry is there that chronik_wal_sync
 * has confirmed, in order and unharmed.
 *
 *     chronik_wal *wal;
 *     chronik_wal_open("log", NULL, &err, &wal);
 *     chronik_wal_stream_create(wal, 7, &err);
 *     chronik_wal_append(wal, 7, "hello", 5, &err, &index);
 *     chronik_wal_sync(wal, &err);                            // from here on it survives a power cut
 *     chronik_wal_read(wal, 7, index, buf, sizeof buf, &err, &len);
 *     chronik_wal_close(wal);
 *
 * Tier: extension; may change with a minor version. Threads: all functions may be called from any thread, at the same
 * time, but for close. The WAL has threads of its own, which block all signals. Functions return 0 or CHRONIK_E*. */
#ifndef CHRONIK_WAL_H
#define CHRONIK_WAL_H

#include <stddef.h>
#include <stdint.h>

#include <chronik/error.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef struct chronik_wal chronik_wal;

typedef struct chronik_wal_options {
    size_t size;           /* sizeof(chronik_wal_options) */
    uint64_t file_bytes;   /* a file is sealed at this size; 100 KB to 1 GiB */
    uint64_t budget_bytes; /* all files together; at least four files. Over it, appends wait for a trim. */
    uint32_t linger_us;    /* least time between two syncs under many small writers: under a KiB each, 64 KiB in all */
} chronik_wal_options;

#define CHRONIK_WAL_OPTIONS_INIT \
    { sizeof(chronik_wal_options), UINT64_C(250000000), UINT64_C(1) << 30, 500 }

/* Opens the log in a directory (copied), which is made where it is missing, and recovers what is in it. options: copied;
 * NULL: defaults. ECORRUPT: synced data is damaged; err names file, position and remedy, and nothing has been changed.
 * EBUSY: another process has it. EINVAL, EIO, ENOSPC, ENOMEM. */
CHRONIK_API int chronik_wal_open(const char *dir, const chronik_wal_options *options, chronik_error *err,
                                 chronik_wal **ret_wal);

/* Makes durable what has been appended, and closes. NULL-safe. No other call may be under way. */
CHRONIK_API void chronik_wal_close(chronik_wal *wal);

/* A new stream, empty; ids are the caller's, above 0, and never used again once deleted (EEXIST). */
CHRONIK_API int chronik_wal_stream_create(chronik_wal *wal, uint64_t stream, chronik_error *err);
/* Deletes a stream with all its entries. ENOTFOUND. */
CHRONIK_API int chronik_wal_stream_delete(chronik_wal *wal, uint64_t stream, chronik_error *err);
/* The entries a stream holds: [first, last]; last = first - 1 where it is empty. ENOTFOUND. */
CHRONIK_API int chronik_wal_stream_range(chronik_wal *wal, uint64_t stream, chronik_error *err, uint64_t *ret_first,
                                         uint64_t *ret_last);

/* Appends an entry of len bytes (copied; at most 256 MiB, and a quarter of the budget) and gives its index, dense from 1.
 * It is not durable yet. Waits while the log is over its budget. ENOTFOUND, ETOOLARGE, ENOSPC, EFENCED, ENOMEM. */
CHRONIK_API int chronik_wal_append(chronik_wal *wal, uint64_t stream, const void *data, size_t len, chronik_error *err,
                                   uint64_t *ret_index);

/* Returns when everything appended before the call is durable. EFENCED: a write or sync has failed; what was not confirmed
 * may be lost, and the log takes nothing more until it is opened again. */
CHRONIK_API int chronik_wal_sync(chronik_wal *wal, chronik_error *err);

/* Reads an entry: up to `size` bytes into buf; *ret_len is its whole length, also where it is larger. ENOTFOUND;
 * ECORRUPT: it is damaged, or was lost to damage before a repair (chronik_wal_fsck); EIO. */
CHRONIK_API int chronik_wal_read(chronik_wal *wal, uint64_t stream, uint64_t index, void *buf, size_t size,
                                 chronik_error *err, size_t *ret_len);

/* The entries before `first_index` are not wanted any more; their space is given back. EINVAL: it is past the last durable
 * entry + 1. */
CHRONIK_API int chronik_wal_trim(chronik_wal *wal, uint64_t stream, uint64_t first_index, chronik_error *err);

/* ---- looking at a log that is not open -------------------------------------------------------------------------- */

enum {
    CHRONIK_WAL_FSCK_CUT = 1 /* repair: damaged files go to `damaged/` in the log's directory, and what is whole in them is
                                written anew. Entries that are damaged or missing are lost: the lines say which, reading
                                them yields ECORRUPT, and all others keep their indexes. */
};

/* Reads all files of a log's directory, checks every checksum and explains what it finds, a line for each finding, to
 * `line` (NULL: not wanted; borrowed for the call). Changes nothing without a flag. 0: sound; ECORRUPT: not; with CUT: 0
 * where it is sound now. A repair that is interrupted can be run again. EBUSY: a process has the log open. EUNSUPPORTED: a
 * newer version wrote it; nothing has been changed. EIO, ENOSPC, ENOMEM. */
CHRONIK_API int chronik_wal_fsck(const char *dir, unsigned flags, void (*line)(void *arg, const char *text), void *arg,
                                 chronik_error *err);

#ifdef __cplusplus
}
#endif
#endif
