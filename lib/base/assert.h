/* CNK_ASSERT: our own invariants, always on. Never for bytes from disk or wire: those yield ECORRUPT or EPROTO. */
#ifndef CNK_BASE_ASSERT_H
#define CNK_BASE_ASSERT_H

#include <chronik/error.h>

/* Calls the replaceable handler, or without one writes a line to stderr; then aborts. */
_Noreturn void cnk_assert_fail(const char *expression, const char *file, int line, const char *function);

#define CNK_ASSERT(e) ((e) ? (void)0 : cnk_assert_fail(#e, __FILE__, __LINE__, __func__))

/* Public (chronik/node.h). NULL: back to stderr. Any thread; for the whole process. The handler runs on the failing
 * thread and may leave by longjmp, for tests; when it returns, the process aborts. */
CHRONIK_API void chronik_assert_handler_set(void (*handler)(const char *expression, const char *file, int line));

#endif
