"""Span shift: bits per byte by hand, the worst span, infinite values, refusal."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from plumbline.kernels.records import Records
from plumbline.lab.tables import item_table
from plumbline.measure.shift import span_shift


def spans(n=40, per=4, seed=0):
    rng = np.random.default_rng(seed)
    size = rng.integers(1, 5, n)
    frame = {
        "item": np.arange(n) // per,
        "byte_start": np.cumsum(size) - size,
        "byte_end": np.cumsum(size),
        "text": "é",
    }
    frame |= {"n_tok_a": 1, "n_tok_b": rng.integers(1, 3, n), "logp_a": -rng.random(n), "logp_b": -2 * rng.random(n)}
    frame |= {f"byte_{k}": rng.random(n) for k in ("kl_ab", "kl_ba", "js", "tv")}
    return pd.DataFrame(frame).assign(one_to_one=lambda f: f["n_tok_b"] == 1, byte_agree=rng.random(n) < 0.5)


def test_by_hand(tmp_path):
    frame = spans()
    frame.loc[13, "logp_b"] = -50.0
    found = span_shift(Records.of(tmp_path, items=item_table(10), spans=frame)).flat()
    total = (frame["byte_end"] - frame["byte_start"]).sum() * np.log(2)
    want = {
        "bits_per_byte_base": -frame["logp_a"].sum() / total, "bits_per_byte_tuned": -frame["logp_b"].sum() / total,
        "bits_per_byte_change": (frame["logp_a"] - frame["logp_b"]).sum() / total,
        "byte_kl_mean": frame["byte_kl_ab"].mean(), "byte_js_mean": frame["byte_js"].mean(),
        "next_byte_agreement": frame["byte_agree"].mean(), "one_to_one_spans": frame["one_to_one"].mean(),
    }  # fmt: skip
    for name, value in want.items():
        assert found[name].value == pytest.approx(value), name
    worst = found["bits_per_byte_change"].table[0]
    assert worst["id"] == "p3" and worst["logp_tuned"] == -50 and worst["loss_per_byte"] > 5
    assert set(found) == set(span_shift.card.gives)


def test_equal_models_and_infinite_spans(tmp_path):
    frame = spans().assign(logp_b=lambda f: f["logp_a"], byte_kl_ab=0.0)
    frame.loc[2, "logp_b"] = -np.inf
    found = span_shift(Records.of(tmp_path, items=item_table(10), spans=frame))
    assert found.value == pytest.approx(0, abs=1e-15) and found.n_items == 39
    assert any("1 spans" in w for w in found.warnings)


def test_too_few(tmp_path):
    found = span_shift(Records.of(tmp_path, items=item_table(2), spans=spans(6)))
    assert found.value is None and "20 spans" in found.sentence
