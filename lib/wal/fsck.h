/* What fsck finds in a WAL directory: the files, the checkpoints, and what each stream holds, whatever is damaged. */
#ifndef CNK_WAL_FSCK_H
#define CNK_WAL_FSCK_H

#include "base/map.h"
#include "wal/internal.h"

enum {
    CNK_FSCK_LOST_MAX = 1 << 20 /* entries of all streams that are missing: each gets a row */
};

typedef struct cnk_fsck_file {
    char *path, *name;
    uint64_t number, bytes;
    chronik_file *handle;
    cnk_wal_file_header header;
    bool whole_header, live, damaged;
    bool end_known; /* the next file's header says where this one ends */
    uint64_t end_lsn;
    uint32_t end_crc;
    uint64_t proof; /* the highest watermark in it; 0: not looked for yet */
    uint64_t last_lsn, blocks, rows;
    const char *footer_text;
    uint8_t *footer; /* NULL: none that can be used */
    cnk_wal_trailer trailer;
} cnk_fsck_file;

typedef struct cnk_fsck_checkpoint {
    uint64_t number;
    bool valid;
} cnk_fsck_checkpoint;

typedef struct cnk_fsck_entry {
    cnk_wal_row row;
    cnk_fsck_file *file;
    uint64_t pos;
    enum { FSCK_HOLE, FSCK_GOOD, FSCK_LOST } state;
    bool again; /* to be written anew, wherever it lies */
} cnk_fsck_entry;

typedef struct cnk_fsck_row {
    cnk_wal_row row;
    cnk_fsck_file *file;
    uint64_t pos, lsn;
    bool lost; /* its payload is damaged */
} cnk_fsck_row;

/* The entries released_index + 1 … last_index, in this order. */
typedef struct cnk_fsck_stream {
    cnk_wal_state now;
    uint64_t as_of;
    bool settled;
    bool orphan;        /* nothing here has created it */
    cnk_fsck_row *held; /* its rows, which mean nothing where it is dropped further on */
    size_t held_count, held_capacity;
    cnk_fsck_entry *entries;
    size_t count, capacity;
    const uint8_t *blob; /* within the checkpoint */
    uint64_t blob_len, blob_applied;
} cnk_fsck_stream;

typedef struct cnk_fsck {
    cnk_wal *wal; /* for paths and the disk; nothing of it is open */
    void (*line)(void *arg, const char *text);
    void *arg;
    chronik_error *err;
    cnk_fsck_file *files;
    size_t files_count, files_capacity;
    cnk_fsck_checkpoint *checkpoints; /* newest first */
    size_t checkpoints_count, checkpoints_capacity;
    uint8_t *checkpoint; /* the one that is used */
    cnk_wal_checkpoint_header checkpoint_header;
    uint64_t checkpoint_number, checkpoint_lsn;
    cnk_map streams, dropped;
    uint64_t max_lsn; /* seen anywhere */
    uint64_t findings, lost;
    uint64_t missing; /* entries of streams that no checkpoint speaks of any more; packs may have them */
    uint8_t *window;
    size_t window_size, window_len;
    uint64_t window_pos;
    const cnk_fsck_file *window_file;
} cnk_fsck;

void cnk_fsck_say(cnk_fsck *k, const char *format, ...) CHRONIK_PRINTF(2, 3);

/* Reads everything, checks everything, changes nothing. 0, also where there are findings; EUNSUPPORTED: a newer version
 * wrote it; EIO, ENOMEM. */
int cnk_fsck_scan(cnk_fsck *k);
void cnk_fsck_free(cnk_fsck *k);

/* [pos, pos + len) of a file, valid until the next call; *ret_p is NULL past its end. Sectors that cannot be read are
 * zeros, and a finding. 0, ENOMEM. */
int cnk_fsck_window(cnk_fsck *k, cnk_fsck_file *f, uint64_t pos, size_t len, const uint8_t **ret_p);

#endif
