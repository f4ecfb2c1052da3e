"""Token shift: planted ranks come back exactly, equal models are unshifted, temperature shifts nothing but the KL."""

from __future__ import annotations

import numpy as np
import pytest

from plumbline.core.errors import InputError
from plumbline.kernels.records import Records
from plumbline.lab.tables import TableLM, item_table, log_normalised, output_table, pair_records, token_table
from plumbline.measure.shift import token_shift
from plumbline.measure.shift.positions import bucket, is_stylistic, most_shifted

BASE = TableLM.random(50, seed=1)
STARTS = np.arange(30)


def test_equal_models_are_wholly_unshifted(tmp_path):
    found = token_shift(pair_records(tmp_path, BASE, BASE, BASE.greedy(STARTS, 20))).flat()
    assert found["unshifted"].value == 1 and found["shifted"].value == 0 and found["marginal"].value == 0
    assert found["shifted"].interval[1] > 0  # a proportion at its boundary still has an interval
    assert all(abs(row["kl_tuned_base"]) < 1e-12 for row in found["kl_by_position"].table)
    assert set(found) == set(token_shift.card.gives)


def test_planted_ranks_come_back_as_planted(tmp_path):
    base = log_normalised(np.random.default_rng(0).standard_normal((40, 12, 50)))
    order = np.argsort(-base, -1)
    rank = np.tile([1, 2, 4], 160).reshape(40, 12)  # a third each: first, second, fourth choice of the base
    top, planted = order[..., 0], np.take_along_axis(order, rank[..., None] - 1, -1)[..., 0]
    tuned = base.copy()
    i, j = np.indices(rank.shape)
    tuned[i, j, top], tuned[i, j, planted] = base[i, j, planted], base[i, j, top]
    ids = np.concatenate([np.zeros((40, 1), int), planted], 1)
    tags = [["even"] if k % 2 == 0 else ["odd"] for k in range(40)]
    found = token_shift(Records.of(tmp_path, items=item_table(40, tags=tags), tokens=token_table(ids, base, tuned)))
    flat = found.flat()
    for name in ("unshifted", "marginal", "shifted"):
        assert flat[name].value == pytest.approx(1 / 3, abs=1e-12)
    assert flat["base_rank_within_5"].value == 1
    assert flat["shifted_first_5"].value == pytest.approx(1 / 5) and flat["shifted_later"].value == pytest.approx(3 / 7)
    assert not found.warnings
    assert [row["category"] for row in flat["shifted_by_prompt"].table] == ["even", "odd"]
    labels = [t["label"] for t in found.texts[0]["tokens"]]
    assert labels[:3] == ["unshifted", "marginal", "shifted"] and len(found.texts) == 6
    assert "base rank 4" in found.texts[0]["tokens"][2]["note"]


def test_temperature_leaves_ranks_and_moves_kl(tmp_path):
    tuned = BASE.at_temperature(0.5)
    found = token_shift(pair_records(tmp_path, BASE, tuned, tuned.greedy(STARTS, 20))).flat()
    assert found["unshifted"].value == 1
    assert all(row["kl_tuned_base"] > 0.01 for row in found["kl_by_position"].table)


def test_end_tokens_stand_apart_and_given_text_is_flagged(tmp_path):
    tuned = TableLM(BASE.logps + 2 * TableLM.random(50, seed=2).logps)
    ids = tuned.sample(STARTS, 10, seed=3)  # sampled: not the tuned model's first choice everywhere
    outputs = output_table({arm: {"ids": ids[:, 1:], "text": ["x"] * 30} for arm in "ab"})
    records = pair_records(tmp_path, BASE, tuned, ids, outputs=outputs)
    found = token_shift(records)
    tokens = records.table("tokens")
    end = tokens[tokens["pos_in_response"] == 9]
    assert found.flat()["shifted_end_token"].value == pytest.approx((end["rank_a"] > 3).mean())
    assert found.flat()["shifted_end_token"].n_items == 30
    assert found.flat()["shifted_argmax"].value == pytest.approx((tokens["rank_a_of_argmax_b"] > 3).mean())
    assert any("first choice" in w for w in found.warnings)


def test_log_odds_against_the_formula(tmp_path):
    records = Records.of(tmp_path, vocab=item_table(1))
    records._vocab = {}
    tokens = np.array([[40.0, 30, 10], [100, 10, 90], [5, 5, 0]])
    (row,) = most_shifted(records, tokens, minimum=10, prior=500)
    n_s, n_u, a = 45, 100, 500 * 40 / 145
    delta = np.log((30 + a) / (n_s + 500 - 30 - a)) - np.log((10 + a) / (n_u + 500 - 10 - a))
    assert row["log_odds"] == pytest.approx(delta) and row["token_id"] == 0
    assert row["z"] == pytest.approx(delta / np.sqrt(1 / (30 + a) + 1 / (10 + a)))


def test_helpers_and_refusals(tmp_path):
    assert bucket([0, 4, 5, 9, 10, 49, 50, 100, 900]).tolist() == [0, 4, 5, 5, 6, 7, 8, 9, 9]
    assert is_stylistic(" Sure") and is_stylistic("\n\n") and not is_stylistic(" Paris")
    few = token_shift(pair_records(tmp_path, BASE, BASE, BASE.greedy([1], 5)))
    assert few.value is None and "20 positions" in few.sentence
    text_only = token_shift(pair_records(tmp_path / "t", BASE, BASE, BASE.greedy(STARTS, 9), source="text"))
    assert text_only.value is None
    with pytest.raises(InputError, match="marginal"):
        token_shift(pair_records(tmp_path / "b", BASE, BASE, BASE.greedy(STARTS, 9)), marginal=0)
