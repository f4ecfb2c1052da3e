"""Every rule with a second model, inside ``generate``: equal to asking fresh models about the whole text each time."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import LogitsProcessorList, PreTrainedModel, SuppressTokensLogitsProcessor

from plumbline.core.declare import Card
from plumbline.core.discover import catalogue, get
from plumbline.kernels.cached_lm import CachedLM
from plumbline.kernels.head import position_ids
from plumbline.kernels.peer import Peer
from plumbline.kernels.seeds import forked, generator
from plumbline.lab.tiny import tiny

ARCHITECTURES = ("llama", "qwen3", "gemma3", "gpt2", "gpt_neox")
GIVEN: dict[str, dict[str, Any]] = {"gedi": {"desired": 5, "undesired": 9}}  # what a rule asks for and has no default
RULES = [
    c
    for c in catalogue("decode/contrast", kind="logit_rule")
    if c.roles and {p.name for p in c.params.values() if p.required} <= set(GIVEN.get(c.name, ()))
]
HOW: dict[str, dict[str, Any]] = {
    "greedy": dict(do_sample=False),
    "sampled": dict(do_sample=True, num_return_sequences=2, temperature=0.8, top_k=30),
    "beams": dict(do_sample=False, num_beams=3, num_return_sequences=2),
}
LENGTH = 7


small = functools.cache(lambda architecture, seed=0: tiny(architecture, seed=seed))


def left_padded(rows: list[int], seed: int) -> tuple[Tensor, Tensor]:
    """Random prompts of these lengths and their mask."""
    ids, mask = torch.zeros(len(rows), max(rows), dtype=torch.long), torch.zeros(len(rows), max(rows), dtype=torch.long)
    for b, n in enumerate(rows):
        ids[b, -n:], mask[b, -n:] = torch.randint(3, 101, (n,), generator=generator(seed, b)), 1
    return ids, mask


MAIN, OWN = left_padded([4, LENGTH, 2], 1), left_padded([5, 1, 3], 2)


def scratch(model: PreTrainedModel) -> Callable[..., Tensor]:
    """The model as a function of the whole text: one forward pass, no cache."""

    @torch.no_grad()
    def logits(tokens: Tensor, mask: Tensor | None = None) -> Tensor:
        mask = ((tokens != 0).cumsum(1) > 0).long() if mask is None else mask
        return model(tokens, attention_mask=mask, position_ids=position_ids(mask), use_cache=False).logits[:, -1]

    return logits


def generated(model: PreTrainedModel, *rules: Any, **how: Any) -> Tensor:
    return model.generate(MAIN[0], attention_mask=MAIN[1], logits_processor=LogitsProcessorList(rules), **how)


class Recorded:
    """A rule that notes what it was given and what it gave."""

    def __init__(self, rule: Callable[[Tensor, Tensor], Tensor]) -> None:
        self.rule, self.steps = rule, list[tuple[Tensor, Tensor, Tensor]]()

    def __call__(self, tokens: Tensor, logits: Tensor) -> Tensor:
        out = self.rule(tokens, logits)
        self.steps.append((tokens.clone(), logits.clone(), out.clone()))
        return out


def peers(card: Card, architecture: str, own: bool, wrap: Callable[[PreTrainedModel], Any]) -> list[Peer]:
    """A peer for each role: other models that read what the main one reads, or prompts of their own (one its own)."""
    prompt = {"prompt": OWN[0], "prompt_mask": OWN[1]} if own else {}
    last = len(card.roles) - 1
    return [Peer(wrap(small(architecture, 0 if own and i == last else i + 1)), **prompt) for i in range(last + 1)]


@pytest.mark.parametrize("own", [False, True], ids=["shared", "own-prompts"])
@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("card", RULES, ids=[c.name for c in RULES])
def test_scores_are_those_of_a_recomputation(card: Card, architecture: str, own: bool) -> None:
    model, hyper = small(architecture), GIVEN.get(card.name, {})
    rule = card.fn(*peers(card, architecture, own, lambda m: m), **hyper)  # one rule for all generations
    plain = all(type(peer) is Peer for peer in rule.peers)  # some peers read more than the next token of one text
    for name, how in HOW.items():
        recorded = Recorded(rule)
        with forked(0, name):
            generated(model, recorded, max_new_tokens=6, **how)
        assert len(recorded.steps) >= 4
        for tokens, logits, found in recorded.steps:
            fresh = card.fn(*peers(card, architecture, own, scratch if plain else CachedLM), **hyper)
            fresh.begin(tokens[:, :LENGTH])
            torch.testing.assert_close(found, fresh(tokens, logits), rtol=1e-5, atol=1e-4)


NEUTRAL: dict[str, dict[str, Any]] = {
    "emulated_disalignment": dict(alpha=0.0),
    "contrastive_decoding": dict(alpha=0.0, beta=0.0),
    "proxy_tuning": dict(alpha=0.0),
    "dexperts": dict(alpha=0.0, top_p=1.0),
    "classifier_free_guidance": dict(gamma=1.0),
    "debias_sampling": dict(alpha=0.0, beta=0.0),
    "uld": dict(weight=0.0, ratio=0.0),
}


@pytest.mark.parametrize("name", NEUTRAL)
@pytest.mark.parametrize("how", HOW)
def test_neutral_settings_give_the_base_models_tokens(name: str, how: str) -> None:
    model, card = small("llama"), get(name)
    needed = 2 if name == "proxy_tuning" else 1  # the optional second roles are left out
    rule = card.fn(*[small("llama", i + 1) for i in range(needed)], **NEUTRAL[name])
    found = []
    for rules in ([], [rule]):
        with forked(1, how):
            found.append(generated(model, *rules, max_new_tokens=8, **HOW[how]))
    assert torch.equal(*found)


@pytest.mark.parametrize("card", RULES, ids=[c.name for c in RULES])
def test_a_bf16_main_model_and_a_float32_peer(card: Card) -> None:
    recorded = Recorded(card.fn(*peers(card, "llama", False, lambda m: m), **GIVEN.get(card.name, {})))
    generated(tiny("llama").bfloat16(), recorded, max_new_tokens=5, do_sample=False)
    assert len(recorded.steps) >= 4
    for _, _, scores in recorded.steps:
        assert scores.dtype == torch.float32 and not bool(scores.isnan().any())


@pytest.mark.parametrize("card", RULES, ids=[c.name for c in RULES])
def test_what_an_earlier_rule_forbade_stays_forbidden(card: Card) -> None:
    rule = card.fn(*peers(card, "llama", False, lambda m: m), **GIVEN.get(card.name, {}))
    forbidden = SuppressTokensLogitsProcessor(list(range(3, 60)))
    with forked(2, card.name):
        out = generated(small("llama"), forbidden, rule, max_new_tokens=8, do_sample=True)
    said = out[:, LENGTH:]
    assert not bool(((said >= 3) & (said < 60)).any())
