/* SPDX-License-Identifier: Apache-2.0
 * test_ptx_flow.c - control flow, barriers, address spaces and faults of the interpreter,
 * and texts that are no PTX: each refused with its line and a reason.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "orr_test.h"
#include "ptx.h"

#define HEAD ".version 8.0\n.target sm_70\n.address_size 64\n"
static struct ptx_scratch scratch;
static struct ptx_outcome outcome;
static uint32_t out[256];

static bool only_out(uint64_t address, uint64_t bytes)
{
    return address >= (uint64_t)out && address + bytes <= (uint64_t)(out + 256);
}

/* Run the body of a kernel: %o is out, %t the thread, %a the address of out[thread]. */
static enum ptx_status run_shaped(const char *body, uint32_t grid, uint32_t block)
{
    static const struct emu_range_map no_map;
    char text[8192];
    struct ptx_module *m = NULL;
    struct ptx_log log;
    const uint64_t params[1] = {(uint64_t)out};
    snprintf(text,
             sizeof text,
             HEAD
             ".visible .entry k(.param .u64 p)\n{\n"
             ".reg .pred %%p<8>; .reg .b32 %%r<32>; .reg .b32 %%t; .reg .f32 %%f<8>;\n"
             ".reg .b64 %%rd<16>; .reg .b64 %%o; .reg .b64 %%a;\n"
             "ld.param.u64 %%o, [p]; mov.u32 %%t, %%tid.x;\n"
             "mul.wide.u32 %%a, %%t, 4; add.s64 %%a, %%a, %%o;\n%s\nret;\n}\n",
             body);
    if (ptx_module_new(text, strlen(text), &m, &log) != PTX_OK)
        fail_msg("line %u: %s", log.line, log.reason);
    struct ptx_launch l = {.fn = ptx_module_function(m, "k"),
                           .grid = {grid, 1, 1},
                           .block = {block, 1, 1},
                           .params = params,
                           .map = &no_map,
                           .may_touch = only_out};
    memset(out, 0, sizeof out);
    enum ptx_status status = ptx_run(&l, &scratch, &outcome);
    ptx_module_free(m);
    return status;
}

static enum ptx_status run(const char *body)
{
    return run_shaped(body, 1, 70);
}

static void branches_diverge_and_join(void **state)
{
    (void)state;
    assert_int_equal(
        run("and.b32 %r1, %t, 3; setp.eq.u32 %p1, %r1, 0; setp.eq.u32 %p2, %r1, 1;\n"
            "mov.u32 %r2, 7; @%p1 bra A; @%p2 bra B; add.u32 %r2, %r2, 1; bra C;\n"
            "A: mul.lo.u32 %r2, %r2, 10; bra C;\n"
            "B: mov.u32 %r2, %t;\n"
            "C: activemask.b32 %r3; setp.eq.u32 %p3, %t, 0;\n"
            "st.global.u32 [%a], %r2; @%p3 st.global.u32 [%o+800], %r3;"),
        PTX_OK);
    for (unsigned t = 0; t < 70; t++)
        assert_int_equal(out[t], t % 4 == 0 ? 70 : t % 4 == 1 ? t : 8);
    assert_int_equal(out[200], UINT32_MAX); /* all lanes are together again */
}

static void loops_end_lane_by_lane(void **state)
{
    (void)state;
    assert_int_equal(run("mov.u32 %r1, 0; mov.u32 %r2, 0;\n"
                         "L: setp.gt.u32 %p1, %r1, %t; @%p1 bra.uni E;\n"
                         "add.u32 %r2, %r2, %r1; add.u32 %r1, %r1, 1; bra L;\n"
                         "E: st.global.u32 [%a], %r2;"),
                     PTX_OK);
    for (unsigned t = 0; t < 70; t++)
        assert_int_equal(out[t], t * (t + 1) / 2);
    assert_true(outcome.n_instructions > 70 * 35 * 5);
}

static void early_return_leaves_the_others(void **state)
{
    (void)state;
    assert_int_equal(run("setp.lt.u32 %p1, %t, 37; @%p1 ret; bar.sync 0;\n"
                         "st.global.u32 [%a], %t;"),
                     PTX_OK);
    for (unsigned t = 0; t < 70; t++)
        assert_int_equal(out[t], t < 37 ? 0 : t);
}

/* Thread t writes, all wait, thread t reads what 69 - t wrote. */
static void barrier_orders_shared_memory(void **state)
{
    (void)state;
    assert_int_equal(
        run(".shared .align 4 .b8 s[280];\n"
            "mov.u32 %r1, s; shl.b32 %r2, %t, 2; add.u32 %r2, %r2, %r1;\n"
            "st.shared.u32 [%r2], %t; bar.sync 0;\n"
            "sub.u32 %r3, 69, %t; shl.b32 %r3, %r3, 2; add.u32 %r3, %r3, %r1;\n"
            "ld.shared.u32 %r4, [%r3]; st.global.u32 [%a], %r4;"),
        PTX_OK);
    for (unsigned t = 0; t < 70; t++)
        assert_int_equal(out[t], 69 - t);
}

static void divergent_barrier_waits_for_all_lanes(void **state)
{
    (void)state;
    assert_int_equal(
        run(".shared .align 4 .b8 s[4];\n"
            "and.b32 %r1, %t, 1; setp.eq.u32 %p1, %r1, 0; @%p1 bra A;\n"
            "atom.shared.add.u32 %r2, [s], 1; bar.sync 0; bra B;\n"
            "A: bar.sync 0;\nB: ld.shared.u32 %r3, [s]; st.global.u32 [%a], %r3;"),
        PTX_OK);
    for (unsigned t = 0; t < 70; t++)
        assert_int_equal(out[t], 35);
}

static void different_barriers_are_a_deadlock(void **state)
{
    (void)state;
    assert_int_equal(run("setp.lt.u32 %p1, %t, 32; @%p1 bra A; bar.sync 1; bra B;\n"
                         "A: bar.sync 2;\nB: st.global.u32 [%a], %t;"),
                     PTX_DEADLOCK);
}

static void generic_addresses_reach_every_space(void **state)
{
    (void)state;
    assert_int_equal(
        run(".shared .align 4 .b8 s[4]; .local .align 4 .b8 l[8];\n"
            "mov.u64 %rd1, s; cvta.shared.u64 %rd1, %rd1; st.u32 [%rd1], 5;\n"
            "mov.u64 %rd2, l; cvta.local.u64 %rd3, %rd2; st.u32 [%rd3+4], %t;\n"
            "ld.local.u32 %r1, [l+4]; ld.shared.u32 %r2, [s];\n"
            "mad.lo.u32 %r3, %r1, 10, %r2; st.u32 [%a], %r3;\n"
            "cvta.to.shared.u64 %rd4, %rd1; setp.ne.u64 %p1, %rd4, 0; @%p1 trap;"),
        PTX_OK);
    for (unsigned t = 0; t < 70; t++)
        assert_int_equal(out[t], t * 10 + 5);
}

static void vectors_and_narrow_types_move(void **state)
{
    (void)state;
    assert_int_equal(
        run_shaped(
            "mul.wide.u32 %rd1, %t, 16; add.s64 %rd1, %rd1, %o;\n"
            "st.global.v4.u32 [%rd1], {%t, 300, -1, 70000};\n"
            "ld.global.v2.u32 {%r1, %r2}, [%rd1]; ld.global.s8 %r3, [%rd1+8];\n"
            "ld.global.u8 %r4, [%rd1+4]; ld.global.s16 %r5, [%rd1+12];\n"
            "add.u32 %r1, %r1, %r2; add.u32 %r1, %r1, %r3; add.u32 %r1, %r1, %r4;\n"
            "st.global.u32 [%rd1], %r1; st.global.u8 [%rd1+5], 9;\n"
            "st.global.u32 [%rd1+8], %r5;",
            1,
            40),
        PTX_OK);
    for (unsigned t = 0; t < 40; t++) {
        assert_int_equal(out[4 * t], t + 300 - 1 + 44);
        assert_int_equal(out[4 * t + 1], 9 << 8 | 44);
        assert_int_equal(out[4 * t + 2], 70000 & 0xffff);
    }
}

static void strided_and_scattered_accesses_agree(void **state)
{
    (void)state;
    assert_int_equal(
        run_shaped(
            "mul.lo.u32 %r1, %t, 37; and.b32 %r1, %r1, 63; mul.wide.u32 %rd1, %r1, 4;\n"
            "add.s64 %rd1, %rd1, %o; st.global.u32 [%rd1], %t; bar.sync 0;\n"
            "ld.global.u32 %r2, [%rd1]; st.global.u32 [%a+256], %r2;\n"
            "ld.global.u32 %r3, [%o+20]; st.global.u32 [%a+512], %r3;",
            1,
            64),
        PTX_OK);
    for (unsigned t = 0; t < 64; t++) {
        assert_int_equal(out[t * 37 % 64], t);
        assert_int_equal(out[64 + t], t);
        assert_int_equal(out[128 + t], out[5]);
    }
}

static void faults_name_their_place(void **state)
{
    (void)state;
    assert_int_equal(run("setp.eq.u32 %p1, %t, 50; @%p1 st.global.u32 [%o+4096], %t;"),
                     PTX_ILLEGAL_ADDRESS);
    assert_int_equal(outcome.fault_address, (uint64_t)out + 4096);
    assert_int_equal(outcome.fault_line, 10);
    assert_int_equal(run("st.global.u32 [%o+2], %t;"), PTX_MISALIGNED);
    assert_int_equal(run("mov.u64 %rd1, 0; ld.global.u32 %r1, [%rd1];"),
                     PTX_ILLEGAL_ADDRESS);
    assert_int_equal(run(".shared .b32 s[4]; st.shared.u32 [s+16], 1;"),
                     PTX_ILLEGAL_ADDRESS);
    assert_int_equal(run(".local .b32 s[4]; ld.local.u32 %r1, [s+64];"),
                     PTX_ILLEGAL_ADDRESS);
    assert_int_equal(run("ld.param.u64 %rd1, [p+8];"), PTX_ILLEGAL_ADDRESS);
    assert_int_equal(run("trap;"), PTX_TRAPPED);
}

static void blocks_run_in_order(void **state)
{
    (void)state;
    assert_int_equal(run_shaped("mov.u32 %r1, %ctaid.x; setp.eq.u32 %p1, %t, 0; "
                                "atom.global.add.u32 %r2, [%o], 1;\n"
                                "mul.wide.u32 %rd1, %r1, 4; add.s64 %rd1, %rd1, %o;\n"
                                "@%p1 st.global.u32 [%rd1+4], %r2;",
                                100,
                                2),
                     PTX_OK);
    for (unsigned b = 1; b < 100; b++) /* out[0] counts; block 0 found 0 there */
        assert_int_equal(out[b + 1], 2 * b);
}

static const struct {
    const char *text;
    unsigned line; /* 0: any */
    enum ptx_status status;
} broken[] = {
    {"", 0, PTX_SYNTAX},
    {"hello", 1, PTX_SYNTAX},
    {".version x", 1, PTX_SYNTAX},
    {HEAD ".address_size 32\n", 4, PTX_UNSUPPORTED},
    {HEAD ".entry k() {", 0, PTX_SYNTAX},
    {HEAD ".entry k() { bra L; }", 4, PTX_SYNTAX},
    {HEAD ".entry k() { L: L: ret; }", 4, PTX_SYNTAX},
    {HEAD ".entry k() {\n add.u32 %r1, %r2, %r3;\n}", 5, PTX_SYNTAX},
    {HEAD ".entry k() {\n .reg .b32 %r<2>;\n add.u32 %r1, %r2, 3;\n}", 6, PTX_SYNTAX},
    {HEAD ".entry k() {\n .reg .b64 %r<3>;\n add.u32 %r1, %r2, 3;\n}", 6, PTX_SYNTAX},
    {HEAD ".entry k() {\n .reg .b32 %r<3>;\n add.u32 %r1, %r2;\n}", 6, PTX_SYNTAX},
    {HEAD ".entry k() {\n .reg .b32 %r<3>;\n add.u32 %r1, %r2, 3\n ret;\n}",
     7,
     PTX_SYNTAX},
    {HEAD ".entry k() {\n .reg .b32 %r<3>;\n add.f32 %r1, %r2, 1;\n}", 6, PTX_SYNTAX},
    {HEAD ".entry k() {\n .reg .pred %p; .reg .b32 %r;\n add.u32 %r, %p, 1;\n}",
     6,
     PTX_SYNTAX},
    {HEAD ".entry k() {\n .reg .b32 %r;\n @%r ret;\n}", 6, PTX_SYNTAX},
    {HEAD ".entry k() {\n wgmma.mma_async.sync %r;\n}", 5, PTX_UNSUPPORTED},
    {HEAD ".entry k() {\n .reg .f32 %f;\n div.rz.f32 %f, %f, %f;\n}",
     6,
     PTX_UNSUPPORTED},
    {HEAD ".entry k() {\n call f;\n}", 5, PTX_UNSUPPORTED},
    {HEAD ".entry k() {\n .reg .b32 %r<0>;\n}", 5, PTX_SYNTAX},
    {HEAD ".entry k() {\n .reg .b32 %r<4294967297>;\n}", 5, PTX_SYNTAX},
    {HEAD ".entry k() {\n .reg .texref %r;\n}", 5, PTX_UNSUPPORTED},
    {HEAD ".entry k() {\n .shared .b8 s[999999999];\n}", 0, PTX_UNSUPPORTED},
    {HEAD ".entry k(.param .b8 s[99999]) { ret; }", 4, PTX_UNSUPPORTED},
    {HEAD ".global .b8 s[18446744073709551615];", 0, PTX_UNSUPPORTED},
    {HEAD ".global .b32 s[2] = {1, 2, 3};", 4, PTX_SYNTAX},
    {HEAD ".global .align 3 .b32 s;", 4, PTX_SYNTAX},
    {HEAD ".entry k() {\n .reg .b32 %r;\n mov.u32 %r, 0x;\n}", 6, PTX_SYNTAX},
    {HEAD ".entry k() {\n .reg .f32 %f;\n mov.f32 %f, 0f3F;\n}", 6, PTX_SYNTAX},
    {HEAD ".entry k() {\n .reg .b64 %d;\n ld.global.u32 %d, [%d;\n}", 6, PTX_SYNTAX},
    {HEAD ".entry k() {\n .reg .b16 %h; .reg .b64 %d;\n ld.global.u32 %h, [%d];\n}",
     6,
     PTX_SYNTAX},
    {HEAD ".entry k() {\n .reg .b32 %r<5>; .reg .b64 %d;\n ld.global.v4.u32 {%r1,%r2}, "
          "[%d];\n}",
     6,
     PTX_SYNTAX},
    {HEAD "/* never closed", 0, PTX_OK},
};

static void broken_texts_are_refused_with_line_and_reason(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof broken / sizeof broken[0]; i++) {
        struct ptx_module *m = NULL;
        struct ptx_log log;
        enum ptx_status status =
            ptx_module_new(broken[i].text, strlen(broken[i].text), &m, &log);
        if (status != broken[i].status ||
            (broken[i].line && log.line != broken[i].line) ||
            (status != PTX_OK && log.reason[0] == '\0'))
            fail_msg("%s\n: status %d, line %u: %s",
                     broken[i].text,
                     (int)status,
                     log.line,
                     log.reason);
        if (status == PTX_OK)
            ptx_module_free(m);
    }
}

static void long_names_and_many_registers_are_bounded(void **state)
{
    enum { SIZE = 1 << 20 };
    char *text = malloc(SIZE);
    struct ptx_module *m;
    struct ptx_log log;
    (void)state;
    assert_non_null(text);
    memset(text, 'a', SIZE);
    assert_int_equal(ptx_module_new(text, SIZE, &m, &log), PTX_SYNTAX);
    int n = snprintf(text, SIZE, HEAD ".entry k() { .reg .b64 %%r<20000>;\n");
    for (int i = 0; i < 20000; i++) /* more than a frame holds */
        n += snprintf(text + n, (size_t)(SIZE - n), "mov.u64 %%r%d, 1;\n", i);
    snprintf(text + n, (size_t)(SIZE - n), "ret; }");
    assert_int_equal(ptx_module_new(text, strlen(text), &m, &log), PTX_UNSUPPORTED);
    free(text);
}

static int finish(void **state)
{
    (void)state;
    ptx_scratch_fini(&scratch);
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(branches_diverge_and_join),
        cmocka_unit_test(loops_end_lane_by_lane),
        cmocka_unit_test(early_return_leaves_the_others),
        cmocka_unit_test(barrier_orders_shared_memory),
        cmocka_unit_test(divergent_barrier_waits_for_all_lanes),
        cmocka_unit_test(different_barriers_are_a_deadlock),
        cmocka_unit_test(generic_addresses_reach_every_space),
        cmocka_unit_test(vectors_and_narrow_types_move),
        cmocka_unit_test(strided_and_scattered_accesses_agree),
        cmocka_unit_test(faults_name_their_place),
        cmocka_unit_test(blocks_run_in_order),
        cmocka_unit_test(broken_texts_are_refused_with_line_and_reason),
        cmocka_unit_test(long_names_and_many_registers_are_bounded),
    };
    return cmocka_run_group_tests(tests, NULL, finish);
}
