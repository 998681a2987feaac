/* SPDX-License-Identifier: Apache-2.0
 * store_cut.c - where an image's chunks end: boundaries follow the content of pages, so that pages
 * which moved by whole pages are found again.
 *
 * A chunk ends behind a page whose sum says so (one in 16), before a page of zeros, or at 64 pages;
 * the first four pages do not count.  Pages of zeros before a chunk are left out.  Since a boundary
 * hangs on one page alone, two images are in step again one chunk after a difference.  Chunks of 76 KiB on
 * average: smaller ones would make an idle image's increment smaller still, and the files more.
 */
#include "store_impl.h"

enum { PAGES_MIN = 4, PAGES_MAX = 64, ONE_IN = 16 };

bool orri_is_zero(const uint8_t *data, size_t len)
{
    /* The first word decides nearly always; then overlapping compares at the speed of memcmp. */
    uint64_t first = 0;
    if (len < sizeof first) {
        for (size_t i = 0; i < len; i++)
            if (data[i])
                return false;
        return true;
    }
    memcpy(&first, data, sizeof first);
    return first == 0 && memcmp(data, data + sizeof first, len - sizeof first) == 0;
}

/* Need not resist anybody: it only chooses boundaries. */
static uint64_t page_sum(const uint8_t *page)
{
    uint64_t lanes[4] = {
        0x9e3779b97f4a7c15u, 0xc2b2ae3d27d4eb4fu, 0x165667b19e3779f9u, 1};
    for (size_t i = 0; i < STORE_PAGE; i += sizeof lanes)
        for (size_t k = 0; k < ORR_ARRAY_SIZE(lanes); k++) {
            uint64_t word;
            memcpy(&word, page + i + k * sizeof word, sizeof word);
            lanes[k] = (lanes[k] ^ word) * 0x9fb21c651e98df25u;
            lanes[k] ^= lanes[k] >> 32;
        }
    uint64_t sum = lanes[0] ^ (lanes[1] * 3) ^ (lanes[2] * 5) ^ (lanes[3] * 7);
    return (sum ^ (sum >> 29)) * 0xbf58476d1ce4e5b9u;
}

static bool ends_behind(const uint8_t *page)
{
    return (page_sum(page) >> 40) % ONE_IN == 0;
}

struct orri_cut orri_cut_image(const uint8_t *data, size_t len, bool is_end)
{
    struct orri_cut cut = {0};
    while (cut.zero + STORE_PAGE <= len && orri_is_zero(data + cut.zero, STORE_PAGE))
        cut.zero += STORE_PAGE;
    if (is_end && cut.zero < len && orri_is_zero(data + cut.zero, len - cut.zero))
        cut.zero = len;
    data += cut.zero;
    len -= cut.zero;
    for (size_t pages = 0; (pages + 1) * STORE_PAGE <= len; pages++) {
        const uint8_t *page = data + pages * STORE_PAGE;
        if (pages == PAGES_MAX || orri_is_zero(page, STORE_PAGE)) {
            cut.len = pages * STORE_PAGE;
            return cut;
        }
        if (pages >= PAGES_MIN - 1 && ends_behind(page)) {
            cut.len = (pages + 1) * STORE_PAGE;
            return cut;
        }
    }
    if (is_end || len >= (size_t)PAGES_MAX * STORE_PAGE)
        cut.len =
            len < (size_t)PAGES_MAX * STORE_PAGE ? len : (size_t)PAGES_MAX * STORE_PAGE;
    return cut;
}
