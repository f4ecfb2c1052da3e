"""Votes: groups of equal answers, shares, and the accuracy and calibration of choices."""

from __future__ import annotations

import math

import numpy as np
import pytest

from plumbline.core.errors import InputError
from plumbline.decode.samples import Samples, Selection
from plumbline.decode.search.votes import elect, groups, metrics


def saying(*answers):
    return Samples(tuple(f"text {i}" for i in range(len(answers))), (), answers)


def test_groups_close_equality_transitively():
    def near(a, b):
        return abs(a - b) <= 1

    assert groups([1, None, 5, 2, 1, 3]) == [[0, 4], [2], [3], [5]]
    assert groups([1, None, 5, 3, 1, 2], near) == [[0, 3, 4, 5], [2]]  # 1 and 3 are joined by 2
    assert groups([None, None]) == []


def test_elect_by_hand():
    chosen = elect(saying("a", "b", None, "b", "a"), [1.0, 2.0, 9.0, 3.0, 4.5])
    assert chosen == Selection(4, "a", {"a": 5.5 / 10.5, "b": 5 / 10.5})
    tie = elect(saying("b", "a", "a", "b"), np.ones(4))
    assert tie == Selection(0, "b", {"b": 0.5, "a": 0.5})
    assert elect(saying(None, None), np.ones(2)) == Selection(None, None, {})


def test_elect_names_a_merged_answer_by_its_heaviest_sample():
    chosen = elect(saying("1/2", "0.5", "3"), [1.0, 2.0, 2.5], equal=lambda a, b: {a, b} == {"1/2", "0.5"})
    assert chosen.answer == "0.5" and chosen.index == 1 and set(chosen.confidence) == {"0.5", "3"}


def test_metrics_by_hand():
    chosen = [
        Selection(0, "a", {"a": 0.9, "b": 0.1}), Selection(0, "a", {"a": 0.5, "b": 0.5}), Selection(None, None, {}),
    ]  # fmt: skip
    found = metrics(chosen, ["a", "b", "c"])
    assert found["accuracy"] == pytest.approx((1 + 0.5 + 0) / 3)
    assert found["brier"] == pytest.approx((0.01 + 0 + 0) / 3)
    assert found["ece"] == pytest.approx((0.1 + 0 + 0) / 3)
    assert found["nll"] == pytest.approx((-math.log(0.9) + math.log(2)) / 3, abs=2e-5)
    with pytest.raises(InputError, match="truths must be one for each"):
        metrics(chosen, ["a"])
