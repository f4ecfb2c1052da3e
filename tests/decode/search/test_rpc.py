"""RPC: votes by hand, the mixture against scipy, and the paper's exact errors of both votes."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import weibull_min

from plumbline.core.errors import InputError
from plumbline.decode.samples import Samples, Selection
from plumbline.decode.search import rpc
from plumbline.decode.search.pruning import fit, prune, weibull_logpdf
from plumbline.kernels.seeds import rng


def paths(draws, p, answers):
    """Samples of enumerated paths with probabilities p, one token each."""
    return Samples(tuple(f"path {t}" for t in draws), (), tuple(answers[t] for t in draws), np.log(p[draws]),
                   np.ones(len(draws), int))  # fmt: skip


def test_distinct_texts_vote_with_their_probability():
    samples = Samples(("s", "t", "s", "u", "v"), (), ("a", "b", "a", "b", None), np.log([0.25, 0.09, 0.25, 0.04, 0.9]),
                      [2, 2, 2, 2, 1])  # fmt: skip
    # per token: s 0.5 once, t 0.3 and u 0.2, v has no answer
    assert rpc(samples).confidence == pytest.approx({"a": 0.5, "b": 0.5})
    whole = rpc(samples, per_token=False)
    assert whole.confidence == pytest.approx({"a": 0.25 / 0.38, "b": 0.13 / 0.38}) and whole.index == 0
    assert rpc(Samples(("x",), (), (None,), [-1.0], [1])) == Selection(None, None, {})


def test_long_paths_do_not_underflow():
    samples = Samples(("s", "t"), (), ("a", "b"), [-5000.0, -5001.0], [900, 900])
    assert rpc(samples, per_token=False).confidence["a"] == pytest.approx(1 / (1 + np.exp(-1)))


def test_density_is_scipys():
    x = np.geomspace(1e-3, 5, 40)
    for shape, scale in ((0.4, 1.0), (1.0, 0.3), (3.0, 2.0)):
        assert np.allclose(weibull_logpdf(x, shape, scale), weibull_min.logpdf(x, shape, scale=scale))


def test_fit_beats_its_start_and_puts_the_larger_component_first():
    x = np.append(rng(0, "fit").weibull(6.0, 60) * 0.8, rng(1, "fit").weibull(5.0, 60) * 0.3)
    w, k1, l1, k2, l2 = fit(np.sort(x))
    dense = w * weibull_min.pdf(x, k1, scale=l1) + (1 - w) * weibull_min.pdf(x, k2, scale=l2)
    start = 0.5 * weibull_min.pdf(x, 1) + 0.5 * weibull_min.pdf(x, 1.5, scale=2)
    assert np.log(dense).sum() > np.log(start).sum() + 50
    assert l1 == pytest.approx(0.8, abs=0.1) and l2 == pytest.approx(0.3, abs=0.1) and w == pytest.approx(0.5, abs=0.1)


def test_pruning_drops_the_low_component_and_never_the_best():
    random = rng(0, "prune")
    p = np.append(random.beta(60, 12, 20), random.beta(20, 40, 40))
    kept, fitted = prune(p)
    assert fitted and kept[:20].all() and kept[20:].sum() <= 2 and kept[p.argmax()]
    for few in (p[:7], np.full(30, 0.4)):
        assert prune(few) == (pytest.approx(np.ones(len(few), bool)), False)
    for seed in range(20):
        x = rng(seed, "any").random(12) ** 8 + 1e-300
        assert prune(x).kept[x.argmax()]


def test_the_missing_mass_is_the_formulas():
    p, answers, n, random = np.array([0.3, 0.2, 0.1, 0.25, 0.15]), "aaabb", 6, rng(0, "mass")
    missing = []
    for _ in range(3000):
        draws = random.choice(5, n, p=p)
        seen = p[np.unique(draws)].sum()
        missing.append(0.6 - seen * rpc(paths(draws, p, answers), prune=False).confidence.get("a", 0.0))
    assert np.mean(missing) == pytest.approx((p[:3] * (1 - p[:3]) ** n).sum(), rel=0.05)


def squared_error(p, n):
    """E (sum of p over unseen paths)^2, over n draws; p [T] are one answer's paths."""
    both = p[:, None] * p[None] * np.maximum(1 - p[:, None] - p[None], 0) ** n
    np.fill_diagonal(both, 0)
    return (p**2 * (1 - p) ** n).sum() + both.sum()


def test_probability_votes_converge_faster_unless_paths_are_tiny():
    few, many = np.array([0.3, 0.2, 0.1]), np.full(2000, 0.6 / 2000)
    for n in (20, 40, 80, 160):
        assert squared_error(few, n) < 0.6 * 0.4 / n < squared_error(many, n)
    logs = np.log([squared_error(few, n) for n in (40, 80, 120, 160)])
    steps = np.diff(logs) / 40
    assert np.allclose(steps, np.log(0.9), rtol=0.01)  # exponential in n, with the least likely path's rate


def test_refuses_samples_without_probabilities():
    with pytest.raises(InputError, match="rpc: samples.logps must be known"):
        rpc(Samples(("a",), (), ("a",)))
