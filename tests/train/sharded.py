"""Gradients of a loss on a model sharded by FSDP2 over two CPU processes; test_two_processes.py runs it."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import torch
import torch.distributed as dist
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard

from plumbline.core.scored import Scored
from plumbline.lab.tiny import tiny


def main(folder: str) -> None:
    dist.init_process_group("gloo")
    mesh, rank, found = init_device_mesh("cpu", (2,)), dist.get_rank(), {}
    ids = torch.randint(3, 101, (4, 12), generator=torch.Generator().manual_seed(0))
    for architecture in ("llama", "gpt2"):  # a head of its own, and one tied to the embedding
        whole, model = tiny(architecture), tiny(architecture)
        for layer in model.model.layers if architecture == "llama" else model.transformer.h:
            fully_shard(layer, mesh=mesh)
        fully_shard(model, mesh=mesh)
        mine = ids[2 * rank : 2 * rank + 2]
        pair = Scored.of(model, mine), Scored.of(model, mine.flip(1))  # two passes, one backward, as for a pair
        (-(pair[0].logps.sum() + pair[1].total().sum())).backward()
        both = Scored.of(whole, ids), Scored.of(whole, ids.flip(1))
        (-(both[0].logps.sum() + both[1].total().sum()) / 2).backward()  # FSDP averages over processes
        off = [(p.grad.full_tensor() - q.grad).abs().max() for p, q in zip(model.parameters(), whole.parameters())]
        found[architecture] = [float(max(off)), float(max(q.grad.abs().max() for q in whole.parameters()))]
    if rank == 0:
        Path(folder, "sharded.json").write_text(json.dumps(found))
    dist.destroy_process_group()


if __name__ == "__main__":
    main(sys.argv[1])
