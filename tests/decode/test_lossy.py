"""How far each lossy rule takes the next token from the model's own distribution, and that neutral settings do not."""

from __future__ import annotations

from importlib import import_module

import pytest
import torch

from plumbline.core.declare import logit_rule
from plumbline.core.discover import catalogue
from plumbline.kernels.cached_lm import CachedLM
from plumbline.kernels.seeds import generator
from plumbline.lab.tiny import tiny

# mean total variation from the model's own next-token distribution at the paper's defaults, on one tiny random model
# with others for peers: not a property of the method alone, but a number that a changed formula moves
MOVED = {
    "ck_plug": 0.085,
    "classifier_free_guidance": 0.671,
    "contrastive_decoding": 0.447,
    "debias_sampling": 0.497,
    "dexperts": 0.795,
    "emulated_disalignment": 0.168,
    "gedi": 0.966,
    "knn_lm": 0.218,
    "nudging": 0.518,
    "proxy_tuning": 0.521,
    "uld": 0.295,
    "reverse_speculative": 0.559,
    "diverse_gumbel_watermark": 0.888,
    "gumbel_watermark": 0.981,
    "kgw": 0.452,
}
RULES = {card.name: card for card in catalogue("decode") if card.kind is logit_rule}


def total_variation(card) -> float:
    model = tiny("llama")
    peers = [model if role == "model" else tiny("llama", seed=i) for i, role in enumerate(card.roles, 1)]
    example = getattr(import_module(card.module), "_example", None)
    rule = card.fn(*peers, **(example(*peers) if example else {}))
    tokens = torch.randint(3, 101, (32, 6), generator=generator(0, "lossy"))
    own = CachedLM(model, -1)(tokens)
    return float((torch.softmax(rule(tokens, own), -1) - torch.softmax(own, -1)).abs().sum(-1).mean() / 2)


@pytest.mark.parametrize("name", RULES)
def test_is_not_lossless_and_by_how_much(name: str) -> None:
    assert total_variation(RULES[name]) == pytest.approx(MOVED[name], abs=2e-3)
    assert MOVED[name] > 0.02


def test_a_rule_that_changes_nothing_measures_zero() -> None:
    neutral = {
        "classifier_free_guidance": {"gamma": 1.0},
        "emulated_disalignment": {"alpha": 0.0},
        "nudging": {"threshold": 0.0},
    }
    for name, settings in neutral.items():
        card = RULES[name]
        model, other = tiny("llama"), tiny("llama", seed=1)
        tokens = torch.randint(3, 101, (4, 6), generator=generator(0, "lossy"))
        own = CachedLM(model, -1)(tokens)
        moved = torch.softmax(card.fn(other, **settings)(tokens, own), -1)
        assert (moved - torch.softmax(own, -1)).abs().max() < 1e-6
