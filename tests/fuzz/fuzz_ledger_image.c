/* SPDX-License-Identifier: Apache-2.0
 * fuzz_ledger_image.c - the first byte chooses: bytes of a snapshot, or of an entry.  A
 * snapshot that decodes must encode to one that decodes to the same image; an entry that
 * applies must leave an image that does so, too.
 */
#include "image.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len);

static const struct orr_image_config config = {.gone_max = 4};

static void check_round_trip(struct orr_image *image)
{
    const struct orr_image_stats before = orr_image_stats(image);
    struct orr_image_frozen *frozen;
    struct orr_image *again;
    uint8_t *bytes;
    size_t len;
    if (orr_image_freeze(image, &frozen) != ORR_OK ||
        orr_image_encode(frozen, &bytes, &len) != ORR_OK)
        abort();
    orr_image_thaw(image, frozen);
    ORR_ASSERT(orr_image_decode(&config, bytes, len, &again) == ORR_OK);
    const struct orr_image_stats after = orr_image_stats(again);
    ORR_ASSERT(before.keys == after.keys && before.digest == after.digest &&
               before.last == after.last && before.forgotten == after.forgotten);
    orr_image_free(again);
    free(bytes);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
    struct orr_image *image;
    enum orr_err code;
    uint64_t term, ticket;
    if (len < 1)
        return 0;
    if (data[0] % 2) {
        code = orr_image_decode(&config, data + 1, len - 1, &image);
    } else {
        ORR_ASSERT(orr_image_new(&config, &image) == ORR_OK);
        code = orr_image_apply(image, 1, data + 1, len - 1, &term, &ticket);
        if (code != ORR_OK) {
            ORR_ASSERT(orr_image_stats(image).keys == 0 &&
                       orr_image_stats(image).last == 0);
            orr_image_free(image);
        }
    }
    ORR_ASSERT(code == ORR_OK || code == ORR_EPROTO);
    if (code != ORR_OK)
        return 0;
    check_round_trip(image);
    orr_image_free(image);
    return 0;
}
