from __future__ import annotations

import math

import pytest
import torch
from tests.short_training import base, row, scored, trained

from plumbline.core.errors import InputError
from plumbline.core.scored import Scored
from plumbline.kernels.notes import noted
from plumbline.kernels.seeds import rng
from plumbline.objectives import lopsided_loss, nll
from plumbline.objectives.sft.segments import segment_by_delimiter
from plumbline.train.streams import collate

LOGPS = torch.tensor([[-1.0, -2.0, -3.0, -4.0], [-5.0, -6.0, -7.0, -8.0]])
MASK = torch.tensor([[True] * 4, [True, True, False, False]])
SEGMENTS = torch.tensor([[1, 2, 2, 2], [1, 1, 0, 0]])


def test_by_hand():
    # L_J = (1 + 5 + 6) / 3 = 4, L_I = (2 + 3 + 4) / 3 = 3, n = 6
    with noted() as notes:
        found = lopsided_loss(Scored(LOGPS, MASK), SEGMENTS, judgment=2.0, interpretation=0.5)
    assert float(found.sum() / 6) == pytest.approx(2 * 4 + 0.5 * 3)
    assert found.tolist() == [[4.0, 2.0, 3.0, 4.0], [20.0, 24.0, 0.0, 0.0]]  # 2 * 6/3 and 0.5 * 6/3 times the losses
    assert notes == {"judgment_nll": [4.0], "interpretation_nll": [3.0]}


def test_weights_of_the_token_shares_are_likelihood():
    x = Scored(LOGPS, MASK)
    assert torch.allclose(lopsided_loss(x, SEGMENTS, judgment=0.5, interpretation=0.5), nll(x))
    ones = torch.ones_like(SEGMENTS)
    assert torch.allclose(lopsided_loss(x, ones), nll(x))  # nothing but judgments
    assert torch.allclose(lopsided_loss(x, 2 * ones), 0.1 * nll(x))


def test_tokens_of_neither_segment_are_not_learned_but_stay_in_the_divisor():
    logps = LOGPS.clone().requires_grad_()
    found = lopsided_loss(Scored(logps), torch.tensor([[1, 1, 0, 0], [1, 2, 2, 0]]))
    (slope,) = torch.autograd.grad(found.sum() / 8, logps)  # the trainer's division
    assert torch.allclose(slope, torch.tensor([[-1 / 3, -1 / 3, 0, 0], [-1 / 3, -0.05, -0.05, 0]]))


def test_counts_are_those_of_all_processes(monkeypatch):
    from plumbline.objectives.sft import _lopsided_loss as module

    whole = lopsided_loss(Scored(LOGPS, MASK), SEGMENTS)
    monkeypatch.setattr(module, "total", lambda x: torch.tensor([6, 3, 3]))
    parts = [lopsided_loss(Scored(LOGPS[i : i + 1], MASK[i : i + 1]), SEGMENTS[i : i + 1]) for i in range(2)]
    assert torch.allclose(torch.cat(parts), whole)


@pytest.mark.parametrize(
    ("segments", "says"),
    [
        (SEGMENTS[:, 1:], r"segments must be of shape \(2, 4\), got \(2, 3\)"),
        (SEGMENTS + 2 * (SEGMENTS == 2), r"segments must be 0, 1 or 2, got \[1, 4\]"),
        (torch.tensor([[1, 2, 2, 2], [2, 1, 0, 0]]), "judgment before interpretation, got row 2"),
    ],
)
def test_refusals(segments, says):
    with pytest.raises(InputError, match=says):
        lopsided_loss(Scored(LOGPS, MASK), segments)


def test_segments_by_delimiter():
    lm = base()
    prompt, answer, why = (
        lm.tokenizer(t, add_special_tokens=False).input_ids for t in ("Q: real?\nA:", " no.", " it is. yes")
    )
    end = [lm.tokenizer.eos_token_id]
    found = segment_by_delimiter(prompt + answer + why + end, lm.tokenizer, ".", start=len(prompt))
    assert found == [0] * len(prompt) + [1] * len(answer) + [2] * (len(why) + 1)
    bare = segment_by_delimiter(prompt + answer[:-1] + end, lm.tokenizer, ".", start=len(prompt))
    assert bare == [0] * len(prompt) + [1] * len(answer)
    assert segment_by_delimiter(answer, lm.tokenizer, "no") == [1] * (len(answer) - 1) + [2]
    with pytest.raises(InputError, match="segment_by_delimiter: delimiter must be some text"):
        segment_by_delimiter(answer, lm.tokenizer, "")
    with pytest.raises(InputError, match="start must be within 0 and"):
        segment_by_delimiter(answer, lm.tokenizer, ".", start=99)


def explained(lm, i, r):
    """A yes or no that can be learned, then 20 random tokens."""
    one, why = row(lm, f"Q: is box {i} heavy?\nA:", " yes." if i % 2 else " no."), r.integers(300, 500, 20).tolist()
    ids = one["input_ids"] + why
    segments = segment_by_delimiter(ids, lm.tokenizer, ".", start=one["labels"].count(-100))
    return {"input_ids": ids, "labels": one["labels"] + why, "segments": segments}


def test_training_learns_the_judgment_sooner_than_likelihood_does():
    lm, r = base(), rng(0, "explained")
    rows = [explained(lm, i, r) for i in range(24)]
    judged = collate(rows[16:], 0)["segments"][:, 1:] == 1
    left = {}
    for loss in (lopsided_loss, nll):
        done = trained(loss, {"x": rows[:16]})
        left[loss] = float(-scored(done.model, rows[16:]).logps[judged].mean())
    assert left[lopsided_loss] < 0.5 * left[nll], left


def test_the_trainer_returns_the_weighted_sum_of_the_two_means():
    lm, r = base(), rng(1, "explained")
    rows = [explained(lm, i, r) for i in range(8)]
    x, segments = scored(lm, rows), collate(rows, 0)["segments"][:, 1:]
    first, second = (float(-x.logps[segments == s].mean()) for s in (1, 2))
    for how in ({}, {"batch_size": 2, "gradient_accumulation_steps": 4}):  # the same shares in every micro-batch
        done = trained(lopsided_loss, {"x": rows}, steps=1, **how)
        assert math.isclose(done.history[0]["loss"], first + 0.1 * second, rel_tol=2e-3)
