"""The scoring pass of ``plumbline diff`` against the bare forward passes, and full KL against materialised tensors.

A pair of 15M-parameter Llamas (8 layers, width 384, vocabulary 32k) reads 200 texts of 16 to 256 tokens. The limit is
two forward passes over the same length-sorted batches with the head product and no softmax. Ratios of medians of
interleaved runs in one process.

    python benchmarks/diff.py [--json] [--repeats 7]
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable

import torch
from transformers import LlamaConfig, LlamaForCausalLM

from plumbline.diff.score import Arm, batches, pack, pair, single
from plumbline.kernels.seeds import forked, rng
from plumbline.models import LM

BUDGET = 4096


def llama(seed: int) -> LM:
    config = LlamaConfig(
        vocab_size=32_000, hidden_size=384, intermediate_size=1024, num_hidden_layers=8, num_attention_heads=6,
        num_key_value_heads=6, max_position_embeddings=512, tie_word_embeddings=True,
    )  # fmt: skip
    with forked(seed):
        return LM(LlamaForCausalLM(config).eval(), None, f"llama-{seed}")


def texts(n: int = 200) -> list[list[int]]:
    g = rng(0, "texts")
    return [g.integers(0, 32_000, int(length)).tolist() for length in g.integers(16, 257, n)]


@torch.inference_mode()
def bare(lms: list[LM], rows: list[list[int]], groups: list[list[int]], *, every: bool = False) -> float:
    """Forward passes and head products alone; ``every`` also multiplies the padding."""
    total = 0.0
    starts = [0] * len(rows)
    for group in groups:
        ids, kept = pack(rows, starts, group, "cpu")
        for lm in lms:
            states = lm.model.model(ids).last_hidden_state[:, :-1]
            total += float(lm.model.lm_head(states if every else states[kept])[..., 0].sum())
    return total


def medians(tasks: dict[str, Callable[[], object]], repeats: int) -> dict[str, float]:
    """Median seconds per task; the tasks take turns, so that a drift of the machine meets all of them."""
    seconds: dict[str, list[float]] = {name: [] for name in tasks}
    for turn in range(repeats + 1):
        for name, task in tasks.items():
            began = time.perf_counter()
            task()
            if turn:
                seconds[name].append(time.perf_counter() - began)
    return {name: statistics.median(values) for name, values in seconds.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--texts", type=int, default=200)
    parser.add_argument("--slow", action="store_true", help="also the loops that people write today")
    asked = parser.parse_args()
    lms, rows = [llama(0), llama(1)], texts(asked.texts)
    starts = [0] * len(rows)
    sorted_groups = batches(rows, starts, BUDGET)
    arms = [Arm.of(lm) for lm in lms]
    tasks: dict[str, Callable[[], object]] = {
        "bare": lambda: bare(lms, rows, sorted_groups),
        "full": lambda: sum(len(c["pos"]) for c in pair(*arms, rows, starts, BUDGET)),
        "labels": lambda: [sum(len(c["pos"]) for c in single(a, rows, starts, BUDGET)) for a in arms],
    }
    if asked.slow:
        tasks["one by one"] = lambda: bare(lms, rows, [[i] for i in range(len(rows))])
        unsorted = [list(range(i, min(i + 16, len(rows)))) for i in range(0, len(rows), 16)]
        tasks["unsorted, padded"] = lambda: bare(lms, rows, unsorted, every=True)
    found = medians(tasks, asked.repeats)
    figures = {f"{name} / bare": seconds / found["bare"] for name, seconds in found.items() if name != "bare"}
    figures |= {"bare seconds": found["bare"]}
    targets = {"full / bare": 1.3, "labels / bare": 1.2}
    holds = all(figures[name] <= most for name, most in targets.items())
    if asked.json:
        print(json.dumps({"name": "diff", "figures": figures, "targets": targets, "holds": holds}))
        return
    for name, value in figures.items():
        target = f"  (at most {targets[name]})" if name in targets else ""
        print(f"{name:24} {value:8.3f}{target}")


if __name__ == "__main__":
    main()
