/* SPDX-License-Identifier: Apache-2.0
 * fuzz_store.c - the first byte chooses: a part, which must encode to the bytes that it was decoded from; or a chunk's file,
 * whose content must have the hash asked for (the 32 bytes before it).
 */
#include "store_impl.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len);

static void try_part(const uint8_t *data, size_t len)
{
    struct orr_part part;
    uint8_t *bytes;
    size_t again;
    const enum orr_err code = orr_part_decode(data, len, &part);
    ORR_ASSERT(code == ORR_OK || code == ORR_EPROTO);
    if (code != ORR_OK)
        return;
    ORR_ASSERT(orr_part_encode(&part, &bytes, &again) == ORR_OK);
    ORR_ASSERT(again == len && memcmp(bytes, data, len) == 0);
    for (uint32_t i = 0; i < part.n_files; i++)
        ORR_ASSERT(orr_part_name_ok(part.files[i].name, strlen(part.files[i].name)));
    free(bytes);
    orr_part_fini(&part);
}

static void try_chunk(const uint8_t *data, size_t len)
{
    static struct orri_codec codec;
    static uint8_t content[ORR_STORE_CHUNK_MAX];
    struct orr_store_hash hash, got;
    size_t content_len;
    if (len < sizeof hash)
        return;
    if (!codec.buf)
        ORR_ASSERT(orri_codec_init(&codec) == ORR_OK);
    memcpy(&hash, data, sizeof hash);
    if (!orri_chunk_unpack(&codec,
                           &hash,
                           data + sizeof hash,
                           len - sizeof hash,
                           content,
                           &content_len))
        return;
    orri_hash(&got, content, content_len);
    ORR_ASSERT(memcmp(&got, &hash, sizeof got) == 0);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
    if (len < 1)
        return 0;
    if (data[0] % 2)
        try_part(data + 1, len - 1);
    else
        try_chunk(data + 1, len - 1);
    return 0;
}
