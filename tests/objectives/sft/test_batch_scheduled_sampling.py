from __future__ import annotations

import copy
import warnings
from functools import partial

import pytest
import torch
from tests import short_training as short

from plumbline.core.errors import InputError
from plumbline.core.scored import IGNORED
from plumbline.kernels.notes import noted
from plumbline.kernels.seeds import generator
from plumbline.lab.tiny import tiny
from plumbline.models import LM
from plumbline.objectives import batch_scheduled_sampling, nll
from plumbline.train.streams import collate
from plumbline.worlds import instructions

GREEDY = 1e-4  # at this temperature every draw is the likeliest token


def texts(lengths=(9, 12, 7), prompt=3, end=2):
    """Rows of ids that end in eos, with labels on what follows the prompt."""
    g = generator(0, "texts")
    rows = [[*torch.randint(3, 101, (n - 1,), generator=g).tolist(), end] for n in lengths]
    return rows, [[IGNORED] * prompt + row[prompt:] for row in rows]


def padded(rows, value, left):
    width = max(map(len, rows))
    return torch.tensor([[value] * (width - len(r)) + r if left else r + [value] * (width - len(r)) for r in rows])


def batch(left):
    rows, labels = texts()
    return padded(rows, 0, left), padded(labels, IGNORED, left), padded([[1] * len(r) for r in rows], 0, left)


@torch.no_grad()
def by_hand(model, row, labels, own_context):
    """Row by row, token by token, a whole forward pass each."""
    out = list(row)
    for t in range(1, len(row)):
        if labels[t] != IGNORED and row[t] not in (0, 1, 2):
            context = out if own_context else row
            best = model(torch.tensor([context[:t]])).logits[0, -1].argmax().item()
            out[t] = best if best not in (0, 1, 2) else row[t]
    return out


@pytest.mark.parametrize("left", [True, False])
@pytest.mark.parametrize("one_pass", [True, False])
def test_every_token_of_the_answer_by_hand(tiny_model, left, one_pass):
    ids, labels, mask = batch(left)
    given = ids.clone()
    how = {"rate": 1.0, "temperature": GREEDY, "one_pass": one_pass}
    found, own = batch_scheduled_sampling(tiny_model, ids, labels, mask, **how)
    wanted = [by_hand(tiny_model, r, y, not one_pass) for r, y in zip(*texts(), strict=True)]
    assert torch.equal(found, padded(wanted, 0, left)) and torch.equal(ids, given)
    assert own.dtype == torch.bool and bool((own <= (labels != IGNORED)).all())
    assert bool((found == ids)[~own].all())


def test_the_draws_follow_the_model_and_the_temperature():
    model = tiny("llama", vocab=12)
    ids = torch.tensor([[3, 4, 5, 6]]).repeat(6000, 1)
    labels = torch.tensor([[IGNORED, IGNORED, IGNORED, 6]]).repeat(6000, 1)
    with torch.no_grad():
        p = (model(ids[:1, :3]).logits[0, -1] / 1.5).softmax(-1)
    for one_pass in (True, False):
        how = {"rate": 1.0, "temperature": 1.5, "one_pass": one_pass, "keep": []}
        found, own = batch_scheduled_sampling(model, ids, labels, generator=generator(1), **how)
        seen = torch.bincount(found[:, 3], minlength=12) / 6000
        assert own[:, 3].all() and torch.allclose(seen, p, atol=4 * 0.5 / 6000**0.5)


def test_a_later_token_sees_the_earlier_draws_but_not_in_one_pass():
    seen = []

    def model(prefix):
        seen.append(prefix.clone())
        return torch.nn.functional.one_hot(prefix[:, -1] + 1, 30).float() * 1e4

    ids = torch.tensor([[5, 10, 20, 25]])
    labels = torch.tensor([[IGNORED, 10, 20, 25]])
    assert batch_scheduled_sampling(model, ids, labels, rate=1.0)[0].tolist() == [[5, 6, 7, 8]]
    assert [s.tolist()[0] for s in seen] == [[5], [5, 6], [5, 6, 7]]
    assert batch_scheduled_sampling(model, ids, labels, rate=1.0, one_pass=True)[0].tolist() == [[5, 6, 11, 21]]


def test_rate_zero_is_the_batch_itself_and_the_share_is_the_rate():
    ids = torch.randint(3, 101, (400, 20), generator=generator(2))
    labels = ids.clone()
    labels[:, :4] = IGNORED
    model = tiny("llama")
    found, own = batch_scheduled_sampling(model, ids, labels, rate=0.0)
    assert torch.equal(found, ids) and not own.any()
    with noted() as heard:
        _, own = batch_scheduled_sampling(model, ids, labels, rate=0.3, keep=[], one_pass=True, generator=generator(3))
    assert own[:, 4:].float().mean().item() == pytest.approx(0.3, abs=4 * (0.21 / 6400) ** 0.5)
    assert heard["self_generated_tokens"] == [own.sum().item()] and 0.9 < heard["self_generated_differ"][0] <= 1


@pytest.mark.parametrize("one_pass", [True, False])
def test_special_tokens_stay_and_are_never_drawn(one_pass):
    model = tiny("llama", vocab=6)  # half of its draws are special
    ids = torch.tensor([[1, 3, 4, 2, 5, 4, 2]]).repeat(300, 1)
    found, own = batch_scheduled_sampling(model, ids, ids, rate=1.0, one_pass=one_pass, generator=generator(0))
    assert torch.equal(found[:, [0, 3, 6]], ids[:, [0, 3, 6]]) and not own[:, [0, 3, 6]].any()
    assert found[:, [1, 2, 4, 5]].min() > 2 and own[:, [1, 2, 4, 5]].any()


@pytest.mark.parametrize("one_pass", [True, False])
def test_an_lm_and_half_precision_will_do(one_pass):
    ids, labels, mask = batch(True)
    model = tiny("qwen3").bfloat16()

    class Tokenizer:
        eos_token_id = 2

    lm = LM(model, Tokenizer(), "tiny")
    draws = [
        batch_scheduled_sampling(m, ids, labels, mask, rate=0.5, one_pass=one_pass, generator=generator(4))
        for m in (model, lm)
    ]
    assert torch.equal(draws[0][0], draws[1][0]) and draws[0][1].any()


def test_a_copy_that_knows_the_answer_is_told():
    rows = torch.arange(3, 23)[None].repeat(40, 1)

    def model(prefix):
        return torch.nn.functional.one_hot(prefix[:, -1] + 1, 30).float() * 1e4

    with pytest.warns(UserWarning, match="0 of [0-9]+ drawn tokens differ from the answer: this is SFT"):
        batch_scheduled_sampling(model, rows, rows, rate=0.5)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        batch_scheduled_sampling(model, rows[:2], rows[:2], rate=0.5)  # too few to tell


def test_bad_arguments_are_refused():
    ids, labels, mask = batch(False)
    model = tiny("llama")
    with pytest.raises(InputError, match=r"batch_scheduled_sampling: labels must be \[B, L\] like input_ids"):
        batch_scheduled_sampling(model, ids, labels[:, 1:])
    mask[1, 4] = 0
    with pytest.raises(InputError, match="attention_mask must be padding at one end of each row, got a hole in a row"):
        batch_scheduled_sampling(model, ids, labels, mask)
    with pytest.raises(InputError, match="model must be a frozen copy in eval mode, got training mode"):
        batch_scheduled_sampling(model.train(), ids, labels)
    with pytest.raises(InputError, match="temperature must be a number > 0, got 0"):
        batch_scheduled_sampling(model, ids, labels, temperature=0)


def test_zoo_base_stands_its_own_tokens_better():
    """After 20 steps the answer is likelier than after plain SFT where its context holds tokens of the base model."""
    lm = short.base()
    rows = [short.row(lm, t.prompt, t.completion) for t in instructions.tasks(1, 96) if t.kind in ("copy", "reverse")]
    data, held_out = rows[:-12], collate(rows[-12:], 0)
    frozen = copy.deepcopy(lm.model).eval()
    mix = partial(batch_scheduled_sampling, frozen, temperature=3.0)  # at 1 zoo:base is right
    columns = [held_out[name] for name in ("input_ids", "labels", "attention_mask")]
    own = mix(*columns, rate=0.5, generator=generator(7))[0]

    def answer(rate: float) -> float:
        def prepare(model, batch, step):
            x = batch["x"]
            told = (x["input_ids"], x["labels"], x["attention_mask"])
            return {"x": {**x, "input_ids": mix(*told, rate=rate, generator=generator(0, step))[0]}}

        done = short.trained(nll, {"x": data}, prepare=prepare)
        with torch.no_grad():
            x = short.Scored.of(done.model, own, columns[2], labels=columns[1])
        return x.logps.sum().item() / x.mask.sum().item()

    plain, mixed = answer(0.0), answer(0.4)
    assert mixed > plain + 0.5
