from __future__ import annotations

import json
import math

import pytest

from plumbline.core.errors import InputError, refuse
from plumbline.core.finding import Finding
from plumbline.kernels.stats import cluster_mean


def test_round_trip_and_flat():
    part = Finding(name="kl_mean", value=0.1, sentence="s", interval=(0.0, 0.2), unit="nats")
    whole = Finding(name="divergence", value=math.inf, sentence="t", parts=(part,), table=({"a": math.nan, "b": "x"},))
    told = json.loads(json.dumps(whole.to_json(), allow_nan=False))
    back = Finding.from_json(told)
    assert back.value is None and back.parts[0] == part and back.table == ({"a": None, "b": "x"},)
    assert list(whole.flat()) == ["divergence", "kl_mean"]


def test_names_are_unique_identifiers():
    part = Finding(name="x", value=0, sentence="s")
    with pytest.raises(InputError, match="two findings are named 'x'"):
        Finding(name="x", value=0, sentence="s", parts=(part,)).flat()
    with pytest.raises(InputError, match="identifier"):
        Finding(name="mean KLD", value=0, sentence="s")


def test_of_takes_value_interval_and_warnings_from_an_estimate():
    found = Finding.of("m", cluster_mean([1.0, 3.0], [0, 0]), sentence="s", unit="nats")
    assert found.value == 2.0 and found.interval is None and found.warnings and found.n_clusters == 1


def test_refusals_are_one_line_however_long_the_value():
    told = str(refuse("npo", "beta", "a number > 0", "line\nbreak " * 100, "pass beta=0.1"))
    assert told.startswith("npo: beta must be a number > 0, got line break") and "\n" not in told and len(told) < 260
