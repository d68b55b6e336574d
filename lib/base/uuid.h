/* UUIDs as Kafka has them: 16 bytes, shown as 22 characters of URL-safe base64 without padding (Uuid.toString). */
#ifndef CNK_BASE_UUID_H
#define CNK_BASE_UUID_H

#include <stdbool.h>
#include <stdint.h>

typedef struct cnk_uuid {
    uint8_t bytes[16];
} cnk_uuid;

#define CNK_UUID_TEXT_SIZE 23 /* with the NUL */

void cnk_uuid_make(const uint8_t entropy[16],
                   cnk_uuid *ret_uuid); /* version 4 bits set; never a reserved id, no leading '-' in its text */
bool cnk_uuid_is_zero(const cnk_uuid *u);
bool cnk_uuid_equal(const cnk_uuid *a, const cnk_uuid *b);
void cnk_uuid_format(const cnk_uuid *u, char ret_text[CNK_UUID_TEXT_SIZE]);
int cnk_uuid_parse(const char *text, cnk_uuid *ret_uuid); /* 0 or EINVAL */

#endif
