/* SPDX-License-Identifier: Apache-2.0
 * fuzz_msg.c - the first two bytes choose a message, the rest is its body.  What
 * decodes must encode, and that must decode to the same bytes again; the JSON printer
 * must say its length whatever room it has.
 */
#include "orrery/msg.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len);

/* Decode into memory of exactly the promised size. */
static void *decode(const struct orr_msg_desc *desc, const uint8_t *data, size_t len)
{
    size_t size;
    size_t taken;
    enum orr_err rc = orr_msg_decode_size(desc, data, len, &size, &taken);
    ORR_ASSERT(rc == ORR_OK || rc == ORR_EPROTO);
    if (rc != ORR_OK)
        return NULL;
    ORR_ASSERT(taken <= len);
    void *msg = malloc(size);
    if (!msg)
        abort();
    ORR_ASSERT(orr_msg_decode(desc, data, len, msg, size) == ORR_OK);
    return msg;
}

static uint8_t *
encode(const struct orr_msg_desc *desc, const void *msg, size_t *ret_len)
{
    size_t cap = orr_msg_encode_bound(desc, msg);
    uint8_t *buf = malloc(cap);
    if (!buf)
        abort();
    ORR_ASSERT(orr_msg_encode(desc, msg, buf, cap, ret_len) == ORR_OK);
    return buf;
}

static void check_json(const struct orr_msg_desc *desc, const void *msg)
{
    size_t full = orr_msg_json(desc, msg, NULL, 0);
    char *text = malloc(full + 1);
    if (!text)
        abort();
    ORR_ASSERT(orr_msg_json(desc, msg, text, full + 1) == full);
    ORR_ASSERT(strlen(text) == full);
    free(text);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
    if (len < 2)
        return 0;
    const struct orr_msg_desc *desc = orr_msg_find((uint16_t)(data[0] << 8 | data[1]));
    void *msg = desc ? decode(desc, data + 2, len - 2) : NULL;
    if (!msg)
        return 0;
    size_t len_once;
    size_t len_twice;
    uint8_t *once = encode(desc, msg, &len_once);
    void *again = decode(desc, once, len_once);
    ORR_ASSERT(again);
    uint8_t *twice = encode(desc, again, &len_twice);
    ORR_ASSERT(len_once == len_twice && memcmp(once, twice, len_once) == 0);
    check_json(desc, msg);
    free(twice);
    free(again);
    free(once);
    free(msg);
    return 0;
}
