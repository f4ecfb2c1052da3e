"""Samples: what they refuse, what a text answers, and that drawn samples carry the model's own numbers."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from plumbline.core.errors import InputError
from plumbline.core.scored import Scored
from plumbline.decode.samples import Samples, Selection, answer_of, certainty, draw
from plumbline.kernels import batching
from plumbline.lab.tiny import ARCHITECTURES, tiny
from plumbline.lab.tiny_tokenizer import tiny_tokenizer
from plumbline.models.lm import LM

PROMPTS = ["The quick brown fox", "Two", "In the morning the sun rises in the east"]


def model(architecture: str = "llama", **config) -> LM:
    tokenizer = tiny_tokenizer(300)
    made = tiny(architecture, vocab=320, bos_token_id=0, eos_token_id=1, pad_token_id=2, **config)
    return LM(made, tokenizer, architecture)  # 20 rows of the head are padding


@pytest.mark.parametrize(
    ("field", "value", "says"),
    [
        ("texts", (), "texts must be one text a sample"),
        ("answers", ("a",), "answers must be one for each of 2 texts"),
        ("answers", ("a", ["b"]), "answers must be hashable"),
        ("ids", ((1,),), "ids must be one for each of 2 texts"),
        ("logps", [-1.0], "logps must be 2 finite numbers"),
        ("logps", [-1.0, math.nan], "logps must be 2 finite numbers"),
        ("logps", [-1.0, 0.5], "logps must be log-probabilities"),
        ("lengths", [1, 0], "lengths must be at least one token"),
        ("rewards", [[1.0, 2.0]], "rewards must be 2 finite numbers"),
        ("self_certainty", [1.0, math.inf], "self_certainty must be 2 finite numbers"),
    ],
)
def test_refuses(field, value, says):
    good = {"texts": ("x", "y"), "ids": (), "answers": ("a", None)}
    with pytest.raises(InputError, match=says) as told:
        Samples(**(good | {field: value}))
    assert "\n" not in str(told.value)


def test_fields_are_copies_that_cannot_be_written():
    logps = np.array([-1.0, -2.0])
    samples = Samples(["x", "y"], ([1, 2], [3]), ["a", None], logps)
    logps[0] = -9
    assert samples.logps.tolist() == [-1.0, -2.0] and samples.lengths.tolist() == [2, 1] and len(samples) == 2
    with pytest.raises(ValueError):
        samples.logps[0] = 0
    assert samples.mean_logps("me").tolist() == [-0.5, -2.0]
    with pytest.raises(InputError, match="me: samples.rewards must be known"):
        samples.known("rewards", "me")
    assert Selection(None, None, {}) == Selection(None, None, {})


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("x = 1,200.50 dollars", "1200.5"), ("so \\boxed{\\frac{1}{2}} of 3", "\\frac{1}{2}"), ("\\boxed{ 007 }", "7"),
        ("\\boxed{1} or \\boxed{2}", "2"), ("\\boxed{}", None), ("it is\n blue \n", "blue"), ("", None), (" \n", None),
        ("-0.0", "0"), ("the v2 engine", "the v2 engine"), ("5-3 = -2.", "-2"), ("1e2", "100"), (".5", "0.5"),
        ("1, 2, 3", "3"), ("\\boxed{open 4", "4"),
    ],
)  # fmt: skip
def test_answer_of(text, answer):
    assert answer_of(text) == answer


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_drawn_numbers_are_the_models_own(architecture):
    lm = model(architecture)
    drawn = draw(lm, PROMPTS, 3, max_new_tokens=7, temperature=0.7, top_p=0.9, seed=5)
    assert [len(s) for s in drawn] == [3, 3, 3] and [s.prompt for s in drawn] == PROMPTS
    for samples in drawn:
        start = lm.tokenizer(samples.prompt).input_ids
        for i, said in enumerate(samples.ids):
            assert samples.texts[i] == lm.tokenizer.decode(said, skip_special_tokens=True)
            assert samples.answers[i] == answer_of(samples.texts[i]) and samples.lengths[i] == len(said)
            ids = torch.tensor([start + list(said)])
            scored = Scored.from_logits(lm.model(ids).logits, ids, torch.arange(ids.shape[1])[None] >= len(start))
            assert float(scored.total().detach()) == pytest.approx(samples.logps[i], abs=1e-4)
            z = scored.logits()[scored.mask][:, : len(lm.tokenizer)].double()
            p = z.softmax(-1)  # the definition, over the columns that the tokenizer knows
            slow = -(p * len(lm.tokenizer)).log().mean(-1).mean()
            assert float(slow.detach()) == pytest.approx(samples.self_certainty[i], abs=1e-4)


def test_drawing_samples_the_models_distribution_whatever_its_checkpoint_says():
    lm = model()
    lm.model.generation_config.repetition_penalty = 9.0
    lm.model.generation_config.temperature = 0.01
    lm.model.generation_config.min_p = 0.9
    ids = lm.tokenizer("Two").input_ids
    p = lm.model(torch.tensor([ids])).logits[0, -1].softmax(-1)
    (samples,) = draw(lm, [ids], 3000, max_new_tokens=1, seed=1)
    seen = np.bincount([row[0] for row in samples.ids], minlength=len(p)) / 3000
    assert lm.model.generation_config.min_p == 0.9
    assert np.abs(seen - p.detach().numpy()).sum() / 2 < 0.12


def test_ends_rules_rewards_and_own_answers():
    lm = model()

    def forbid(tokens, logits):
        keep = torch.full_like(logits, -torch.inf)
        keep[:, [7, 1]] = logits[:, [7, 1]] * 0
        return keep

    (samples,) = draw(lm, ["Two"], 40, max_new_tokens=6, logits_processor=forbid, answer=len,
                      reward=lambda prompt, texts: [len(prompt) + len(t) for t in texts])  # fmt: skip
    assert {t for row in samples.ids for t in row} == {7, 1}
    assert all(row[-1] == 1 or len(row) == 6 for row in samples.ids) and len(set(samples.lengths.tolist())) > 1
    assert samples.answers == tuple(map(len, samples.texts))
    assert samples.rewards.tolist() == [3 + len(t) for t in samples.texts]


def test_seeded_and_halved_when_memory_is_short(monkeypatch):
    lm = model()
    first, again, other = (draw(lm, PROMPTS, 4, max_new_tokens=5, seed=s) for s in (1, 1, 2))
    assert [s.ids for s in first] == [s.ids for s in again] != [s.ids for s in other]
    generate, sizes = lm.model.generate, []

    def scarce(ids, **rest):
        sizes.append(len(ids))
        if len(ids) > 3:
            raise torch.OutOfMemoryError("out of memory")
        return generate(ids, **rest)

    monkeypatch.setattr(lm.model, "generate", scarce)
    drawn = draw(lm, PROMPTS, 4, max_new_tokens=5, seed=1)
    assert max(sizes) == 12 and all(len(s) == 4 for s in drawn)
    assert batching.out_of_memory(torch.OutOfMemoryError())


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"n": 0}, "n must be"), ({"temperature": 0.0}, "temperature must be"), ({"top_p": 0.0}, "top_p must be"),
        ({"temperature": math.nan}, "temperature must be"), ({"top_k": -1}, "top_k must be"),
        ({"max_new_tokens": 0}, "max_new_tokens must be"), ({"max_new_tokens": 64}, "at most 64 tokens together"),
        ({"prompts": "Two"}, "prompts must be a list"), ({"prompts": []}, "prompts must be a list"),
        ({"prompts": ["Two", ""]}, r"prompts\[1\] must be at least one token"),
    ],
)  # fmt: skip
def test_draw_refuses(change, says):
    with pytest.raises(InputError, match=says):
        draw(**({"lm": model(), "prompts": ["Two"], "n": 2, "max_new_tokens": 4} | change))


def test_certainty_in_bf16_and_double():
    z = torch.randn(5, 40, dtype=torch.float64)
    slow = -(40 * z.softmax(-1)).log().mean(-1)
    assert torch.allclose(certainty(z), slow, atol=1e-12) and certainty(z).dtype == torch.float64
    assert certainty(z.bfloat16()).dtype == torch.float32
    assert torch.allclose(certainty(z.bfloat16()).double(), slow, atol=0.05)
