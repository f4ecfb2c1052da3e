"""Continuous speculative decoding: overlaps by quadrature, chains, paths, the aligned form's bias, refusals."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy import integrate, stats
from torch import Tensor

from plumbline.core.errors import InputError
from plumbline.decode.speculate import continuous_speculative
from plumbline.decode.speculate.densities import (
    Verdict,
    aligned_last,
    aligned_log_ratio,
    denoise,
    gaussian,
    normal_logp,
    path_log_ratio,
)
from plumbline.kernels.choice import Chooser
from plumbline.kernels.seeds import generator
from plumbline.lab.enumeration import exact_distribution

F64 = torch.float64
STD_P, STD_Q = torch.tensor([0.9, 0.5], dtype=F64), torch.tensor([1.2, 0.7], dtype=F64)


def mean_p(_: int, x: Tensor) -> Tensor:
    return 0.6 * x + 0.5


def mean_q(_: int, x: Tensor) -> Tensor:
    return 0.9 * x - 0.1


@pytest.mark.parametrize("m", [0.3, 1.0, 2.5])
def test_expected_acceptance_is_the_overlap_by_quadrature(m: float) -> None:
    verdict = gaussian(*(torch.tensor(v, dtype=F64) for v in ([[m], [m]], [[1.0], [1.0]], [[0.0]], [[1.0]])))

    def kept(x: float) -> float:
        return math.exp(min(float(verdict.log_ratio(0, torch.tensor([[x]], dtype=F64))), 0.0)) * stats.norm.pdf(x)

    value = sum(integrate.quad(kept, a, b, epsabs=1e-13)[0] for a, b in ((-12, m / 2), (m / 2, 12)))
    assert value == pytest.approx(2 * (1 - stats.norm.cdf(m / 2)), abs=1e-9)


def test_equal_models_keep_everything_in_one_pass_a_block() -> None:
    g = generator(0)

    def draft(_: Tensor, n: int) -> Tensor:
        return torch.randn(n, 2, generator=g)

    def verify(_: Tensor, drafts: Tensor) -> Verdict:
        n, zero = len(drafts), torch.zeros(len(drafts) + 1, 2)
        return gaussian(zero, zero + 1, zero[:n], zero[:n] + 1, g)

    out = continuous_speculative(draft, verify, torch.zeros(0, 2), length=27, block=8, prefill=0.0)
    assert out.values.shape == (27, 2) and out.kept == out.drafted == 24 and out.calls == 3
    assert out.proposals == out.exhausted == 0
    slow = continuous_speculative(draft, verify, torch.zeros(0, 2), length=20, prefill=1.0)
    assert slow.calls == 20 and slow.drafted == 0


@pytest.mark.parametrize("tries", [1, 3])
def test_on_a_finite_space_the_law_is_exact_but_for_exhausted_residuals(tries: int) -> None:
    p, q = torch.tensor([0.5, 0.3, 0.2], dtype=F64), torch.tensor([0.2, 0.2, 0.6], dtype=F64)

    def value(chooser: Chooser) -> int:
        def sample(_: int, m: int) -> Tensor:
            return torch.tensor([chooser.categorical(p) for _ in range(m)])

        verdict = Verdict(lambda _, x: (p[x] / q[x]).log(), sample)
        out = continuous_speculative(
            lambda *_: torch.tensor([chooser.categorical(q)]), lambda *_: verdict, torch.zeros(0, dtype=torch.long),
            length=1, block=1, prefill=0.0, max_tries=tries, chooser=chooser,
        )  # fmt: skip
        return int(out.values[0])

    tv = float((p - q).clamp(min=0).sum())
    ran_out = tv * (1 - tv) ** tries
    rest, law = (p - q).clamp(min=0) / tv, exact_distribution(value)
    for i in range(3):
        assert law[i] == pytest.approx(float(p[i] + ran_out * (p[i] - rest[i])), abs=1e-12)


def test_an_autoregressive_chain_keeps_its_covariance() -> None:
    g, rows, a = generator(1), 4000, 0.8
    seen, kept = [], 0
    for _ in range(rows):

        def draft(values: Tensor, n: int) -> Tensor:
            x, new = values[-1], []
            for _ in range(n):
                x = 0.5 * x + 1.1 * torch.randn(1, generator=g, dtype=F64)
                new.append(x)
            return torch.stack(new)

        def verify(values: Tensor, drafts: Tensor) -> Verdict:
            last = torch.cat([values[-1:], drafts])
            one = torch.ones_like(last)
            return gaussian(a * last, one, 0.5 * last[:-1], 1.1 * one[:-1], g)

        start = torch.ones(1, 1, dtype=F64)
        out = continuous_speculative(draft, verify, start, length=3, block=3, prefill=0.0, chooser=Chooser(g))
        seen.append(out.values[1:, 0].numpy())
        kept += out.kept
    x = np.stack(seen)
    mean = np.array([a, a**2, a**3])
    cov = np.array([[sum(a ** (i + j - 2 * k) for k in range(min(i, j) + 1)) for j in range(3)] for i in range(3)])
    assert np.all(np.abs(x.mean(0) - mean) < 4 * np.sqrt(np.diag(cov) / rows))
    error = np.sqrt((cov**2 + np.outer(np.diag(cov), np.diag(cov))) / rows)
    assert np.all(np.abs(np.cov(x.T) - cov) < 4 * error)
    assert 0.3 < kept / (3 * rows) < 0.9


def denoised(n: int, exact: bool, seed: int, std_q: Tensor = STD_Q) -> tuple[np.ndarray, float]:
    """n independent places of a two-step denoising head; what came out and the share of drafts kept."""
    g = generator(seed)
    now: dict[str, Tensor] = {}

    def noise(m: int, *shape: int) -> Tensor:
        return torch.randn(m, *shape, generator=g, dtype=F64)

    def walk(m: int) -> Tensor:
        return denoise(noise(m, 1), noise(m, 2, 1), mean_p, STD_P)

    def draft(_: Tensor, m: int) -> Tensor:
        start, now["noise"] = noise(m, 1), noise(m, 2, 1)
        now["path"] = denoise(start, now["noise"], mean_q, std_q)
        return now["path"] if exact else now["path"][:, -1]

    def of_paths(*_: Tensor) -> Verdict:
        return Verdict(lambda _, x: path_log_ratio(x, mean_p, STD_P, mean_q, std_q), lambda _, m: walk(m))

    def aligned(*_: Tensor) -> Verdict:
        def sample(i: int, m: int) -> Tensor:
            if i == 1:
                return walk(m)[:, -1]
            return aligned_last(now["path"], now["noise"], mean_p, STD_P) + STD_P[-1] * noise(m, 1)

        def ratio(_: int, x: Tensor) -> Tensor:
            return aligned_log_ratio(x, now["path"], now["noise"], mean_p, STD_P, mean_q, std_q)

        return Verdict(ratio, sample)

    empty = torch.zeros(0, 3, 1, dtype=F64) if exact else torch.zeros(0, 1, dtype=F64)
    verify, tries = (of_paths, 10_000) if exact else (aligned, 50)
    out = continuous_speculative(draft, verify, empty, length=n, block=1, prefill=0.0, max_tries=tries,
                                 chooser=Chooser(g))  # fmt: skip
    return (out.values[:, -1, 0] if exact else out.values[:, 0]).numpy(), out.kept / out.drafted


def test_paths_are_exact_and_aligned_noise_is_not() -> None:
    variance = 0.6**2 * (0.6**2 + 0.9**2) + 0.5**2
    target = stats.norm(0.6 * 0.5 + 0.5, math.sqrt(variance))
    exact, kept = denoised(1500, True, 0)
    assert stats.kstest(exact, target.cdf).pvalue > 1e-3 and 0.2 < kept < 0.9
    # the steps before the last spread differently: their ratio multiplies the acceptance without belonging there
    lossy, _ = denoised(1500, False, 0, torch.tensor([0.3, 0.7], dtype=F64))
    bias = stats.kstest(lossy, target.cdf)
    assert bias.pvalue < 1e-5 and bias.statistic > 0.05  # 0.088 with 5000 draws
    equal, _ = denoised(1500, False, 0, torch.tensor([0.9, 0.7], dtype=F64))
    assert stats.kstest(equal, target.cdf).pvalue > 1e-3


def test_densities_are_torchs_own() -> None:
    x, mean, std = torch.randn(4, 1024), torch.randn(1024), torch.rand(1024) + 0.1
    own = torch.distributions.Normal(mean.double(), std.double()).log_prob(x.double()).sum(-1)
    assert torch.allclose(normal_logp(x, mean, std), own, rtol=1e-12)


def test_a_path_ratio_by_hand() -> None:
    path = torch.tensor([[[0.0], [1.0], [2.0]]], dtype=F64)
    wanted = 0.0
    for x, y, sp, sq in ((0.0, 1.0, 0.9, 1.2), (1.0, 2.0, 0.5, 0.7)):
        wanted += stats.norm.logpdf(y, 0.6 * x + 0.5, sp) - stats.norm.logpdf(y, 0.9 * x - 0.1, sq)
    assert float(path_log_ratio(path, mean_p, STD_P, mean_q, STD_Q)) == pytest.approx(wanted, abs=1e-12)


def test_a_residual_that_runs_out_of_tries_is_counted_and_still_a_target_draw() -> None:
    verdict = Verdict(lambda _, x: torch.full((len(x),), -1e-12), lambda _, m: torch.full((m, 1), 7.0))

    class Refuses(Chooser):
        def accept(self, probability: float) -> bool:
            return False

    out = continuous_speculative(lambda *_: torch.zeros(1, 1), lambda *_: verdict, torch.zeros(0, 1), length=2,
                                 prefill=0.0, max_tries=100, chooser=Refuses())  # fmt: skip
    assert out.exhausted == 2 and out.proposals == 200 and out.values.flatten().tolist() == [7.0, 7.0]


def test_refusals() -> None:
    for ratio in (math.inf, math.nan):
        verdict = Verdict(lambda _, x, r=ratio: torch.full((len(x),), r), lambda _, m: torch.zeros(m, 1))
        with pytest.raises(InputError, match="log_ratio"):
            continuous_speculative(
                lambda *_: torch.zeros(1, 1), lambda *_, v=verdict: v, torch.zeros(0, 1), length=1, prefill=0.0
            )
    with pytest.raises(InputError, match="prefill"):
        continuous_speculative(lambda *_: None, lambda *_: None, torch.zeros(0, 1), length=1, prefill=1.5)
    one = torch.ones(2, 1)
    with pytest.raises(InputError, match="above 0"):
        gaussian(one, 0 * one, one[:1], one[:1])
    with pytest.raises(InputError, match=r"\[n \+ 1, d\]"):
        gaussian(one, one, one, one)
