"""Exposure gap: readings by hand, the curve, the limit, independence interval, refusal without text."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from plumbline.kernels.records import Records
from plumbline.kernels.stats import Estimate
from plumbline.lab.tables import TableLM, pair_records, sample_table
from plumbline.measure.shift import exposure_gap
from plumbline.measure.shift.exposure import difference

A = TableLM.random(20, scale=1.0, seed=1)
B = A.at_temperature(0.5)
STARTS = np.arange(24) % 20
IDS = A.sample(STARTS, 30, seed=2)


def records(folder, source="text") -> Records:
    samples = [sample_table(m, arm, STARTS, samples=3, length=25, seed=7) for m, arm in ((A, "a"), (B, "b"))]
    return pair_records(folder, A, B, IDS, source=source, samples=pd.concat(samples, ignore_index=True))


def test_readings_by_hand(tmp_path):
    r = records(tmp_path)
    found, tokens, samples = exposure_gap(r).flat(), r.table("tokens"), r.table("samples")
    for arm, name in (("a", "base"), ("b", "tuned")):
        read = -tokens[f"logp_{arm}"].mean()
        wrote = -np.concatenate(samples[samples["arm"] == arm]["logp"].tolist()).mean()
        assert found[f"nll_teacher_{name}"].value == pytest.approx(read)
        assert found[f"nll_free_{name}"].value == pytest.approx(wrote)
        assert found[f"exposure_gap_{name}"].value == pytest.approx(read - wrote)
    assert found["exposure_gap_tuned"].interval[0] > 0.2 > abs(found["exposure_gap_base"].value)
    assert set(found) == set(exposure_gap.card.gives)
    names = {line["name"] for line in found["exposure_gap_change"].figure["data"] if "name" in line}
    assert names == {"TUNED, reference text", "TUNED, own samples", "BASE, reference text", "BASE, own samples"}


def test_positions_beyond_the_limit_are_left_out(tmp_path):
    r = records(tmp_path)
    tokens = r.table("tokens")
    found = exposure_gap(r, limit=10).flat()
    want = -tokens[tokens["pos_in_response"] < 10]["logp_a"].mean()
    assert found["nll_teacher_base"].value == pytest.approx(want)


def test_the_interval_of_a_difference():
    a = Estimate(3.0, 2.0, 5.0, 0.95, "m", 10, 5)
    b = Estimate(1.0, 0.0, 1.5, 0.95, "m", 20, 4)
    d = difference(a, b)
    assert (d.value, d.low, d.high) == (2.0, pytest.approx(2 - np.hypot(1, 0.5)), pytest.approx(2 + np.hypot(2, 1)))
    assert difference(a, Estimate(1.0, None, None, 0.95, "none", 1, 1)).low is None


def test_without_reference_text(tmp_path):
    found = exposure_gap(records(tmp_path, source="response"))
    assert found.value is None and "--text" in found.sentence
