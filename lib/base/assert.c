/* The end of a process whose own invariant does not hold. The handler is the library's one piece of process-wide
 * mutable state: an atomic pointer, so any thread may set it at any time and a failing thread sees the old one or the
 * new one, whole. */
#include "base/assert.h"

#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

typedef void (*assert_handler)(const char *expression, const char *file, int line);

static _Atomic(assert_handler) current_handler;

/* Without a handler the line goes to stderr, as assert(3)'s does: a process that dies without a word helps nobody. */
static void tell_stderr(const char *expression, const char *file, int line, const char *function) {
    char text[512];
    int len = snprintf(text, sizeof text, "chronik: %s:%d: %s: invariant does not hold: %s\n", file, line, function,
                       expression);
    if (len > (int)sizeof text - 1) len = (int)sizeof text - 1;
    if (len > 0 && write(STDERR_FILENO, text, (size_t)len) < 0) return;
}

_Noreturn void cnk_assert_fail(const char *expression, const char *file, int line, const char *function) {
    assert_handler handler = atomic_load_explicit(&current_handler, memory_order_acquire);
    if (handler)
        handler(expression, file, line);
    else
        tell_stderr(expression, file, line, function);
    abort();
}

void chronik_assert_handler_set(void (*handler)(const char *expression, const char *file, int line)) {
    atomic_store_explicit(&current_handler, handler, memory_order_release);
}
