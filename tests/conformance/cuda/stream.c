/* SPDX-License-Identifier: Apache-2.0
 * stream.c - streams, events, host functions, and the order they promise.
 */
#include <pthread.h>
#include <stdatomic.h>
#include <string.h>
#include <time.h>

#include "suite.h"

/* A host function that holds its stream until the test opens it. */
struct gate {
    pthread_mutex_t lock;
    pthread_cond_t changed;
    bool is_open, is_reached;
    int order, seen;
};
#define GATE                                                                           \
    {                                                                                  \
        .lock = PTHREAD_MUTEX_INITIALIZER, .changed = PTHREAD_COND_INITIALIZER         \
    }
static atomic_int next_order;

static void hold(void *arg)
{
    struct gate *g = arg;
    struct timespec until;
    clock_gettime(CLOCK_REALTIME, &until);
    until.tv_sec +=
        20; /* a deadline, so that a broken driver fails the test, not hangs it */
    pthread_mutex_lock(&g->lock);
    g->is_reached = true;
    pthread_cond_broadcast(&g->changed);
    while (!g->is_open && pthread_cond_timedwait(&g->changed, &g->lock, &until) == 0)
        ;
    g->order = atomic_fetch_add(&next_order, 1);
    pthread_mutex_unlock(&g->lock);
}

static void open_gate(struct gate *g)
{
    pthread_mutex_lock(&g->lock);
    g->is_open = true;
    pthread_cond_broadcast(&g->changed);
    pthread_mutex_unlock(&g->lock);
}

static void note(void *arg)
{
    *(int *)arg = atomic_fetch_add(&next_order, 1);
}

static void create_and_ask(void **state)
{
    CUstream s = NULL, t = NULL;
    CUcontext c = NULL;
    unsigned flags = 9;
    int priority = 9;
    (void)state;
    OK(cuStreamCreate, &s, CU_STREAM_NON_BLOCKING);
    OK(cuStreamCreateWithPriority, &t, CU_STREAM_DEFAULT, -1);
    OK(cuStreamGetFlags, s, &flags);
    assert_int_equal(flags, CU_STREAM_NON_BLOCKING);
    OK(cuStreamGetPriority, t, &priority);
    assert_int_equal(priority, -1);
    OK(cuStreamGetCtx, s, &c);
    assert_ptr_equal(c, suite_context);
    OK(cuStreamQuery, s);
    ERR(CUDA_ERROR_INVALID_VALUE, cuStreamCreate, &s, 0xf0);
    ERR(CUDA_ERROR_INVALID_VALUE, cuStreamCreateWithPriority, NULL, 0, 0);
    OK(cuStreamDestroy, s);
    OK(cuStreamDestroy, t);
    ERR(CUDA_ERROR_INVALID_HANDLE, cuStreamDestroy, NULL);
    OK(cuCtxSetCurrent, NULL);
    ERR(CUDA_ERROR_INVALID_CONTEXT, cuStreamGetFlags, NULL, &flags);
    ERR(CUDA_ERROR_INVALID_CONTEXT, cuStreamGetPriority, NULL, &priority);
    ERR(CUDA_ERROR_INVALID_CONTEXT, cuStreamGetCtx, NULL, &c);
    ERR(CUDA_ERROR_INVALID_CONTEXT, cuStreamSynchronize, NULL);
    OK(cuCtxSetCurrent, suite_context);
}

static void a_held_stream_holds_no_other(void **state)
{
    struct gate g = GATE;
    CUstream a, b;
    int order = -1;
    (void)state;
    OK(cuStreamCreate, &a, CU_STREAM_NON_BLOCKING);
    OK(cuStreamCreate, &b, CU_STREAM_NON_BLOCKING);
    OK(cuLaunchHostFunc, a, hold, &g);
    ERR(CUDA_ERROR_NOT_READY, cuStreamQuery, a);
    OK(cuLaunchHostFunc, b, note, &order);
    OK(cuStreamSynchronize, b);
    assert_true(order >= 0);
    open_gate(&g);
    OK(cuStreamSynchronize, a);
    OK(cuStreamQuery, a);
    assert_true(g.order > order);
    ERR(CUDA_ERROR_INVALID_VALUE, cuLaunchHostFunc, a, NULL, NULL);
    OK(cuStreamDestroy, a);
    OK(cuStreamDestroy, b);
}

static void operations_of_a_stream_run_in_order(void **state)
{
    enum { N = 200 };
    int order[N];
    CUstream s;
    (void)state;
    OK(cuStreamCreate, &s, CU_STREAM_DEFAULT);
    for (int i = 0; i < N; i++)
        OK(cuLaunchHostFunc, s, note, &order[i]);
    OK(cuStreamSynchronize, s);
    for (int i = 1; i < N; i++)
        assert_int_equal(order[i], order[i - 1] + 1);
    OK(cuStreamDestroy, s);
}

static void legacy_stream_waits_for_blocking_ones(void **state)
{
    struct gate g = GATE;
    CUstream s;
    int in_legacy = -1, after = -1;
    (void)state;
    OK(cuStreamCreate, &s, CU_STREAM_DEFAULT);
    OK(cuLaunchHostFunc, s, hold, &g);
    OK(cuLaunchHostFunc, NULL, note, &in_legacy);
    OK(cuLaunchHostFunc, s, note, &after);
    ERR(CUDA_ERROR_NOT_READY, cuStreamQuery, NULL);
    open_gate(&g);
    OK(cuCtxSynchronize, );
    assert_true(g.order < in_legacy && in_legacy < after);
    OK(cuStreamDestroy, s);
}

static void non_blocking_stream_ignores_legacy(void **state)
{
    struct gate g = GATE;
    CUstream s;
    int order = -1;
    (void)state;
    OK(cuStreamCreate, &s, CU_STREAM_NON_BLOCKING);
    OK(cuLaunchHostFunc, CU_STREAM_LEGACY, hold, &g);
    OK(cuLaunchHostFunc, s, note, &order);
    OK(cuStreamSynchronize, s);
    open_gate(&g);
    OK(cuStreamSynchronize, NULL);
    assert_true(order < g.order);
    OK(cuStreamDestroy, s);
}

static void destroyed_stream_finishes_its_work(void **state)
{
    struct gate g = GATE;
    CUstream s;
    int order = -1;
    (void)state;
    OK(cuStreamCreate, &s, CU_STREAM_DEFAULT);
    OK(cuLaunchHostFunc, s, hold, &g);
    OK(cuLaunchHostFunc, s, note, &order);
    CUevent e;
    OK(cuEventCreate, &e, CU_EVENT_DISABLE_TIMING);
    OK(cuEventRecord, e, s);
    OK(cuStreamDestroy, s);
    open_gate(&g);
    OK(cuEventSynchronize, e);
    assert_true(order > g.order);
    OK(cuEventDestroy, e);
}

static void events_order_streams(void **state)
{
    struct gate g = GATE;
    CUstream a, b;
    CUevent e;
    int order = -1;
    (void)state;
    OK(cuStreamCreate, &a, CU_STREAM_NON_BLOCKING);
    OK(cuStreamCreate, &b, CU_STREAM_NON_BLOCKING);
    OK(cuEventCreate, &e, CU_EVENT_DEFAULT);
    OK(cuEventQuery, e); /* never recorded: nothing to wait for */
    OK(cuStreamWaitEvent, b, e, 0);
    OK(cuLaunchHostFunc, a, hold, &g);
    OK(cuEventRecordWithFlags, e, a, 0);
    ERR(CUDA_ERROR_NOT_READY, cuEventQuery, e);
    OK(cuStreamWaitEvent, b, e, 0);
    OK(cuLaunchHostFunc, b, note, &order);
    ERR(CUDA_ERROR_NOT_READY, cuStreamQuery, b);
    open_gate(&g);
    OK(cuStreamSynchronize, b);
    assert_true(order > g.order);
    OK(cuEventSynchronize, e);
    OK(cuEventQuery, e);
    ERR(CUDA_ERROR_INVALID_HANDLE, cuStreamWaitEvent, b, NULL, 0);
    OK(cuEventDestroy, e);
    OK(cuStreamDestroy, a);
    OK(cuStreamDestroy, b);
}

static void events_measure_time(void **state)
{
    CUevent start, end, untimed;
    float ms = -1.0f;
    (void)state;
    OK(cuEventCreate, &start, CU_EVENT_DEFAULT);
    OK(cuEventCreate, &end, CU_EVENT_BLOCKING_SYNC);
    OK(cuEventCreate, &untimed, CU_EVENT_DISABLE_TIMING);
    CUdeviceptr p = suite_upload(NULL, 8 << 20);
    OK(cuEventRecord, start, NULL);
    OK(cuMemsetD8Async, p, 3, 8 << 20, NULL);
    OK(cuEventRecord, end, NULL);
    OK(cuEventRecord, untimed, NULL);
    OK(cuEventSynchronize, untimed);
    OK(cuEventElapsedTime, &ms, start, end);
    assert_true(ms > 0.0f && ms < 20000.0f);
    ERR(CUDA_ERROR_INVALID_HANDLE, cuEventElapsedTime, &ms, start, untimed);
    ERR(CUDA_ERROR_INVALID_VALUE, cuEventCreate, NULL, 0);
    ERR(CUDA_ERROR_INVALID_HANDLE, cuEventRecord, NULL, NULL);
    ERR(CUDA_ERROR_INVALID_HANDLE, cuEventRecordWithFlags, NULL, NULL, 0);
    ERR(CUDA_ERROR_INVALID_HANDLE, cuEventSynchronize, NULL);
    ERR(CUDA_ERROR_INVALID_HANDLE, cuEventDestroy, NULL);
    OK(cuEventDestroy, start);
    OK(cuEventDestroy, end);
    OK(cuEventDestroy, untimed);
    OK(cuMemFree, p);
}

static void on_callback(CUstream stream, CUresult status, void *arg)
{
    struct gate *g = arg;
    g->seen = status == CUDA_SUCCESS && stream != NULL ? 1 : -1;
    note(&g->order);
}

static void callbacks_get_the_stream_and_status(void **state)
{
    struct gate g = GATE;
    CUstream s;
    (void)state;
    OK(cuStreamCreate, &s, CU_STREAM_DEFAULT);
    OK(cuStreamAddCallback, s, on_callback, &g, 0);
    OK(cuStreamSynchronize, s);
    assert_int_equal(g.seen, 1);
    ERR(CUDA_ERROR_INVALID_VALUE, cuStreamAddCallback, s, on_callback, &g, 7);
    OK(cuStreamDestroy, s);
}

static void *submitter(void *arg)
{
    CUstream s;
    unsigned char out[256];
    CUdeviceptr p;
    bool ok = cuCtxSetCurrent(suite_context) == CUDA_SUCCESS;
    for (int i = 0; i < 50 && ok; i++) {
        ok = cuStreamCreate(&s, i & 1) == CUDA_SUCCESS &&
             cuMemAlloc(&p, 256) == CUDA_SUCCESS &&
             cuMemsetD8Async(p, (unsigned char)i, 256, s) == CUDA_SUCCESS &&
             cuMemcpyDtoHAsync(out, p, 256, s) == CUDA_SUCCESS &&
             cuStreamSynchronize(s) == CUDA_SUCCESS && out[255] == i &&
             cuMemFree(p) == CUDA_SUCCESS && cuStreamDestroy(s) == CUDA_SUCCESS;
    }
    return ok ? arg : NULL;
}

static void many_threads_submit(void **state)
{
    pthread_t threads[4];
    void *result;
    (void)state;
    for (int i = 0; i < 4; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, submitter, threads), 0);
    for (int i = 0; i < 4; i++) {
        assert_int_equal(pthread_join(threads[i], &result), 0);
        assert_ptr_equal(result, threads);
    }
}

#define WITH_CONTEXT(f)                                                                \
    cmocka_unit_test_setup_teardown(f, suite_set_up, suite_tear_down)
const struct CMUnitTest stream_tests[] = {
    WITH_CONTEXT(create_and_ask),
    WITH_CONTEXT(a_held_stream_holds_no_other),
    WITH_CONTEXT(operations_of_a_stream_run_in_order),
    WITH_CONTEXT(legacy_stream_waits_for_blocking_ones),
    WITH_CONTEXT(non_blocking_stream_ignores_legacy),
    WITH_CONTEXT(destroyed_stream_finishes_its_work),
    WITH_CONTEXT(events_order_streams),
    WITH_CONTEXT(events_measure_time),
    WITH_CONTEXT(callbacks_get_the_stream_and_status),
    WITH_CONTEXT(many_threads_submit),
};
const unsigned n_stream_tests = sizeof stream_tests / sizeof stream_tests[0];
