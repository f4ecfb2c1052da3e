"""Branching factor: uniform over k is k by both routes, a deterministic model is 1, sparse windows are cut."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from plumbline.kernels.records import Records
from plumbline.lab.tables import TableLM, item_table, sample_table
from plumbline.measure.shift import branching_factor
from plumbline.measure.shift.samples import branching, generations, window_rows

PROMPTS = np.arange(12) % 5


def uniform(k: int, vocab: int = 8) -> TableLM:
    return TableLM(np.tile(np.where(np.arange(vocab) < k, 0.0, -np.inf), (vocab, 1)))


def records(folder, a: TableLM, b: TableLM, **how) -> Records:
    tables = [sample_table(m, arm, PROMPTS, seed=s, **how) for s, (m, arm) in enumerate(((a, "a"), (b, "b")))]
    return Records.of(folder, items=item_table(12), samples=pd.concat(tables, ignore_index=True))


@pytest.mark.parametrize("length", [20, 80])
def test_uniform_over_k_is_k_by_both_routes(tmp_path, length):
    found = branching_factor(records(tmp_path, uniform(8), uniform(2), samples=4, length=length)).flat()
    for route in ("branching_factor", "branching_mean", "branching_entropy", "branching_nll"):
        assert found[f"{route}_base"].value == pytest.approx(8, abs=1e-6)
        assert found[f"{route}_tuned"].value == pytest.approx(2, abs=1e-6)
    assert found["branching_factor_ratio"].value == pytest.approx(4, abs=1e-6)
    assert set(found) == set(branching_factor.card.gives)


def test_deterministic_is_one_and_the_same_model_has_ratio_near_one(tmp_path):
    found = branching_factor(records(tmp_path, uniform(1), uniform(1), samples=4, length=10))
    assert found.value == 1 and found.flat()["branching_factor_tuned"].value == pytest.approx(1)


def test_against_the_definition_with_ragged_samples(tmp_path):
    rng = np.random.default_rng(0)
    rows = [
        {"item": i, "arm": arm, "sample": s, "ids": [0] * n, "ent": rng.random(n).tolist(),
         "logp": (-rng.random(n)).tolist(), "finish": "eos"}
        for i in range(12) for arm in "ab" for s in range(6) for n in [int(rng.integers(1, 15))]
    ]  # fmt: skip
    r = Records.of(tmp_path, items=item_table(12), samples=pd.DataFrame(rows))
    arm = branching(generations(r, "a"), window=5, asymptotic=50)
    for at, item in enumerate(arm.items):
        own = [row for row in rows if row["item"] == item and row["arm"] == "a"]
        n = min(int(np.ceil(np.quantile([len(o["ent"]) for o in own], 0.95))), sorted(len(o["ent"]) for o in own)[-4])
        steps = [np.mean([o["ent"][t] for o in own if len(o["ent"]) > t]) for t in range(n)]
        assert arm.log_entropy[at] == pytest.approx(np.mean(steps))
        assert arm.log_nll[at] == pytest.approx(-np.mean([np.mean(o["logp"][:n]) for o in own]))
        first = [np.exp(np.mean(o["ent"][:5])) for o in own]
        assert arm.curve[at, 0] == pytest.approx(np.mean(first))


def test_the_curve_stops_where_few_prompts_live(tmp_path):
    base = uniform(4)
    short = sample_table(base, "a", PROMPTS, samples=4, length=10)
    long = sample_table(base, "a", PROMPTS[:3], samples=4, length=30)
    frame = pd.concat([short[short["item"] >= 3], long])
    arm = branching(generations(Records.of(tmp_path, samples=frame), "a"), window=5, asymptotic=50)
    rows = window_rows(arm, window=5, seed=0)
    assert [r["from_token"] for r in rows] == [0, 5] and rows[1]["live"] == 1
    assert arm.live[3] == pytest.approx(12 / 48)


def test_minus_infinity_is_floored_and_counted(tmp_path):
    r = records(tmp_path, uniform(4), uniform(4), samples=4, length=10)
    frame = r.table("samples")
    frame.at[0, "logp"] = np.array([-np.inf, *frame.at[0, "logp"][1:]])
    found = branching_factor(Records.of(tmp_path / "again", items=item_table(12), samples=frame))
    assert any("1 log-probabilities were floored" in w for w in found.warnings)


def test_too_few_prompts(tmp_path):
    few = sample_table(uniform(4), "a", [0, 1], samples=4, length=5)
    found = branching_factor(Records.of(tmp_path, samples=pd.concat([few, few.assign(arm="b")])))
    assert found.value is None and "10 prompts" in found.sentence
