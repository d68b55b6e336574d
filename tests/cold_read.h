/* Reading from the cold tier into one piece, for tests: appends to `out` what log/log.h's `read` gives as a rope. */
#ifndef TESTS_COLD_READ_H
#define TESTS_COLD_READ_H

#include "log/log.h"

static inline int cold_read(const cnk_log_cold *cold, uint64_t stream, int64_t offset, int64_t end, uint32_t bytes_max,
                            bool one_always, cnk_writer *out, chronik_error *err) {
    cnk_rope rope = CNK_ROPE_INIT(NULL);
    int rc = cold->read(cold->self, stream, offset, end, bytes_max, one_always, &rope, NULL, err);
    if (rc == 0) rc = cnk_rope_write(&rope, out);
    cnk_rope_release(&rope);
    return rc;
}

#endif
