/* CRC-32C (Castagnoli, RFC 3720 appendix B.4): reflected, polynomial 0x1EDC6F41, initial and final value inverted.
 * In hardware where there is any, chosen once at first use. */
#ifndef CNK_BASE_CRC32C_H
#define CNK_BASE_CRC32C_H

#include <stddef.h>
#include <stdint.h>

/* The CRC of `p[0..len)` going on from `crc` (0 for a start): crc32c(crc32c(0, a), b) is the CRC of a followed by b. */
uint32_t cnk_crc32c(uint32_t crc, const void *p, size_t len);

/* As cnk_crc32c(crc, src, len), and copies src to dst in the same pass. No overlap. */
uint32_t cnk_crc32c_copy(uint32_t crc, void *dst, const void *src, size_t len);

/* The CRC of a followed by b, from the CRCs of both and the length of b, in time O(log len_b). */
uint32_t cnk_crc32c_combine(uint32_t crc_a, uint32_t crc_b, size_t len_b);

/* The name of what was chosen: "avx512-vpclmul", "sse42-pclmul", "arm64-crc", "portable", … */
const char *cnk_crc32c_implementation(void);

#endif
