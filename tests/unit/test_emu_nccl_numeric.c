/* SPDX-License-Identifier: Apache-2.0
 * test_emu_nccl_numeric.c - the element types of the emulated NCCL: every narrow float
 * there and back, rounding at each step between two of them, and the kernels' corners.
 */
#include "orr_test.h"

#include "numeric.h"

#include <math.h>
#include <string.h>

static const ncclDataType_t narrow[] = {
    ncclFloat16, ncclBfloat16, ncclFloat8e4m3, ncclFloat8e5m2};
enum { NARROW = sizeof narrow / sizeof *narrow };

static unsigned sign_bit(ncclDataType_t type)
{
    return 1u << (8 * orri_type_size(type) - 1);
}

static void narrow_every_value_survives(void **state)
{
    (void)state;
    for (int t = 0; t < NARROW; t++) {
        for (unsigned bits = 0; bits < 2 * sign_bit(narrow[t]); bits++) {
            float value = orri_float_decode(narrow[t], (uint16_t)bits);
            unsigned back = orri_float_encode(narrow[t], value);
            if (isnan(value))
                assert_true(isnan(orri_float_decode(narrow[t], (uint16_t)back)));
            else if (isinf(value) && narrow[t] == ncclFloat8e5m2)
                assert_int_equal(back & 0x7f, 0x7b); /* fp8 saturates */
            else
                assert_int_equal(back, bits);
        }
    }
}

static void narrow_known_values_decode(void **state)
{
    (void)state;
    assert_true(orri_float_decode(ncclFloat16, 0x3c00) == 1.0f);
    assert_true(orri_float_decode(ncclFloat16, 0x7bff) == 65504.0f);
    assert_true(orri_float_decode(ncclFloat16, 0x0001) == 0x1p-24f);
    assert_true(isinf(orri_float_decode(ncclFloat16, 0xfc00)));
    assert_true(orri_float_decode(ncclBfloat16, 0x3f80) == 1.0f);
    assert_true(orri_float_decode(ncclFloat8e4m3, 0x7e) == 448.0f);
    assert_true(isnan(orri_float_decode(ncclFloat8e4m3, 0x7f)));
    assert_true(orri_float_decode(ncclFloat8e4m3, 0x01) == 0x1p-9f);
    assert_true(orri_float_decode(ncclFloat8e5m2, 0x7b) == 57344.0f);
    assert_true(orri_float_decode(ncclFloat8e5m2, 0x01) == 0x1p-16f);
}

/* Between neighbours: the nearer one, and the even one from the middle. */
static void narrow_between_two_rounds_to_nearest_even(void **state)
{
    (void)state;
    for (int t = 0; t < NARROW; t++) {
        for (unsigned bits = 0; bits + 1 < sign_bit(narrow[t]); bits++) {
            float low = orri_float_decode(narrow[t], (uint16_t)bits);
            float high = orri_float_decode(narrow[t], (uint16_t)(bits + 1));
            float middle = low / 2 + high / 2;
            if (!isfinite(high) || !isfinite(low) || middle <= low || middle >= high)
                continue;
            assert_int_equal(orri_float_encode(narrow[t], middle), bits + (bits & 1));
            assert_int_equal(orri_float_encode(narrow[t], nextafterf(middle, low)),
                             bits);
            assert_int_equal(orri_float_encode(narrow[t], nextafterf(middle, high)),
                             bits + 1);
            assert_int_equal(orri_float_encode(narrow[t], -middle),
                             (bits + (bits & 1)) | sign_bit(narrow[t]));
        }
    }
}

static void narrow_too_large_becomes_infinite_or_saturates(void **state)
{
    (void)state;
    assert_int_equal(orri_float_encode(ncclFloat16, 65519.0f), 0x7bff);
    assert_int_equal(orri_float_encode(ncclFloat16, 65520.0f), 0x7c00);
    assert_int_equal(orri_float_encode(ncclFloat16, -INFINITY), 0xfc00);
    assert_int_equal(orri_float_encode(ncclBfloat16, INFINITY), 0x7f80);
    assert_int_equal(orri_float_encode(ncclFloat8e4m3, 1e9f), 0x7e);
    assert_int_equal(orri_float_encode(ncclFloat8e5m2, -INFINITY), 0xfb);
    assert_int_equal(orri_float_encode(ncclFloat8e4m3, 0x1p-30f), 0);
    assert_int_equal(orri_float_encode(ncclFloat16, 0x1p-149f), 0);
}

static void combine_integers_wraps(void **state)
{
    int8_t a[] = {127, -128, 100}, b[] = {1, -1, 3}, c[3];
    uint64_t x = UINT64_MAX, y = 2, z;

    (void)state;
    orri_combine(c, a, b, 3, ncclInt8, ncclSum);
    assert_int_equal(c[0], -128);
    assert_int_equal(c[1], 127);
    assert_int_equal(c[2], 103);
    orri_combine(c, a, b, 3, ncclInt8, ncclProd);
    assert_int_equal(c[2], 300 - 256);
    orri_combine(&z, &x, &y, 1, ncclUint64, ncclProd);
    assert_true(z == UINT64_MAX - 1);
    orri_combine(&z, &x, &y, 1, ncclUint64, ncclMin);
    assert_true(z == 2);
}

static void combine_nan_loses_against_a_number(void **state)
{
    float a[] = {NAN, 1, NAN}, b[] = {2, NAN, NAN}, c[3];
    uint16_t h[] = {0x7e00, 0x3c00}, g[] = {0x3c00, 0x7e00}, k[2];

    (void)state;
    for (int op = ncclMax; op <= ncclMin; op++) {
        orri_combine(c, a, b, 3, ncclFloat32, (ncclRedOp_t)op);
        assert_true(c[0] == 2 && c[1] == 1 && isnan(c[2]));
        orri_combine(k, h, g, 2, ncclFloat16, (ncclRedOp_t)op);
        assert_true(k[0] == 0x3c00 && k[1] == 0x3c00);
    }
}

static void scale_multiplies_all_elements(void **state)
{
    union orri_scalar three = {.word = 0};
    int32_t factor = 3, v[1000];

    (void)state;
    memcpy(three.bytes, &factor, sizeof factor);
    for (int i = 0; i < 1000; i++)
        v[i] = i;
    orri_scale(v, v, 1000, ncclInt32, three);
    for (int i = 0; i < 1000; i++)
        assert_int_equal(v[i], 3 * i);
}

static void divide_integers_rounds_towards_zero(void **state)
{
    int8_t v[] = {-7, 7, -128};
    uint8_t u[] = {255};

    (void)state;
    orri_divide(v, 3, ncclInt8, 2);
    orri_divide(u, 1, ncclUint8, 3);
    assert_int_equal(v[0], -3);
    assert_int_equal(v[1], 3);
    assert_int_equal(v[2], -64);
    assert_int_equal(u[0], 85);
}

static void size_of_no_type_is_zero(void **state)
{
    (void)state;
    assert_int_equal(orri_type_size(ncclNumTypes), 0);
    assert_int_equal(orri_type_size((ncclDataType_t)-1), 0);
    assert_string_equal(orri_type_name((ncclDataType_t)99), "unknown type");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(narrow_every_value_survives),
        cmocka_unit_test(narrow_known_values_decode),
        cmocka_unit_test(narrow_between_two_rounds_to_nearest_even),
        cmocka_unit_test(narrow_too_large_becomes_infinite_or_saturates),
        cmocka_unit_test(combine_integers_wraps),
        cmocka_unit_test(combine_nan_loses_against_a_number),
        cmocka_unit_test(scale_multiplies_all_elements),
        cmocka_unit_test(divide_integers_rounds_towards_zero),
        cmocka_unit_test(size_of_no_type_is_zero),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
