/* chronikd with a bug put back, to see that tests/crash finds it: the variable CNK_TEST_WAL_BUG=ack-before-sync makes
 * the WAL acknowledge what it has written but not synced. Without the variable it is chronikd as it is. Only the test
 * variants of the library have such switches; in the others this program refuses the variable. */
#include "../../server/chronikd.c"

#ifdef CNK_TEST_HOOKS
#include "wal/internal.h"
#endif

__attribute__((constructor)) static void bug_put_back(void) {
    const char *name = getenv("CNK_TEST_WAL_BUG");
    if (!name || !*name) return;
#ifdef CNK_TEST_HOOKS
    if (strcmp(name, "ack-before-sync") == 0) {
        cnk_wal_bug = CNK_WAL_BUG_ACK_BEFORE_SYNC;
        return;
    }
    fprintf(stderr, "CNK_TEST_WAL_BUG: %s is unknown\n", name);
#else
    fputs("CNK_TEST_WAL_BUG: this library was built without test switches\n", stderr);
#endif
    exit(2);
}
