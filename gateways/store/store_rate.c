/* SPDX-License-Identifier: Apache-2.0
 * store_rate.c - a token bucket: at most bytes_per_s on average, and a quarter of a second at once.
 *
 * Whoever takes goes into debt and waits until it is paid, so that a chunk larger than the bucket
 * passes, too.
 */
#include "store_impl.h"

static const double slice_s = 0.05; /* between looks at op */
static const double burst_s = 0.25;

double orri_now_s(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

void orri_rate_init(struct orri_rate *rate, uint64_t bytes_per_s)
{
    *rate = (struct orri_rate){.bytes_per_s = bytes_per_s, .at_s = orri_now_s()};
    pthread_mutex_init(&rate->lock, NULL);
}

void orri_rate_fini(struct orri_rate *rate)
{
    pthread_mutex_destroy(&rate->lock);
}

static double owe(struct orri_rate *rate, uint64_t bytes)
{
    const double per_s = (double)rate->bytes_per_s;
    pthread_mutex_lock(&rate->lock);
    const double now = orri_now_s();
    rate->tokens += (now - rate->at_s) * per_s;
    rate->at_s = now;
    if (rate->tokens > per_s * burst_s)
        rate->tokens = per_s * burst_s;
    rate->tokens -= (double)bytes;
    const double wait_s = rate->tokens < 0 ? -rate->tokens / per_s : 0;
    pthread_mutex_unlock(&rate->lock);
    return wait_s;
}

void orri_rate_take(struct orri_rate *rate, uint64_t bytes, struct orr_store_op *op)
{
    if (!rate->bytes_per_s)
        return;
    const double until_s = orri_now_s() + owe(rate, bytes);
    for (double left; (left = until_s - orri_now_s()) > 0 && !orri_is_cancelled(op);) {
        const double pause = left < slice_s ? left : slice_s;
        nanosleep(&(struct timespec){.tv_nsec = (long)(pause * 1e9)}, NULL);
    }
}
