"""Next-token calibration: exact against the kernels on few distinct confidences; refuses a model's own responses."""

from __future__ import annotations

import numpy as np
import pytest

from plumbline.kernels import stats
from plumbline.lab.tables import TableLM, pair_records
from plumbline.measure.calibration import next_token_calibration

A, B = TableLM.random(20, seed=1), TableLM.random(20, seed=2)
IDS = A.sample(np.arange(30) % 20, 40, seed=3)


def test_against_the_kernels(tmp_path):
    records = pair_records(tmp_path, A, B, IDS, source="text")
    found = next_token_calibration(records).flat()
    t = records.table("tokens")
    for arm, name in (("a", "base"), ("b", "tuned")):
        c, y = t[f"top1_p_{arm}"].to_numpy(), (t[f"argmax_{arm}"] == t["token_id"]).to_numpy()
        want = {
            "ece": stats.ece(c, y), "ece_debiased": stats.ece_debiased(c, y), "brier": stats.brier(c, y),
            "auroc": stats.auroc(c, y), "accuracy": y.mean(), "overconfidence": c.mean() - y.mean(),
        }  # fmt: skip
        for metric, value in want.items():
            assert found[f"next_token_{metric}_{name}"].value == pytest.approx(value, abs=1e-9), metric
        null = stats.ece_null(c, resamples=400)[0]
        assert found[f"next_token_ece_null_{name}"].value == pytest.approx(null, rel=0.15)
    change = found["next_token_ece_tuned"].value - found["next_token_ece_base"].value
    assert found["next_token_ece_change"].value == pytest.approx(change)
    assert set(found) == set(next_token_calibration.card.gives)
    assert found["next_token_ece_change"].n_clusters == 30


def test_many_distinct_confidences_stay_close(tmp_path):
    from plumbline.kernels.records import Records
    from plumbline.lab.tables import log_normalised, token_table

    rng = np.random.default_rng(0)
    la = log_normalised(rng.standard_normal((30, 60, 12)))
    ids = np.concatenate([np.zeros((30, 1), int), (la + rng.gumbel(size=la.shape)).argmax(-1)], 1)
    records = Records.of(tmp_path, tokens=token_table(ids, la, log_normalised(2 * la), source="completion"))
    found, t = next_token_calibration(records).flat(), records.table("tokens")
    c, y = t["top1_p_a"].to_numpy(), (t["argmax_a"] == t["token_id"]).to_numpy()
    assert found["next_token_auroc_base"].value == pytest.approx(stats.auroc(c, y), abs=2e-3)
    assert found["next_token_brier_base"].value == pytest.approx(stats.brier(c, y), abs=1e-9)
    assert found["next_token_ece_base"].value == pytest.approx(stats.ece(c, y), abs=0.01)
    assert found["next_token_overconfidence_tuned"].value > 0.1 > abs(found["next_token_overconfidence_base"].value)


def test_equal_arms_do_not_change(tmp_path):
    found = next_token_calibration(pair_records(tmp_path, A, A, IDS, source="text")).flat()
    assert found["next_token_ece_change"].value == 0 and found["next_token_ece_change"].interval == (0, 0)
    assert found["next_token_auroc_change"].value == 0


def test_own_responses_are_refused(tmp_path):
    found = next_token_calibration(pair_records(tmp_path, A, B, IDS, source="response"))
    assert found.value is None and "reference text" in found.sentence and "--text" in found.sentence
