/* SPDX-License-Identifier: Apache-2.0
 * rebuild.c - the real communicators go at a cut and come anew at a resume (core/part.h).
 *
 * START      The core has closed the gate: every operation that any rank issued was issued by all, and no thread is in a call that
 *            moves a clock.  close() waits for the other calls.
 * STOP       quiesce() looks at all communicators first and changes nothing when one is broken.  Then it destroys them, a few at a
 *            time in the order of their keys, which all ranks share: the least key that is not done yet is being worked on by all
 *            of its members, so nobody waits in a circle, however many threads there are.
 * RESUME     Each process says what it has: rank 0 of a communicator makes a unique id, the other members want it (make_ids).  When
 *            all have spoken, all communicators are made in one group, those that do not block first: again no order to wait in.
 *            Each is an InitRankConfig with the original config, also what was a split.
 *            LEFT  One that the program has destroyed here and that others still have (the first stage of a pipeline ends first) is
 *            made anew here, too, and destroyed at once, on a thread of its own: so the others find it as it was, and may still
 *            use what does not need us.
 *            VOID  Aborted or broken at one member, or its process is gone: it cannot be made anew.  The others keep a handle that
 *            answers questions and can be destroyed; operations fail with ncclRemoteError.
 *            BROKEN SINCE  A rank that has gone on may abort one, or end, while the others are still at their resume: what was
 *            made counts as made, and they find it broken when they use it, as without a stop.
 * FAILURES   A destroy that is not over at the deadline is aborted; the communicator is lost, and the stop has failed.  A failed
 *            resume aborts what it has made and can be tried again with other ids.
 */
#include "rebuild.h"
#include "places.h"
#include "work.h"

#include <errno.h>
#include <signal.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { POLL_NS = 200000, ABORT_GRACE_MS = 2000 };

enum orr_err
orri_set_error(struct orr_error *err, enum orr_err code, const char *format, ...)
{
    va_list args;

    va_start(args, format);
    if (err) {
        err->code = code;
        vsnprintf(err->text, sizeof err->text, format, args);
    }
    va_end(args);
    return code;
}

static void pause_a_little(void)
{
    const struct timespec t = {.tv_nsec = POLL_NS};

    nanosleep(&t, NULL); /* NCCL offers nothing to wait on */
}

/* ---- Stop --------------------------------------------------------------------------------- */

/* Waits until nothing is under way in it.  Errors: what is wrong with it; ncclInProgress at the deadline or when cancelled. */
ncclResult_t
orri_await_ready(ncclComm_t real, uint64_t deadline_ms, const atomic_bool *is_cancelled)
{
    ncclResult_t state = ncclInProgress, result;

    for (;;) {
        result = REAL(CommGetAsyncError, real, &state);
        if (result != ncclSuccess || state != ncclInProgress)
            return result != ncclSuccess ? result : state;
        if (orri_nccl_now_ms() >= deadline_ms || atomic_load(is_cancelled))
            return ncclInProgress;
        pause_a_little();
    }
}

/* It keeps its error, for the program. */
static void lose_broken(struct orri_comm *c, ncclResult_t result, ncclComm_t real)
{
    const char *text = NULL;

    orri_self.is_ours = false;
    if (orri_splice_ask(c) == result && orri_self.is_ours)
        text = orri_self.text;
    else
        text = orri_real.GetLastError(real);
    orri_comm_lose(c, result, text ? text : "");
}

static void destroy_one(struct orri_work *w, size_t i)
{
    struct orri_comm *c = w->comm[i];

    while (atomic_load(&c->finalizing) > 0)
        pause_a_little();
    if (w->result[i] != ncclSuccess) {
        orri_splice_abort(c, w->real[i]);
        return;
    }
    orri_splice_end_comm(c);
    if (!w->real[i])
        return;
    w->result[i] = REAL(CommDestroy, w->real[i]);
    if (w->result[i] == ncclInProgress)
        w->result[i] = ncclSuccess;
    if (w->result[i] != ncclSuccess) /* a peer broke it just now: that bars no stop */
        lose_broken(c, w->result[i], NULL);
}

/* Those that hang are freed by force; their communicators are lost. */
static enum orr_err give_up_destroy(struct orri_work *w, struct orr_error *err)
{
    size_t stuck = w->n;

    for (size_t i = w->n; i-- > 0;) {
        if (atomic_load(&w->is_done[i]))
            continue;
        stuck = i;
        orri_comm_lose(w->comm[i], ncclRemoteError, "it hung when the job was stopped");
        if (w->real[i])
            REAL(CommAbort, w->real[i]);
    }
    orri_work_await(w, orri_nccl_now_ms() + ABORT_GRACE_MS);
    return orri_set_error(
        err,
        ORR_ETIMEOUT,
        "communicator %016llx (rank %d of %d) does not end: an operation of it waits "
        "for a rank that has not issued it",
        (unsigned long long)(stuck < w->n ? w->comm[stuck]->key : 0),
        stuck < w->n ? w->comm[stuck]->me : 0,
        stuck < w->n ? atomic_load(&w->comm[stuck]->n) : 0);
}

/* Waits until none is in the middle of something.  A broken one does not hold the others up: it goes, and its error stays. */
static enum orr_err
check_all(struct orri_work *w, uint64_t deadline_ms, struct orr_error *err)
{
    for (size_t i = 0; i < w->n; i++) {
        struct orri_comm *c = w->comm[i];
        ncclComm_t real = atomic_load(&c->real);
        ncclResult_t state =
            real ? orri_await_ready(real, deadline_ms, &w->is_cancelled) : ncclSuccess;
        if (state == ncclSuccess)
            state = orri_splice_await(c, real, deadline_ms);
        if (state == ncclSuccess)
            state = orri_comm_settle(c);
        w->result[i] = state;
        if (state == ncclInProgress)
            return orri_set_error(
                err,
                ORR_ETIMEOUT,
                "communicator %016llx is not ready: a rank of it has not come",
                (unsigned long long)c->key);
    }
    return ORR_OK;
}

/* Takes the real ones. */
static void detach_all(struct orri_work *w)
{
    for (size_t i = 0; i < w->n; i++) {
        struct orri_comm *c = w->comm[i];
        if (w->result[i] != ncclSuccess) {
            lose_broken(c, w->result[i], atomic_load(&c->real));
        } else {
            orri_buffers_drop(c);
            c->is_stopped = true;
        }
        w->real[i] = atomic_exchange(&c->real, NULL);
        memset(&c->fresh, 0, sizeof c->fresh);
    }
}

static enum orr_err
quiesce(struct orri_arena *piece, uint64_t deadline_ms, struct orr_error *err)
{
    struct orri_work *w = orri_work_new(destroy_one, ORRI_WORK_REAL);
    enum orr_err code;

    (void)piece;
    if (!w)
        return orri_set_error(err, ORR_ENOMEM, "out of memory");
    code = check_all(w, deadline_ms, err);
    if (code != ORR_OK) {
        orri_work_put(w);
        return code;
    }
    detach_all(w);
    if (!orri_work_run(w, ORRI_WORK_THREADS, deadline_ms))
        code = give_up_destroy(w, err);
    else if (!orri_spliced_await_aborted(deadline_ms))
        code = orri_set_error(
            err, ORR_ETIMEOUT, "work of an aborted communicator does not end");
    else if (!orri_leave_await(deadline_ms))
        code = orri_set_error(
            err,
            ORR_ETIMEOUT,
            "the program's own ncclCommDestroy does not return: other ranks "
            "have not called it");
    orri_work_put(w);
    return code;
}

/* ---- The part ------------------------------------------------------------------------------- */

static enum orr_err close_gate(uint64_t deadline_ms, struct orr_error *err)
{
    if (orri_use_close(deadline_ms))
        return ORR_OK;
    orri_use_open();
    return orri_set_error(err, ORR_ETIMEOUT, "a call of NCCL does not return");
}

static void look(void)
{
    if (orri_is_elastic())
        orri_spliced_look();
}

void orri_nccl_register(void)
{
    static const struct orri_part part = {.name = "nccl",
                                          .quiesce = quiesce,
                                          .resume = orri_resume,
                                          .make_ids = orri_make_ids,
                                          .add_ids = orri_add_ids,
                                          .has_all_ids = orri_has_all_ids,
                                          .look = look,
                                          .close = close_gate,
                                          .open = orri_use_open};
    static atomic_flag is_registered = ATOMIC_FLAG_INIT;

    if (!atomic_flag_test_and_set(&is_registered))
        orri_part_register(ORRI_PART_NCCL, &part);
}
