"""Every count against its definition on ragged random log-probabilities."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import spearmanr

from plumbline.measure.shift.mismatch.rows import Rollout
from plumbline.measure.shift.mismatch.sums import (
    chi_square,
    effective,
    gather,
    length_correlation,
    moment,
    outside_band,
)


def case(rows=40, noise=0.2, shift=0):
    rng = np.random.default_rng(0)
    rollouts, trainer = [], []
    for i in range(rows):
        n = int(rng.integers(3, 30))
        ours = -rng.exponential(1.0, n + 2)
        theirs = ours[1 + shift : n + 1 + shift] + noise * rng.standard_normal(n)
        theirs[rng.random(n) < 0.05] = np.nan
        counted = rng.random(n) < 0.9
        prompt = np.array([i // 2], np.int32)
        rollouts.append(Rollout(f"r{i}", "", prompt, np.arange(n, dtype=np.int32), theirs.astype(np.float32), counted))
        trainer.append(ours[1 : n + 1].astype(np.float32))
    return rollouts, trainer


def gaps(rollouts, trainer):
    pairs = zip(rollouts, trainer, strict=True)
    return [(t.astype(float) - r.sampler)[r.counted & np.isfinite(r.sampler)] for r, t in pairs]


def test_sums_are_those_of_the_definitions():
    rollouts, trainer = case()
    found, rows = gather(rollouts, trainer, worst=7), gaps(rollouts, trainer)
    gap = np.concatenate(rows)
    w, answer = np.exp(gap), np.exp([g.sum() for g in rows])
    assert found.n == len(gap) and found.unknown == sum(int((r.counted & np.isnan(r.sampler)).sum()) for r in rollouts)
    for name, wanted in (("gap", gap), ("abs", abs(gap)), ("w", w), ("k3", w - 1 - gap), ("outside", abs(w - 1) > 0.1)):
        e = found.tokens.mean(name)
        assert e.value == pytest.approx(wanted.mean(), abs=1e-6) and e.n_clusters == 20
        assert e.low < e.value < e.high
    assert moment(found.tokens, chi_square, 0).value == pytest.approx((w**2).mean() - 1)
    assert moment(found.answers, effective, 0).value == pytest.approx(answer.mean() ** 2 / (answer**2).mean())
    assert [s for s, *_ in sorted(found.worst)[::-1]] == pytest.approx(sorted(abs(gap))[::-1][:7])
    size, number, at = max(found.worst)
    assert abs(float(trainer[number][at]) - rollouts[number].sampler[at]) == pytest.approx(size)


def test_rejection_and_length():
    rollouts, trainer = case()
    found, rows = gather(rollouts, trainer, worst=1), gaps(rollouts, trainer)
    out, share = outside_band(found, 2.0, 0)
    wanted = np.array([abs(g.sum()) > np.log(2) for g in rows])
    assert (out == wanted).all() and share.value == pytest.approx(wanted.mean())
    lengths = [r.counted.sum() for r in rollouts]
    assert length_correlation(out, found, 0).value == pytest.approx(spearmanr(wanted, lengths).statistic)
    assert length_correlation(np.ones(40, bool), found, 0) is None


@pytest.mark.parametrize("shift", [-1, 0, 1])
def test_numbers_in_the_wrong_place_show(shift):
    at = gather(*case(noise=0.05, shift=shift), worst=1).shift_correlations()
    assert max(at, key=at.get) == shift and at[shift] > 0.9 and all(abs(at[s]) < 0.3 for s in at if s != shift)


def test_tokens_the_trainer_cannot_score_are_counted_and_left_out():
    rollouts, trainer = case()
    whole = gather(rollouts, trainer, worst=1)
    at = int(np.flatnonzero(rollouts[0].counted & np.isfinite(rollouts[0].sampler))[0])
    trainer[0][at] = -np.inf
    found = gather(rollouts, trainer, worst=1)
    assert found.broken == 1 and found.n == whole.n - 1
