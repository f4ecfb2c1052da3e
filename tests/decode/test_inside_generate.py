"""Every rule and sampler of the room inside ``generate``: real architectures, left-padded, greedy, sampled, beams."""

from __future__ import annotations

from contextlib import nullcontext
from importlib import import_module

import pytest
import torch
from torch import nn
from transformers import LogitsProcessorList

from plumbline.core.declare import logit_rule, sampler
from plumbline.core.discover import catalogue
from plumbline.core.errors import InputError
from plumbline.kernels.seeds import forked
from plumbline.lab.tiny import tiny

IDS = torch.tensor([[0, 0, 5, 9, 11], [4, 5, 6, 7, 5], [0, 8, 9, 8, 9]])
MASK = (IDS != 0).long()
RULES = [card for card in catalogue("decode") if card.kind is logit_rule]
SAMPLERS = [card for card in catalogue("decode") if card.kind is sampler]
FAMILIES = ("llama", "qwen3", "gemma3", "gpt2", "gpt_neox")


def holds(out: torch.Tensor, new: int) -> bool:
    """The prompt first, no more than was asked for, tokens of the vocabulary."""
    return torch.equal(out[:, :5], IDS) and 5 < out.shape[1] <= 5 + new and int(out.max()) < 101


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("card", RULES, ids=lambda card: card.name)
def test_rules(card, family: str) -> None:
    model = tiny(family)
    peers = [model if role == "model" else tiny(family, seed=i) for i, role in enumerate(card.roles, 1)]
    example = getattr(import_module(card.module), "_example", None)
    rule = card.fn(*peers, **(example(*peers) if example else {}))
    with rule if hasattr(rule, "__enter__") else nullcontext():
        for how in (dict(do_sample=False), dict(do_sample=True, top_p=0.9), dict(num_beams=3, do_sample=False)):
            with forked(0):
                out = model.generate(IDS, attention_mask=MASK, max_new_tokens=5, pad_token_id=0,
                                     logits_processor=LogitsProcessorList([rule]), **how)  # fmt: skip
            assert holds(out, 5), how


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("card", SAMPLERS, ids=lambda card: card.name)
def test_samplers(card, family: str) -> None:
    model = tiny(family)
    needed = {p.name: tiny(family, seed=1) for p in card.params.values() if p.required and p.type is nn.Module}
    how = dict(attention_mask=MASK, max_new_tokens=5, pad_token_id=0, custom_generate=card.fn, **needed)
    for sampled in (False, True):
        with forked(0):
            assert holds(model.generate(IDS, do_sample=sampled, **how), 5)
    with pytest.raises(InputError, match=f"{card.name}: num_beams must be 1"):
        model.generate(IDS, num_beams=3, **how)


@pytest.mark.parametrize("card", SAMPLERS, ids=lambda card: card.name)
def test_samplers_in_bfloat16(card) -> None:
    model = tiny("llama").bfloat16()
    needed = {p.name: tiny("llama", seed=1).bfloat16() for p in card.params.values() if p.required}
    out = model.generate(IDS, attention_mask=MASK, max_new_tokens=5, pad_token_id=0, custom_generate=card.fn,
                         do_sample=False, **needed)  # fmt: skip
    assert holds(out, 5)


def test_the_room_is_not_empty() -> None:
    assert len(RULES) >= 15 and len(SAMPLERS) >= 6
