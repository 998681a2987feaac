/* SPDX-License-Identifier: Apache-2.0
 * test_nh.c - the hash of pieces of memory (gateways/rank/cuda/share/nh.h): against its definition, word by word, on the host and by
 * the kernel on the emulated device.
 */
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "nh.h"
#include "orr_test.h"
#include "orrery/gpu_abi.h"

enum { BLOCKS = 3, BYTES = BLOCKS * ORRI_NH_BLOCK_BYTES, PIECES = 2, THREADS = 128 };
#define OK(call) assert_int_equal(call, CUDA_SUCCESS)
extern const char orri_nh_ptx[];

static struct orri_nh_key key;
static uint32_t data[PIECES][BYTES / 4];

static int fill(void **state)
{
    uint64_t seed = 1;
    uint32_t *all[] = {key.first, key.second, data[0], data[1]};
    size_t n[] = {ORRI_NH_FIRST, ORRI_NH_SECOND, BYTES / 4, BYTES / 4};
    (void)state;
    for (int a = 0; a < 4; a++)
        for (size_t i = 0; i < n[a]; i++) {
            seed = seed * UINT64_C(6364136223846793005) + 1442695040888963407u;
            all[a][i] = (uint32_t)(seed >> 32);
        }
    return 0;
}

/* By the definition: lane l of a row of words. */
static uint64_t sum(const uint32_t *k, const uint32_t *x, size_t n, size_t lane)
{
    uint64_t s = 0;
    for (size_t i = 0; i < n / 2; i++) {
        uint32_t a = x[2 * i] + k[2 * i + 2 * lane],
                 b = x[2 * i + 1] + k[2 * i + 1 + 2 * lane];
        s += (uint64_t)a * b;
    }
    return s;
}

static void the_host_hashes_by_the_definition(void **state)
{
    uint64_t sums[BLOCKS * ORRI_NH_LANES];
    uint32_t second[BLOCKS * ORRI_NH_LANES * 2];
    struct orri_hash hash = orri_nh(&key, data[0], BYTES);
    (void)state;
    for (size_t i = 0; i < BLOCKS * ORRI_NH_LANES; i++)
        sums[i] = sum(key.first,
                      data[0] + i / ORRI_NH_LANES * (ORRI_NH_BLOCK_BYTES / 4),
                      ORRI_NH_BLOCK_BYTES / 4,
                      i % ORRI_NH_LANES);
    memcpy(second, sums, sizeof sums);
    for (size_t l = 0; l < ORRI_NH_LANES; l++)
        assert_true(hash.lane[l] ==
                    sum(key.second, second, BLOCKS * ORRI_NH_LANES * 2, l));
}

static void a_bit_anywhere_is_another_hash(void **state)
{
    struct orri_hash before = orri_nh(&key, data[0], BYTES);
    (void)state;
    for (size_t i = 0; i < BYTES / 4; i += 97) {
        data[0][i] ^= (uint32_t)1 << i % 32;
        struct orri_hash after = orri_nh(&key, data[0], BYTES);
        for (size_t l = 0; l < ORRI_NH_LANES; l++)
            assert_true(before.lane[l] != after.lane[l]);
        data[0][i] ^= (uint32_t)1 << i % 32;
    }
}

static void words_that_change_places_are_another_hash(void **state)
{
    struct orri_hash before = orri_nh(&key, data[0], BYTES), after;
    uint32_t other[BYTES / 4];
    (void)state;
    memcpy(other, data[0], BYTES); /* two blocks, exchanged */
    memcpy(other, data[0] + BYTES / 4 / BLOCKS, ORRI_NH_BLOCK_BYTES);
    memcpy(other + BYTES / 4 / BLOCKS, data[0], ORRI_NH_BLOCK_BYTES);
    after = orri_nh(&key, other, BYTES);
    assert_memory_not_equal(&before, &after, sizeof before);
}

static void the_device_gives_the_same_sums(void **state)
{
    uint64_t here[PIECES * BLOCKS * ORRI_NH_LANES],
        there[PIECES * BLOCKS * ORRI_NH_LANES];
    CUdeviceptr pieces[PIECES], at, sums, keys;
    CUcontext ctx;
    CUmodule module;
    CUfunction nh;
    (void)state;
    OK(cuInit(0));
    OK(cuDevicePrimaryCtxRetain(&ctx, 0));
    OK(cuCtxSetCurrent(ctx));
    OK(cuModuleLoadData(&module, orri_nh_ptx));
    OK(cuModuleGetFunction(&nh, module, "nh"));
    for (int p = 0; p < PIECES; p++) {
        OK(cuMemAlloc(&pieces[p], BYTES));
        OK(cuMemcpyHtoD(pieces[p], data[p], BYTES));
        orri_nh_sums(&key, data[p], BYTES, here + p * BLOCKS * ORRI_NH_LANES);
    }
    OK(cuMemAlloc(&at, sizeof pieces));
    OK(cuMemcpyHtoD(at, pieces, sizeof pieces));
    OK(cuMemAlloc(&keys, sizeof key));
    OK(cuMemcpyHtoD(keys, &key, sizeof key));
    OK(cuMemAlloc(&sums, sizeof there));
    OK(cuMemsetD8(sums, 0, sizeof there));
    void *params[] = {&sums, &at, &keys};
    OK(cuLaunchKernel(nh, BLOCKS, PIECES, 1, THREADS, 1, 1, 0, NULL, params, NULL));
    OK(cuMemcpyDtoH(there, sums, sizeof there));
    assert_memory_equal(here, there, sizeof here);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_host_hashes_by_the_definition),
        cmocka_unit_test(a_bit_anywhere_is_another_hash),
        cmocka_unit_test(words_that_change_places_are_another_hash),
        cmocka_unit_test(the_device_gives_the_same_sums),
    };
    return cmocka_run_group_tests(tests, fill, NULL);
}
