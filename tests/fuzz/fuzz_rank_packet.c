/* SPDX-License-Identifier: Apache-2.0
 * fuzz_rank_packet.c - packets as a process of a rank, or its node, sends them: decoded, and fed to the gate as targets.
 */
#include "gate_state.h"
#include "packet.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len);

enum { CAP = 16 };

static void feed_gate(const struct orr_msg_rank_targets *msg)
{
    static struct orri_clock clocks[CAP];
    static uint64_t goals[CAP];
    static struct orri_target wants[CAP];
    struct orri_gate gate;
    memset(clocks, 0, sizeof clocks);
    orri_gate_init(&gate, clocks, goals, CAP, wants, CAP);
    orri_gate_add_clock(&gate);
    orri_gate_close(&gate, msg->cut);
    for (uint32_t i = 0; i < msg->targets.n; i++) {
        const struct orr_rec_clock *c = &msg->targets.at[i];
        const struct orri_target target = {.comm = c->comm,
                                           .issued = c->issued,
                                           .kind = c->kind,
                                           .me = c->me,
                                           .peer = c->peer};
        orri_gate_take_targets(
            &gate, msg->cut, msg->round, i == 0, &target, 1, i + 1 == msg->targets.n);
    }
    ORR_ASSERT(gate.n_wants <= CAP);
    uint32_t at = 0;
    if (orri_gate_may_go(&gate, false))
        orri_gate_count(&gate, &at, 1);
    (void)orri_gate_is_at_cut(&gate, 0, 0);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
    struct orri_packet packet;
    enum orr_err rc = orri_packet_decode(data, len, &packet);
    ORR_ASSERT(rc == ORR_OK || rc == ORR_EPROTO);
    if (rc != ORR_OK)
        return 0;
    if (packet.desc->id == ORR_MSG_rank_targets)
        feed_gate(packet.msg);
    orri_packet_fini(&packet);
    return 0;
}
