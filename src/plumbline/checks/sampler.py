"""Properties of every sampler: the prompt is kept, the length limit and the seed are honoured.

A second model (a required keyword of type ``nn.Module``) is a tiny random one.
"""

from __future__ import annotations

import torch

from plumbline.checks.common import expect, same
from plumbline.core.declare import Card
from plumbline.kernels.seeds import forked
from plumbline.lab.tiny import tiny


def _run(card: Card) -> torch.Tensor:
    model = tiny("llama", vocab=101)
    ids = torch.tensor([[5, 6, 7], [8, 9, 10]])
    needed = [p.name for p in card.params.values() if p.required and p.type is torch.nn.Module]
    models = {name: tiny("llama", vocab=101, seed=i) for i, name in enumerate(needed, 1)}
    with forked(0):
        return model.generate(ids, custom_generate=card.fn, max_new_tokens=6, do_sample=True, pad_token_id=0, **models)


def continues(card: Card) -> None:
    """[B,T] in, [B,T'] out with the prompt first and no more tokens than asked for."""
    out = _run(card)
    expect(out.shape[0] == 2 and 3 < out.shape[1] <= 9, card, f"asked for 6 tokens after 3, got {tuple(out.shape)}")
    expect(out[:, :3].tolist() == [[5, 6, 7], [8, 9, 10]], card, "the prompt was changed")


def seeded(card: Card) -> None:
    """The same seed gives the same tokens."""
    same(card, _run(card), _run(card), "the same seed twice", 0.0)


CHECKS = (continues, seeded)
