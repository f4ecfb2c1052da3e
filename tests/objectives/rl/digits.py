"""Rollouts of zoo:base with a reward that anyone can check: the answer holds a digit."""

from __future__ import annotations

import functools
from typing import Any

import torch
from tests.short_training import base, scored, trained

from plumbline.core.scored import Scored
from plumbline.kernels.seeds import forked
from plumbline.models import LM
from plumbline.objectives import group_advantages, nll, step_advantages

PROMPTS = ("The ", "Question: ", "2 + 3 =", "Answer: ")
SIZE, LENGTH = 8, 8  # rollouts a prompt, tokens a rollout


def drawn(lm: LM, prompt: str, n: int, *key: str | int) -> tuple[list[int], torch.Tensor]:
    """The prompt's ids and n completions [n, LENGTH]."""
    ids = lm.tokenizer(prompt, add_special_tokens=False, return_tensors="pt").input_ids
    rows = ids.expand(n, -1)
    with forked(0, "digits", *key), torch.no_grad():
        out = lm.model.generate(
            rows, attention_mask=torch.ones_like(rows), do_sample=True, top_k=0, max_new_tokens=LENGTH,
            min_new_tokens=LENGTH, pad_token_id=0,
        )  # fmt: skip
    return ids[0].tolist(), out[:, ids.shape[1] :]


def digit_at(lm: LM, completion: torch.Tensor) -> int | None:
    """The first token with a digit in it."""
    texts = [lm.tokenizer.decode([i]) for i in completion.tolist()]
    return next((t for t, text in enumerate(texts) if any(c.isdigit() for c in text)), None)


@functools.cache
def rollouts() -> tuple[dict[str, Any], ...]:
    """32 rows of 3 to 8 tokens with rewards (1 or -1), groups, advantages, base_logps and a step_credit per token."""
    lm, rows = base(), []
    for number, prompt in enumerate(PROMPTS):
        before, completions = drawn(lm, prompt, SIZE, prompt)
        for i, whole in enumerate(completions):
            completion = whole[: 3 + i % (LENGTH - 2)]
            at, pad, n = digit_at(lm, completion), [0.0] * len(before), len(completion)
            # every token is a step: the chance of success is 1/2 until the first digit, then 1; 0 at the end without
            values = torch.tensor([[0.5 if at is None or t <= at else 1.0 for t in range(n)] + [float(at is not None)]])
            credit = step_advantages(torch.arange(1, n + 1)[None], values)[0]
            rows.append({
                "input_ids": before + completion.tolist(), "labels": [-100] * len(before) + completion.tolist(),
                "groups": number, "rewards": -1.0 if at is None else 1.0, "step_credit": pad + credit.tolist(),
            })  # fmt: skip
    rewards, groups = (torch.tensor([row[name] for row in rows]) for name in ("rewards", "groups"))
    for row, advantage in zip(rows, group_advantages(rewards, groups).tolist(), strict=True):
        row["advantages"] = advantage
        row["base_logps"] = [0.0, *scored(lm, [row]).logps[0].tolist()]
    return tuple(rows)


def practised(loss: Any, *, lr: float = 3e-4, logps: str = "unused", steps: int = 20) -> LM:
    """zoo:base after some steps on all rollouts at once; ``logps`` names the column that base's log-probs go by."""
    lm = base()
    rows = [row | {logps: row["base_logps"]} for row in rollouts()]
    trained(loss, {"x": rows}, lm=lm, lr=lr, batch_size=len(rows), steps=steps)
    return lm


def rate(lm: LM) -> float:
    """Share of 128 fresh rollouts that hold a digit."""
    fresh = [c for prompt in PROMPTS for c in drawn(lm, prompt, 32, "fresh", prompt)[1]]
    return sum(digit_at(lm, c) is not None for c in fresh) / len(fresh)


@functools.cache
def imitated() -> float:
    """The rate after as many steps of plain imitation of the same rollouts: the baseline."""
    return rate(practised(nll))


def view(lm: LM) -> Scored:
    """The rollouts under a model."""
    return scored(lm, rollouts())
