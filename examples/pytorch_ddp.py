#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""pytorch_ddp.py - plain PyTorch training on GPUs, which knows nothing of Orrery.

    pytorch_ddp.py [--steps N] [--log-every K] [--hidden H] [--batch B] [--pause SECONDS] [--graph]

A small network learns a function of random points, on one GPU, or with WORLD_SIZE > 1 (the variables of torchrun) data parallel
over NCCL (DistributedDataParallel). Deterministic: the same options give the same losses, to the last bit. Rank 0 prints a line `step=N loss=X` for each K-th
step, where X is the loss in hexadecimal, and at the end one line with a digest of all weights and of the optimizer's state.
"""
import argparse
import hashlib
import os
import sys
import time

os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # before CUDA starts; for deterministic matrix products

try:
    import torch
except ImportError:
    sys.exit("pytorch_ddp.py: there is no PyTorch for this python3")


def parse():
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--log-every", type=int, default=1)
    parser.add_argument("--hidden", type=int, default=2048)
    parser.add_argument("--batch", type=int, default=512, help="rows a step and rank")
    parser.add_argument("--pause", type=float, default=0.0, help="seconds after each step, so that a run lasts")
    parser.add_argument("--graph", action="store_true", help="forward and backward are CUDA graphs; one size of batch")
    return parser.parse_args()


def network(hidden):
    layers = [torch.nn.Linear(64, hidden), torch.nn.GELU(), torch.nn.LayerNorm(hidden), torch.nn.Dropout(0.1),
              torch.nn.Linear(hidden, hidden), torch.nn.GELU(), torch.nn.Linear(hidden, 8)]
    return torch.nn.Sequential(*layers)


def digest(model, optimizer):
    sha = hashlib.sha256()
    for tensor in model.state_dict().values():
        sha.update(tensor.detach().cpu().numpy().tobytes())
    for state in optimizer.state.values():
        for value in state.values():
            if torch.is_tensor(value):
                sha.update(value.detach().cpu().numpy().tobytes())
    return sha.hexdigest()[:16]


def train(options, device, rank, world):
    torch.manual_seed(1)  # the same first weights on all ranks
    model = network(options.hidden).to(device)
    if world > 1:
        model = torch.nn.parallel.DistributedDataParallel(model, device_ids=[device.index])
    torch.manual_seed(100 + rank)  # its own points
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    if options.graph:
        model = torch.cuda.make_graphed_callables(model, (torch.randn(options.batch, 64, device=device),))
    target = torch.randn(64, 8, device=device, generator=torch.Generator(device).manual_seed(7))
    for step in range(1, options.steps + 1):
        # Sizes differ, so that the caching allocator has something to do.
        rows = options.batch + (0 if options.graph else 64 * (step % 5))
        points = torch.randn(rows, 64, device=device)
        loss = torch.nn.functional.mse_loss(model(points), torch.tanh(points @ target))
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        if rank == 0 and step % options.log_every == 0:
            print(f"step={step} loss={loss.item().hex()}", flush=True)
        if options.pause:
            time.sleep(options.pause)
    return digest(model, optimizer)


def main():
    options = parse()
    rank, world = int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1"))
    if not torch.cuda.is_available():
        sys.exit("pytorch_ddp.py: PyTorch sees no CUDA device")
    device = torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")) % torch.cuda.device_count())
    torch.cuda.set_device(device)
    torch.use_deterministic_algorithms(True)
    torch.backends.cuda.matmul.allow_tf32 = False
    if world > 1:
        torch.distributed.init_process_group("nccl")
    result = train(options, device, rank, world)
    if world > 1:
        torch.distributed.destroy_process_group()
    if rank == 0:
        print(f"reserved={torch.cuda.max_memory_reserved(device)}", file=sys.stderr)
        print(f"digest={result}", flush=True)


if __name__ == "__main__":
    main()
