"""Flips: the identities of the 2x2 table, independence, None answers, tags and refusals."""

from __future__ import annotations

import numpy as np
import pytest

from plumbline.core.errors import InputError
from plumbline.kernels.records import Records
from plumbline.lab.tables import item_table, output_table
from plumbline.measure.shift import update_flips


def records(folder, a, b, said_a=None, said_b=None, tags=()):
    n = len(a)
    arms = {
        arm: {"text": [f"text {arm}{i}" for i in range(n)], "correct": list(map(bool, y)),
              "answer": list(said) if said is not None else [("right" if v else f"wrong {arm}") for v in y]}
        for arm, y, said in (("a", a, said_a), ("b", b, said_b))
    }  # fmt: skip
    return Records.of(folder, items=item_table(n, answer="x", tags=tags), outputs=output_table(arms))


def test_the_table_by_hand(tmp_path):
    a = [1, 1, 1, 1, 1, 1, 0, 0, 0, 0]
    b = [1, 1, 1, 1, 0, 0, 1, 0, 0, 0]
    said_a = ["r"] * 6 + ["p", "p", "p", None]
    said_b = ["r"] * 4 + ["q", "q", "r", "q", "p", None]
    found = update_flips(records(tmp_path, a, b, said_a, said_b, tags=[["x"]] * 5 + [["y"]] * 5)).flat()
    want = {
        "negative_flips": 0.2, "positive_flips": 0.1, "accuracy_base": 0.6, "accuracy_tuned": 0.5,
        "accuracy_change": -0.1, "negative_flips_conditional": 2 / 6, "negative_flips_relative": 0.2 / (0.6 * 0.5),
        "inconsistency_flips": 0.1, "inconsistency_total": 0.4, "flips_mcnemar_p": 1.0,
    }  # fmt: skip
    for name, value in want.items():
        assert found[name].value == pytest.approx(value), name
    assert set(found) == set(update_flips.card.gives)
    kinds = [row["kind"] for row in found["negative_flips"].table]
    assert kinds == ["negative", "negative", "positive", "inconsistent"]
    assert found["negative_flips"].table[0]["base"] == "text a4" and found["negative_flips"].table[0]["id"] == "p4"
    by_tag = {row["tag"]: row for row in found["accuracy_change"].table}
    assert by_tag["x"]["negative_flips"] == pytest.approx(0.2) and by_tag["y"]["positive_flips"] == pytest.approx(0.2)


def test_net_is_positive_less_negative_and_independence_is_one(tmp_path):
    a = np.repeat([1, 0], [60, 40])
    b = np.concatenate([np.repeat([1, 0], [45, 15]), np.repeat([1, 0], [30, 10])])  # 3 in 4 right whatever a
    found = update_flips(records(tmp_path, a, b)).flat()
    net = found["positive_flips"].value - found["negative_flips"].value
    assert found["accuracy_change"].value == pytest.approx(net)
    assert found["negative_flips_relative"].value == pytest.approx(1)


def test_equal_arms_have_no_flips(tmp_path):
    y = np.arange(30) % 3 == 0
    found = update_flips(records(tmp_path, y, y, ["s"] * 30, ["s"] * 30)).flat()
    assert found["negative_flips"].value == found["positive_flips"].value == found["inconsistency_flips"].value == 0
    assert found["accuracy_change"].interval == (0, 0) and found["flips_mcnemar_p"].value == 1
    assert found["negative_flips"].interval[1] > 0 and not found["negative_flips"].table


def test_the_paired_interval_is_narrower_than_an_unpaired_one(tmp_path):
    rng = np.random.default_rng(0)
    a = rng.random(400) < 0.6
    b = np.where(rng.random(400) < 0.02, ~a, a)
    change = update_flips(records(tmp_path, a, b)).flat()["accuracy_change"]
    assert change.interval[1] - change.interval[0] < 0.04  # unpaired: about 2 * 1.96 * 0.035 = 0.14


def test_items_without_a_verdict_are_left_out_and_few_are_refused(tmp_path):
    r = records(tmp_path, [1] * 12, [0] * 12)
    frame = r.table("outputs")
    frame.loc[frame["item"] < 3, "correct"] = None
    found = update_flips(Records.of(tmp_path / "b", items=item_table(12), outputs=frame))
    assert found.value is None and "10 answered questions; there are 9" in found.sentence


def test_an_item_in_one_arm_only_is_an_error(tmp_path):
    frame = records(tmp_path, [1] * 12, [0] * 12).table("outputs").iloc[1:]
    with pytest.raises(InputError, match=r"1 in one arm only: \[0\]"):
        update_flips(Records.of(tmp_path / "b", items=item_table(12), outputs=frame))
