"""Twenty steps on zoo:base: what every loss must survive, and move in the direction that its paper says."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch

from plumbline.core.scored import Scored
from plumbline.models import LM, load
from plumbline.train import Trained, fit
from plumbline.train.streams import collate


def base() -> LM:
    """A fresh zoo:base (1.4M parameters, context 256)."""
    return load("zoo:base")


def row(lm: LM, prompt: str, completion: str, **columns: Any) -> dict[str, Any]:
    """A tokenised row: the completion is trained on, the prompt is not. Columns are numbers, or one per token."""
    before, after = (lm.tokenizer(text, add_special_tokens=False).input_ids for text in (prompt, completion))
    return {"input_ids": before + after, "labels": [-100] * len(before) + after, **columns}


def trained(
    loss: Any, streams: Mapping[str, Sequence[Mapping[str, Any]]], *, steps: int = 20, lr: float = 1e-3,
    batch_size: int = 8, seed: int = 0, lm: LM | None = None, **settings: Any,
) -> Trained:  # fmt: skip
    """``fit`` on a fresh zoo:base; fails on a loss, gradient or weight that is not finite.

    ``.model`` is the trained model, ``.history`` the log (an entry per step). ``settings`` go on to ``fit``.
    """
    told = dict(learning_rate=lr, max_steps=steps, per_device_train_batch_size=batch_size, seed=seed, logging_steps=1)
    told |= dict(lr_scheduler_type="constant", disable_tqdm=True, logging_nan_inf_filter=False, **settings)
    done = fit(lm or base(), streams, loss=loss, **told)
    losses = [entry["loss"] for entry in done.history if "loss" in entry]
    assert len(losses) == steps and all(map(math.isfinite, losses)), losses
    assert all(math.isfinite(entry["grad_norm"]) for entry in done.history if "grad_norm" in entry)
    assert all(bool(torch.isfinite(p).all()) for p in done.model.parameters())
    return done


@torch.no_grad()
def scored(model: Any, rows: Sequence[Mapping[str, Any]], **how: Any) -> Scored:
    """Rows as one batch under a model (an LM or ``Trained.model``): ``.total()`` [B], ``.entropy()`` and so on."""
    batch = collate(rows, 0)
    model = model.model if isinstance(model, LM) else model
    return Scored.of(model, batch["input_ids"], batch["attention_mask"], labels=batch["labels"], **how)
