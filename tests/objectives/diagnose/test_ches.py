from __future__ import annotations

import json

import pytest
import torch

from plumbline.core.errors import InputError
from plumbline.core.finding import Finding
from plumbline.lab.entangled import random_pairs
from plumbline.lab.tiny import tiny
from plumbline.objectives.diagnose import ches
from plumbline.objectives.diagnose.similarity import keep_lowest, similarity


@pytest.fixture(scope="module")
def model():
    return tiny("llama")


def test_by_hand():
    # S_w = (1, 2), S_l = (3, 0): raw 3 - 5; halved lengths 2 and 1: (0.5, 1).(3, 0) - 1.25
    won, lost = torch.tensor([[[1.0, 0.0], [0.0, 2.0]]]), torch.tensor([[[3.0, 0.0], [9.0, 9.0]]])
    raw, normal = similarity(won, torch.ones(1, 2).bool(), lost, torch.tensor([[True, False]]))
    assert raw.item() == -2 and normal.item() == 0.25


def test_against_the_models_own_states_one_by_one(model):
    pairs = random_pairs(5)
    pairs["chosen"][2]["input_ids"] = pairs["chosen"][2]["input_ids"][:7]
    pairs["chosen"][2]["labels"] = pairs["chosen"][2]["labels"][:7]
    finding = ches(model, pairs, batch_tokens=40)
    for i, row in enumerate(finding.table):
        sums = []
        for name in ("chosen", "rejected"):
            ids = torch.tensor([pairs[name][i]["input_ids"]])
            with torch.no_grad():
                states = model(ids, attention_mask=torch.ones_like(ids), output_hidden_states=True).hidden_states[-1][0]
            sums.append((states[3:-1].sum(0), ids.shape[1] - 4))  # the last of four prompt tokens predicts the first
        (won, n), (lost, m) = sums
        assert row["ches_raw"] == pytest.approx(float(won @ lost - won @ won), rel=1e-4)
        assert row["ches"] == pytest.approx(float(won @ lost / (n * m) - won @ won / n**2), rel=1e-4)
        assert (row["chosen_tokens"], row["rejected_tokens"]) == (n, m)
    assert finding.value == pytest.approx(sum(row["ches"] for row in finding.table) / 5)


def test_padding_changes_nothing(model):
    pairs = random_pairs(6)
    together, apart = ches(model, pairs, batch_tokens=10_000), ches(model, pairs, batch_tokens=1)
    for a, b in zip(together.table, apart.table, strict=True):
        assert a["ches"] == pytest.approx(b["ches"], abs=1e-4) and a["ches_raw"] == pytest.approx(
            b["ches_raw"], abs=1e-2
        )


def test_equal_answers_score_zero_and_others_less(model):
    pairs = random_pairs(3)
    pairs["rejected"][0] = pairs["chosen"][0]
    scores = [row["ches"] for row in ches(model, pairs).table]
    assert scores[0] == pytest.approx(0, abs=1e-5) and max(scores[1:]) < 0


def test_half_precision_is_summed_in_float32():
    ones = torch.ones(1, 258, 1, dtype=torch.bfloat16)  # 257 is no bfloat16
    raw, _ = similarity(ones[:, 1:], torch.ones(1, 257).bool(), ones, torch.ones(1, 258).bool())
    assert raw.item() == 257
    pairs = random_pairs(4)
    wide, half = (ches(tiny("llama").to(dtype), pairs) for dtype in (torch.float32, torch.bfloat16))
    assert half.value == pytest.approx(wide.value, rel=0.05)


def test_the_lowest_are_kept_in_order(model):
    assert keep_lowest([3.0, 1.0, 2.0, 0.0], 0.5) == [1, 3]
    assert keep_lowest(torch.tensor([3.0, 1.0]), 1.0) == [0, 1]
    assert keep_lowest([1.0, 1.0, 1.0], 0.01) == [0]
    finding = ches(model, random_pairs(4))
    kept = keep_lowest(finding, 0.5)
    scores = [row["ches"] for row in finding.table]
    assert len(kept) == 2 and max(scores[i] for i in kept) <= min(s for i, s in enumerate(scores) if i not in kept)
    for wrong in (0, 1.5):
        with pytest.raises(InputError, match="keep_lowest: keep must be a share within"):
            keep_lowest([1.0], wrong)


def test_the_finding(model):
    finding = ches(model, random_pairs(3))
    assert Finding.from_json(json.loads(json.dumps(finding.to_json()))) is not None
    assert set(finding.flat()) == {"ches", "ches_raw"} and "leave the highest" in finding.sentence
    assert ches(model, random_pairs(1)).value is None
    with pytest.raises(InputError, match="ches: pairs must be the streams"):
        ches(model, [])
    with pytest.raises(InputError, match="ches: batch_tokens"):
        ches(model, random_pairs(2), batch_tokens=0)
