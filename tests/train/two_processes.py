"""What one process does with batches of four, two do with batches of two; test_two_processes.py runs it."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import torch

from plumbline.kernels.ranks import everywhere, rank, total, world
from plumbline.kernels.seeds import generator
from plumbline.lab.tiny import tiny
from plumbline.objectives.preference import dpo
from plumbline.objectives.sft import nll
from plumbline.train import fit


def rows(seed, n=16):
    g = generator(seed, "rows")
    lengths = torch.randint(3, 12, (n,), generator=g).tolist()
    made = [torch.randint(3, 101, (length,), generator=g).tolist() for length in lengths]
    return [{"input_ids": ids, "labels": [-100, *ids[1:]]} for ids in made]


def main(folder: str) -> None:
    data = {"chosen": rows(1), "rejected": rows(2)}
    done = fit(
        tiny("llama"), data, loss=[dpo, (0.1, nll)], max_steps=3, gradient_accumulation_steps=2, optim="sgd",
        per_device_train_batch_size=4 // max(1, world_size()), learning_rate=1e-2, logging_steps=1, disable_tqdm=True,
        max_grad_norm=0.0, lr_scheduler_type="constant", use_cpu=True, ddp_backend="gloo" if world_size() > 1 else None,
    )  # fmt: skip
    mine = torch.arange(rank() + 2) + 10 * rank()
    gathered, summed = everywhere(mine).tolist(), int(total(torch.tensor(rank() + 1)))
    if rank() == 0:
        weights = torch.cat([p.detach().flatten() for p in done.model.parameters()])
        losses = [entry["loss"] for entry in done.history if "loss" in entry]
        told = {"losses": losses, "weights": weights.tolist(), "world": world(), "gathered": gathered, "summed": summed}
        Path(folder, f"{world()}.json").write_text(json.dumps(told))


def world_size() -> int:
    import os

    return int(os.environ.get("WORLD_SIZE", "1"))


if __name__ == "__main__":
    main(sys.argv[1])
