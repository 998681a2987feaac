/* SPDX-License-Identifier: Apache-2.0
 * pipeline_schedule.c - 1F1B: which micro-batch goes through this stage when, and what
 * it exchanges with its neighbours.
 *
 * Where a stage sends to a neighbour and receives from it, both are in one group:
 * neither stage waits for the other to receive first. All in one stream.
 */
#include "pipeline.h"

static void send(struct pipeline *p, CUdeviceptr values, size_t n, int to)
{
    int peer = (int)p->grid->model_rank + to;
    NCCL(ncclSend,
         gpu_pointer(values),
         n,
         ncclFloat32,
         peer,
         p->grid->model,
         p->compute);
}

static void receive(struct pipeline *p, CUdeviceptr values, size_t n, int from)
{
    int peer = (int)p->grid->model_rank + from;
    NCCL(ncclRecv,
         gpu_pointer(values),
         n,
         ncclFloat32,
         peer,
         p->grid->model,
         p->compute);
}

/* ---- what crosses the stage's borders ---- */

static void receive_values(struct pipeline *p, uint32_t n)
{
    size_t count = (size_t)p->rows * p->layers[0].in;
    if (!p->is_first)
        receive(p, pipeline_slot(p, n)->values[0], count, -1);
}

static void send_values(struct pipeline *p, uint32_t n)
{
    size_t count = (size_t)p->rows * p->layers[p->nlayers - 1].out;
    if (!p->is_last)
        send(p, pipeline_slot(p, n)->values[p->nlayers], count, +1);
}

static void receive_gradients(struct pipeline *p)
{
    size_t count = (size_t)p->rows * p->layers[p->nlayers - 1].out;
    if (!p->is_last)
        receive(p, p->dvalues[p->nlayers], count, +1);
}

static void send_gradients(struct pipeline *p)
{
    size_t count = (size_t)p->rows * p->layers[0].in;
    if (!p->is_first)
        send(p, p->dvalues[0], count, -1);
}

/* ---- the order ---- */

/* Micro-batch n goes forward, n - ahead comes back; both exchanges are groups. */
static void one_forward_one_back(struct pipeline *p, uint32_t n, uint32_t ahead)
{
    bool is_more = n + 1 < p->cfg.micro;
    pipeline_forward(p, n);
    NCCL(ncclGroupStart);
    send_values(p, n);
    receive_gradients(p);
    NCCL(ncclGroupEnd);
    pipeline_backward(p, n - ahead);
    NCCL(ncclGroupStart);
    send_gradients(p);
    if (is_more)
        receive_values(p, n + 1);
    NCCL(ncclGroupEnd);
}

void pipeline_schedule(struct pipeline *p)
{
    uint32_t behind = p->cfg.stages - 1 - p->grid->model_rank;
    uint32_t ahead = behind < p->cfg.micro ? behind : p->cfg.micro;
    for (uint32_t n = 0; n < ahead; n++) {
        receive_values(p, n);
        pipeline_forward(p, n);
        send_values(p, n);
    }
    if (ahead < p->cfg.micro)
        receive_values(p, ahead);
    for (uint32_t n = ahead; n < p->cfg.micro; n++)
        one_forward_one_back(p, n, ahead);
    for (uint32_t n = p->cfg.micro - ahead; n < p->cfg.micro; n++) {
        receive_gradients(p);
        pipeline_backward(p, n);
        send_gradients(p);
    }
}
