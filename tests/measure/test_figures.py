"""Figures and words: plotly accepts every figure, JSON takes every finding, text is clipped on one line."""

from __future__ import annotations

import json

import numpy as np
import pytest

from plumbline.core.finding import Finding
from plumbline.kernels.stats import reliability
from plumbline.lab.tables import TableLM, pair_records
from plumbline.measure import figures
from plumbline.measure.shift import divergence, token_shift
from plumbline.measure.text import clip, share, undefined


@pytest.mark.parametrize(
    "figure",
    [
        figures.lines({"a": {"x": [1, 2], "y": [1, np.nan], "low": [0, 0], "high": [1, 1], "note": "nm"}}, "x", "y"),
        figures.bars(["p", "q"], {"s": {"y": np.array([1.0, 2]), "low": [0, 1], "high": [2, 3]}}, "", "", stacked=True),
        figures.histogram([0, 1, 2], {"c": [3, 4]}, "x", yaxis={"type": "log"}),
        figures.reliability_diagram({"BASE": reliability([0.2, 0.9, 0.9], [0, 1, 1])}),
    ],
)  # fmt: skip
def test_plotly_takes_it(figure):
    import plotly.graph_objects as go

    go.Figure(json.loads(json.dumps(figure, allow_nan=False)))
    assert figure["layout"]["paper_bgcolor"] == "rgba(0,0,0,0)"


def test_a_gap_is_a_gap():
    assert figures.lines({"a": {"x": [1], "y": [np.inf]}}, "x", "y")["data"][0]["y"] == [None]


@pytest.mark.parametrize("probe", [token_shift, divergence])
def test_findings_survive_json(tmp_path, probe):
    model = TableLM.random(20, seed=1)
    found = probe(pair_records(tmp_path, model, model.at_temperature(0.5), model.sample(np.arange(20), 10)))
    told = json.dumps(found.to_json(), allow_nan=False)
    assert Finding.from_json(json.loads(told)).flat().keys() == found.flat().keys()


def test_words():
    assert clip("a\n b  c") == "a b c" and clip("x" * 300, 10) == "x" * 9 + "…" and clip(None) == ""
    assert [share(v) for v in (0, 1, 0.1234, 0.00123, None)] == ["0%", "100.0%", "12.3%", "0.12%", "undefined"]
    found = undefined("name", "no text", have=3, need=10, what="texts")
    assert found.value is None and found.sentence == "Not measured: no text. It needs at least 10 texts; there are 3."
