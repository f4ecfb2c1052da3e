"""Rollouts of zoo:base whose engine reports some tokens wrong, trained on with and without a correction."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import torch
from tests.short_training import base, scored, trained
from torch import Tensor

from plumbline.core.scored import Scored
from plumbline.kernels.seeds import generator
from plumbline.objectives import group_advantages, grpo
from plumbline.train.engines import Engine

Weights = Callable[[Scored, Scored], Tensor]


PROMPTS, SIZE, LENGTH = ("The ", "Question: ", "2 + 3 =", "Answer: "), 8, 8


@functools.cache
def rows(share: float = 0.1) -> tuple[dict[str, Any], ...]:
    """Answers of 8 tokens, a digit among them being right; their true log-probabilities in ``old_logps``.

    The engine's are off by 0.02 nats, and of a ``share`` of tokens 5 nats too low.
    """
    lm, g, found = base(), generator(0, "faulty"), []
    asked = [lm.tokenizer(text, add_special_tokens=False).input_ids for text in PROMPTS for _ in range(SIZE)]
    answers = Engine([], max_new_tokens=LENGTH)(lm.model, asked, seed=0)
    texts = [lm.tokenizer.decode(ids) for ids in answers.ids]
    rewards = torch.tensor([float(any(c.isdigit() for c in text)) for text in texts])
    advantages = group_advantages(rewards, torch.arange(len(asked)) // SIZE)
    for prompt, ids, logps, advantage in zip(asked, answers.ids, answers.logps or (), advantages, strict=True):
        true = torch.tensor([0.0] * len(prompt) + list(logps))
        told = true + 0.02 * torch.randn(true.shape, generator=g) - 5.0 * (torch.rand(true.shape, generator=g) < share)
        found.append({
            "input_ids": [*prompt, *ids], "labels": [-100] * len(prompt) + list(ids), "advantages": float(advantage),
            "old_logps": true.tolist(), "sampler_logps": told.tolist(),
        })  # fmt: skip
    return tuple(found)


def without(x_old: Scored, x_sampler: Scored) -> Tensor:
    """What an engine that is right needs, [B,T] of ones."""
    return torch.ones_like(x_old.logps)


def unbounded(x_old: Scored, x_sampler: Scored) -> Tensor:
    """Token ratios as they come, [B,T]."""
    return (x_old.logps - x_sampler.logps).exp()


def unbounded_answers(x_old: Scored, x_sampler: Scored) -> Tensor:
    """Ratios of whole answers as they come, [B,1]."""
    return (x_old.total() - x_sampler.total()).exp()[:, None]


@functools.cache
def _moved(weights: Weights) -> Tensor:
    told, lm = list(rows()), base()
    trained(lambda s: s.mean(grpo(s.x, s.advantages, s.x_old, weights=weights(s.x_old, s.x_sampler))), {"x": told},
            lm=lm, lr=3e-4, batch_size=len(told))  # fmt: skip
    return (scored(lm, told).logps - scored(base(), told).logps).flatten()


def likeness(weights: Weights) -> float:
    """Cosine of what 20 steps do to every token to what they do where the engine is right."""
    return float(torch.cosine_similarity(_moved(weights), _moved(without), dim=0))
