"""Conditional beam search: brute force and exact search, transformers' own beams, batches, scores, refusals."""

from __future__ import annotations

import itertools
import math
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import LogitsProcessorList, StoppingCriteria, StoppingCriteriaList

from plumbline.core.errors import InputError
from plumbline.decode.loop import Report
from plumbline.decode.search import conditional_beam_search
from plumbline.decode.search.beams import exact_conditional_mode
from plumbline.decode.search.toys import EOS, LONGEST, Toy, clean_source, contaminated
from plumbline.lab.joint import listed
from plumbline.lab.tiny import ARCHITECTURES, tiny

PROMPTS = torch.tensor([[0, 0, 5, 6, 7], [0, 9, 8, 5, 4], [3, 4, 5, 6, 7]])
MASK = torch.tensor([[0, 0, 1, 1, 1], [0, 1, 1, 1, 1], [1, 1, 1, 1, 1]])


def search(model: Any, ids: Tensor, mask: Tensor | None = None, new: int = 5, **options: Any) -> Any:
    return model.generate(
        ids, attention_mask=mask, custom_generate=conditional_beam_search, max_new_tokens=new, pad_token_id=0, **options
    )


@pytest.mark.parametrize("seed", range(4))
def test_all_beams_exact_search_and_brute_force_agree(seed: int) -> None:
    toy = Toy(seed)
    everything = toy.search(conditional_beam_search, attribute=toy.attribute, beams=400, branch=5)
    found = exact_conditional_mode(
        toy.model, toy.prompt, eos=EOS, max_new_tokens=LONGEST - 1, predicate=lambda body: toy.holds((*body, EOS))
    )
    assert everything[0] == found.tokens == toy.mode() and found.complete
    assert found.logp == pytest.approx(toy.logps[toy.mode()], abs=1e-4)


def test_without_an_attribute_all_beams_find_the_mode() -> None:
    toy = Toy(7)
    for options in ({}, {"attribute": toy.attribute, "weight": 0.0}):
        assert toy.search(conditional_beam_search, beams=400, branch=5, **options)[0] == max(
            toy.logps, key=toy.logps.__getitem__
        )


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_without_an_attribute_equals_transformers_beams(architecture: str) -> None:
    model = tiny(architecture, vocab=41, seed=1).double()
    theirs = model.generate(
        PROMPTS, attention_mask=MASK, num_beams=3, max_new_tokens=6, min_new_tokens=6, do_sample=False,
        length_penalty=0.0, pad_token_id=0,
    )  # fmt: skip
    report = Report()
    ours = search(model, PROMPTS, MASK, new=6, min_new_tokens=6, beams=3, do_sample=False, report=report)
    assert torch.equal(ours, theirs)
    assert report.calls == 6 and report.tokens == 18
    assert report.fed < 3 * 3 * 11, "the cache was not used across reordered beams"


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_a_left_padded_batch_is_its_rows_alone(architecture: str) -> None:
    model = tiny(architecture, vocab=41, seed=2).double()

    def even(ids: Tensor) -> Tensor:
        return torch.log(0.02 + 0.9 * (ids[:, -3:] % 2 == 0).double().mean(1))

    together = search(model, PROMPTS, MASK, attribute=even, beams=4, n_best=2, do_sample=False)
    assert together.shape[0] == 6
    for r, mask in enumerate(MASK):
        alone = search(model, PROMPTS[r : r + 1, mask.bool()], attribute=even, beams=4, n_best=2, do_sample=False)
        width = alone.shape[1] - int(mask.sum())
        assert torch.equal(together[2 * r : 2 * r + 2, 5 : 5 + width], alone[:, int(mask.sum()) :])
        assert bool((together[2 * r : 2 * r + 2, 5 + width :] == 0).all())


def test_both_scores_come_back_and_the_weight_acts() -> None:
    toy = Toy(3)
    for weight in (0.5, 2.0):
        out = search(toy.model, toy.prompt, new=LONGEST, attribute=toy.attribute, weight=weight, beams=50, branch=5,
                     n_best=3, do_sample=False, return_dict_in_generate=True)  # fmt: skip
        assert torch.allclose(out.sequences_scores, out.log_probs + weight * out.attribute_log_probs, atol=1e-5)
        assert bool((out.sequences_scores.diff() <= 0).all())
        y = tuple(out.sequences[0, 2:].tolist())
        y = y[: y.index(EOS) + 1]
        assert float(out.log_probs[0]) == pytest.approx(toy.logps[y], abs=1e-4)


def test_ended_outputs_are_judged_by_the_exact_indicator() -> None:
    toy, seen = Toy(5), []

    def guess(ids: Tensor) -> Tensor:
        seen.extend(y for y in ids[:, 2:].tolist())
        return torch.zeros(len(ids))

    def indicator(ids: Tensor) -> Tensor:
        held = torch.tensor([toy.holds(tuple(y)) for y in ids[:, 2:].tolist()])
        return torch.where(held, 0.0, -torch.inf)

    found = toy.search(conditional_beam_search, attribute=guess, exact=indicator, beams=400, branch=5)
    assert found[0] == toy.mode()
    assert all(EOS not in y and len(y) < LONGEST for y in seen)


def test_rules_and_stopping_criteria_act() -> None:
    class AfterTwo(StoppingCriteria):
        def __call__(self, ids: Tensor, scores: Any, **_: Any) -> Tensor:
            return torch.full((len(ids),), ids.shape[1] >= 7)

    def odd_only(_: Tensor, logits: Tensor) -> Tensor:
        return logits.masked_fill(torch.arange(logits.shape[-1]) % 2 == 0, -torch.inf)

    rules = LogitsProcessorList([odd_only])
    ids = search(tiny("llama", vocab=41), PROMPTS, MASK, do_sample=False, logits_processor=rules,
                 stopping_criteria=StoppingCriteriaList([AfterTwo()]))  # fmt: skip
    assert ids.shape == (3, 7) and bool((ids[:, 5:] % 2 == 1).all())


def test_exact_search_by_length_matches_brute_force() -> None:
    toy = Toy(11)
    for length in range(4):
        wanted = max((y for y in toy.logps if y[-1] == EOS and len(y) == length + 1), key=toy.logps.__getitem__)
        found = exact_conditional_mode(toy.model, toy.prompt, eos=EOS, max_new_tokens=3, length=length)
        assert found.tokens == wanted and found.logp == pytest.approx(toy.logps[wanted], abs=1e-4)
    everything = exact_conditional_mode(toy.model, toy.prompt, eos=EOS, max_new_tokens=3)
    assert everything.nodes < 85, "nothing was pruned"
    none = exact_conditional_mode(toy.model, toy.prompt, eos=EOS, max_new_tokens=2, predicate=lambda _: False)
    assert none.tokens is None and none.logp == -math.inf and none.complete
    capped = exact_conditional_mode(toy.model, toy.prompt, eos=EOS, max_new_tokens=3, length=3, node_cap=2)
    assert not capped.complete and capped.nodes == 2
    with pytest.raises(InputError, match="length"):
        exact_conditional_mode(toy.model, toy.prompt, eos=EOS, max_new_tokens=3, length=4)


def test_exact_search_finds_the_clean_mode_behind_the_empty_one() -> None:
    for seed, factor in itertools.product(range(3), (0.95, 1.05)):
        clean = clean_source(seed)
        top = max(clean, key=clean.__getitem__)
        share = factor * clean[top] / (1 + clean[top])
        after = listed({y: (1 - share) * p for y, p in clean.items()} | {(EOS,): share}, 7, 1)
        mode = exact_conditional_mode(after, torch.tensor([1]), eos=EOS, max_new_tokens=6)
        assert mode.tokens == ((EOS,) if factor > 1 else top)
        spoken = exact_conditional_mode(after, torch.tensor([1]), eos=EOS, max_new_tokens=6, predicate=bool)
        assert spoken.tokens == top and spoken.logp == pytest.approx(math.log((1 - share) * clean[top]), abs=1e-6)
        assert len(contaminated(clean, share, 1)) == 1


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"attribute": lambda ids: torch.zeros(1, 2)}, "attribute"),
        ({"attribute": lambda ids: torch.ones(len(ids))}, "attribute"),
        ({"attribute": lambda ids: torch.full((len(ids),), torch.nan)}, "attribute"),
        ({"beams": 2, "n_best": 3}, "n_best"),
        ({"do_sample": True, "num_return_sequences": 2}, "num_return_sequences"),
        ({"num_beams": 3}, "num_beams"),
        ({"weight": -1.0}, "weight"),
        ({"logits_processor": LogitsProcessorList([lambda _, z: z - torch.inf])}, "leave a token"),
    ],
)
def test_refusals(options: dict[str, Any], says: str) -> None:
    with pytest.raises(InputError, match=says):
        search(tiny("llama", vocab=41), PROMPTS, MASK, **options)
