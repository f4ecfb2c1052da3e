"""Answer calibration: exact limits, the kernels' values, undefined AUROC, refusal."""

from __future__ import annotations

import numpy as np
import pytest

from plumbline.kernels import stats
from plumbline.kernels.records import Records
from plumbline.lab.tables import item_table, output_table
from plumbline.measure.calibration import answer_calibration


def records(folder, conf, correct):
    n = len(conf[0])
    arms = {arm: {"confidence": c, "correct": list(map(bool, y)), "text": [f"t{i}" for i in range(n)]}
            for arm, c, y in zip("ab", conf, correct, strict=True)}  # fmt: skip
    return Records.of(folder, items=item_table(n, answer="x"), outputs=output_table(arms))


def test_against_the_kernels_and_the_worst_errors(tmp_path):
    rng = np.random.default_rng(0)
    conf = rng.random((2, 200))
    correct = rng.random((2, 200)) < conf
    found = answer_calibration(records(tmp_path, conf, correct)).flat()
    for c, y, name in zip(conf, correct, ("base", "tuned"), strict=True):
        want = {"ece": stats.ece(c, y), "brier": stats.brier(c, y), "auroc": stats.auroc(c, y)}
        for metric, value in want.items():
            assert found[f"answer_{metric}_{name}"].value == pytest.approx(value, abs=1e-9), metric
    low, high = found["answer_auroc_tuned"].interval
    assert low < found["answer_auroc_tuned"].value < high
    rows = found["answer_ece_change"].table
    wrong = conf[1][~correct[1]]
    assert rows[0]["tuned_confidence"] == pytest.approx(wrong.max()) and len(rows) == 50
    assert set(found) == set(answer_calibration.card.gives)
    assert found["answer_ece_change"].figure["data"][0]["name"] == "calibrated"


def test_certain_and_right_is_perfect_and_a_constant_base_rate_is_calibrated(tmp_path):
    y = np.arange(40) % 2 == 0
    found = answer_calibration(records(tmp_path, (y.astype(float), np.full(40, 0.5)), (y, y))).flat()
    assert found["answer_brier_base"].value == 0 and found["answer_auroc_base"].value == 1
    assert found["answer_ece_base"].value == 0 and found["answer_ece_tuned"].value == 0
    assert found["answer_auroc_tuned"].value == 0.5 and found["answer_brier_tuned"].value == 0.25


def test_always_right_has_no_auroc_and_says_so(tmp_path):
    c = np.linspace(0.5, 1, 40)
    found = answer_calibration(records(tmp_path, (c, c), (np.ones(40), np.arange(40) % 2))).flat()
    assert found["answer_auroc_base"].value is None and "undefined" in found["answer_auroc_base"].sentence
    assert found["answer_auroc_change"].value is None and found["answer_ece_change"].value is not None


def test_too_few(tmp_path):
    found = answer_calibration(records(tmp_path, np.full((2, 5), 0.5), np.ones((2, 5))))
    assert found.value is None and "30 answered questions" in found.sentence


def test_the_interval_of_an_ece_near_its_noise_holds_the_value_and_covers(tmp_path):
    covered, n = 0, 150
    for k in range(20):
        rng = np.random.default_rng(k)
        conf = rng.random((2, n))
        found = answer_calibration(records(tmp_path / str(k), conf, rng.random((2, n)) < conf)).flat()
        for arm in ("base", "tuned"):
            f = found[f"answer_ece_{arm}"]
            assert 0 <= f.interval[0] <= f.value <= f.interval[1]
        low, high = found["answer_ece_change"].interval
        covered += low <= 0 <= high  # both arms are calibrated: there is no change
    assert covered >= 16
