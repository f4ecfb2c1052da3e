"""Affine calibration by hand; label words, their ids and their probabilities."""

from __future__ import annotations

import math

import pytest
import torch

from plumbline.core.errors import InputError
from plumbline.decode import affine_calibration
from plumbline.decode.contrast.labels import label_ids, label_probs
from plumbline.kernels.seeds import generator
from plumbline.models import load


def test_dividing_by_hand() -> None:
    """Evidence-free (0.8, 0.2): a probability of (0.6, 0.4) becomes (0.75, 2) / 2.75."""
    found = affine_calibration(torch.tensor([0.8, 0.2]), eps=0.0)(torch.tensor([[0.6, 0.4], [0.8, 0.2]]))
    assert found.tolist() == [pytest.approx([3 / 11, 8 / 11]), pytest.approx([0.5, 0.5])]


def test_subtracting_by_hand_keeps_negative_scores() -> None:
    found = affine_calibration(torch.tensor([0.8, 0.2]), diagonal=False, eps=0.0)(torch.tensor([[0.6, 0.4]]))
    assert found.tolist() == [pytest.approx([-0.2, 0.2])]


def test_variants_are_averaged_and_examples_may_have_maps_of_their_own() -> None:
    free = torch.rand(5, 2, 3, generator=generator(0))  # N, M, C; rows need not sum to 1
    probs = torch.softmax(torch.randn(5, 3, generator=generator(1)), -1)
    found = affine_calibration(free)(probs)
    for n in range(5):
        mean = free[n].mean(0)
        q = probs[n] / (mean / mean.sum() + 1e-4)
        torch.testing.assert_close(found[n], q / q.sum())
        torch.testing.assert_close(affine_calibration(free[n])(probs[n : n + 1]), found[n : n + 1])


def test_a_class_never_said_needs_eps() -> None:
    free = torch.tensor([1.0, 0.0])
    assert affine_calibration(free)(torch.tensor([[0.5, 0.5]])).argmax(-1).item() == 1
    with pytest.raises(InputError, match="affine_calibration: eps must be > 0 where a class has probability 0"):
        affine_calibration(free, eps=0.0)
    for wrong in (torch.tensor([-0.1, 1.1]), torch.zeros(2), torch.tensor([math.nan, 1.0])):
        with pytest.raises(InputError, match="affine_calibration: free must be probabilities"):
            affine_calibration(wrong)
    with pytest.raises(InputError, match="affine_calibration: probs must be of 2 classes"):
        affine_calibration(free)(torch.ones(4, 3))


def test_label_probs_sum_over_forms_and_normalise() -> None:
    logits = torch.tensor([[0.0, 1.0, 2.0, 3.0, 50.0]]).log_softmax(-1)
    found = label_probs(logits, [[0, 1], [3]])
    yes, no = math.exp(0) + math.exp(1), math.exp(3)
    assert found[0].tolist() == pytest.approx([yes / (yes + no), no / (yes + no)])
    low = torch.randn(2, 8, generator=generator(2)).bfloat16()
    assert label_probs(low, [[0], [1, 2]]).dtype == torch.float32
    with pytest.raises(InputError, match="shared tokens"):
        label_probs(logits, [[0, 1], [1]])


def test_label_ids_name_words_of_several_tokens() -> None:
    tokenizer = load("zoo:base").tokenizer
    ids = label_ids(tokenizer, [[" a"], [" b", " c"]])
    assert [[tokenizer.decode([i]) for i in forms] for forms in ids] == [
        [" a"],
        sorted([" b", " c"], key=tokenizer.encode),
    ]
    with pytest.raises(InputError, match=r"forms of exactly one token, got \['zzqqxx'\]"):
        label_ids(tokenizer, [[" a"], ["zzqqxx"]])
