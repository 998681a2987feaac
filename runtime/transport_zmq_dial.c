/* SPDX-License-Identifier: Apache-2.0
 * transport_zmq_dial.c - peers that we dial.
 *
 * waiting --due--> hello --their hello--> up --disconnected--> waiting
 *                    `--nobody there, deadline, refusal--> waiting
 * undialled: closed, and its place is empty
 *
 * A DEALER lives for one connection.  libzmq could reconnect it by itself, but what waits
 * inside would then go out before the new hello, where it is faster than our thread; so it
 * never does, and every dial is a fresh socket with nothing in it.
 */
#include "transport_zmq_impl.h"

/* Nobody is there: it costs little to look again, and a host that starts is not to be waited for long. */
enum { UNANSWERED_MS = 500 };

static uint64_t jitter(struct orr_zmq *z, uint32_t below)
{
    z->random ^= z->random << 13;
    z->random ^= z->random >> 7;
    z->random ^= z->random << 17;
    return z->random % below;
}

void orri_dial_close(struct orri_dial *dial, int linger_ms)
{
    if (dial->dealer.socket) {
        zmq_setsockopt(dial->dealer.socket, ZMQ_LINGER, &linger_ms, sizeof(linger_ms));
        zmq_socket_monitor(dial->dealer.socket, NULL, 0);
    }
    orri_port_close(&dial->dealer);
    orri_port_close(&dial->monitor);
}

void orri_dial_again(struct orr_zmq *z, struct orri_dial *dial)
{
    orri_dial_close(dial, 0);
    dial->link = NULL;
    dial->state = ORRI_DIAL_WAITING;
    dial->due_ms = z->now_ms + dial->backoff_ms + jitter(z, dial->backoff_ms);
    if (dial->backoff_ms < ORRI_BACKOFF_MAX_MS)
        dial->backoff_ms *= 2;
}

/* Under wake_lock, which is let go meanwhile: taking a link down takes it, too. */
static void dial_drop(struct orr_zmq *z, struct orri_dial *dial)
{
    pthread_mutex_unlock(&z->wake_lock);
    if (dial->link)
        orri_link_down(z, dial->link, "not needed any more");
    orri_dial_again(z, dial);
    pthread_mutex_lock(&z->wake_lock);
    if (dial->is_dropped) /* else it was dialled again */
        *dial = (struct orri_dial){.state = ORRI_DIAL_EMPTY};
}

void orri_dials_change(struct orr_zmq *z)
{
    pthread_mutex_lock(&z->wake_lock);
    bool has_changes = z->has_changes;
    z->has_changes = false;
    for (size_t i = 0; has_changes && i < z->n_dials; i++) {
        struct orri_dial *dial = &z->dials[i];
        if (dial->is_new) {
            dial->is_new = false;
            dial->state = ORRI_DIAL_WAITING;
            dial->backoff_ms = ORRI_BACKOFF_MIN_MS;
            dial->due_ms = z->now_ms;
        }
        if (dial->is_dropped)
            dial_drop(z, dial);
    }
    pthread_mutex_unlock(&z->wake_lock);
}

void orri_dial_unanswered(struct orr_zmq *z, struct orri_dial *dial)
{
    orri_dial_again(z, dial);
    if (dial->due_ms > z->now_ms + UNANSWERED_MS)
        dial->due_ms = z->now_ms + UNANSWERED_MS / 2 + jitter(z, UNANSWERED_MS / 2);
}

static bool dial_connect(struct orr_zmq *z, struct orri_dial *dial)
{
    if (!orri_port_open(&dial->dealer, zmq_socket(z->context, ZMQ_DEALER)))
        return false;
    void *dealer = dial->dealer.socket;
    return orri_zmq_options(dealer) == ORR_OK &&
           orri_port_open(&dial->monitor,
                          orri_zmq_watch(z->context, dealer, ORRI_ZMQ_EVENTS_END)) &&
           zmq_connect(dealer, dial->endpoint) == 0;
}

static void dial_now(struct orr_zmq *z, struct orri_dial *dial)
{
    if (!dial_connect(z, dial)) {
        orri_zmq_log(z,
                     ORR_LOG_WARN,
                     "%s at %s: cannot dial: %s",
                     dial->name,
                     dial->endpoint,
                     zmq_strerror(zmq_errno()));
        orri_dial_again(z, dial);
        return;
    }
    dial->state = ORRI_DIAL_HELLO;
    dial->due_ms = z->now_ms + ORRI_HELLO_MS;
    orri_session_say_hello(z, &(struct orri_origin){.dial = dial, .fd = -1});
}

void orri_dial_step(struct orr_zmq *z, struct orri_dial *dial)
{
    if (dial->state == ORRI_DIAL_EMPTY || dial->state == ORRI_DIAL_UP ||
        z->now_ms < dial->due_ms)
        return;
    if (dial->state == ORRI_DIAL_HELLO)
        orri_dial_again(z, dial);
    else if (orri_link_by_host(z,
                               dial->host)) /* they dialled us, and that link stays */
        dial->due_ms = z->now_ms + ORRI_BACKOFF_MAX_MS;
    else
        dial_now(z, dial);
}
