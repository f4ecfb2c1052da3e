"""The law of Gumbel draws with few bits: by integration, in the limits, and beside what real float16 draws give."""

from __future__ import annotations

import math

import pytest
import torch
from scipy import integrate

from plumbline.core.errors import InputError
from plumbline.decode.diffusion import truncated_gumbel
from plumbline.decode.diffusion.draws import UNIFORM_BITS, effective_temperature, gumbel_max, mask_dominated
from plumbline.kernels.seeds import generator


def by_integration(p: list[float], bits: int) -> list[float]:
    """P(i wins the race), E_i / p_i the smallest with E_i = e0 + Exp(1): the definition."""
    e0 = -math.log1p(-(2.0**-bits))

    def wins(i: int) -> float:
        def density(t: float) -> float:
            survive = math.prod(math.exp(-max(0.0, q * t - e0)) for j, q in enumerate(p) if j != i)
            return p[i] * math.exp(-(p[i] * t - e0)) * survive

        marks = sorted(e0 / q for q in p)
        edges = [e0 / p[i], *[m for m in marks if m > e0 / p[i]], max(marks[-1], e0 / p[i]) + 200]
        return sum(integrate.quad(density, a, b, epsabs=1e-13)[0] for a, b in zip(edges[:-1], edges[1:], strict=True))

    return [wins(i) for i in range(len(p))]


@pytest.mark.parametrize("bits", [2, 4, 8])
def test_equals_the_integral_over_winning_times(bits: int) -> None:
    p = [0.05, 0.6, 0.02, 0.33]
    law = truncated_gumbel(torch.tensor(p), bits=bits)
    assert law.tolist() == pytest.approx(by_integration(p, bits), abs=1e-8)
    assert float(law.sum()) == pytest.approx(1, abs=1e-12)


def test_two_tokens_by_hand() -> None:
    # the rarer one enters the race at b = e0 / q: p' = q * exp(-p (e0/q - e0/p))
    p, q, e0 = 0.9, 0.1, -math.log1p(-(2.0**-3))
    law = truncated_gumbel(torch.tensor([q, p]), bits=3)
    assert float(law[0]) == pytest.approx(q * math.exp(-p * (e0 / q - e0 / p)), abs=1e-7)


def test_limits() -> None:
    p = torch.tensor([[0.5, 0.25, 0.25, 0.0], [1.0, 0.0, 0.0, 0.0]], dtype=torch.float64)
    assert torch.allclose(truncated_gumbel(p, bits=53), p, atol=1e-14)
    even = torch.full((7,), 1 / 7)
    assert torch.allclose(truncated_gumbel(even, bits=2), even.double())
    assert torch.allclose(truncated_gumbel(10 * p, bits=3), truncated_gumbel(p, bits=3))


def lattice(p: torch.Tensor, bits: int) -> torch.Tensor:
    """The exact law for uniforms k / 2^bits, k = 0 .. 2^bits - 1, as ``torch.rand`` has them."""
    n = 2**bits
    times = -(torch.arange(n, dtype=torch.float64) / n).log() / p[:, None]  # [V, n]
    later = torch.ceil(n * torch.exp(-times[..., None] * p)) / n  # P(T_j > t), [V, n, V]
    own = torch.eye(len(p), dtype=torch.bool)[:, None]
    return later.masked_fill(own, 1.0).prod(-1).sum(-1) / n


def test_real_float16_uniforms_starve_the_tail_half_as_much_as_the_formula() -> None:
    p, n, bits = mask_dominated(30, 0.99), 400_000, UNIFORM_BITS[torch.float16]
    ids, exact = gumbel_max(torch.float16, generator(0))(p, n), lattice(p, bits)
    error = (exact * (1 - exact) / n).sqrt()
    assert bool(((torch.bincount(ids, minlength=31) / n - exact).abs() < 5 * error + 1e-5).all())
    tail = [float(law[5:].sum()) for law in (truncated_gumbel(p, bits=bits), exact, p)]
    assert tail == sorted(tail) and tail[0] < 0.2 * tail[2] and tail[1] < 0.4 * tail[2]


def test_temperature() -> None:
    p = torch.softmax(torch.randn(40, generator=generator(1), dtype=torch.float64), 0)
    for t in (0.5, 1.0, 3.0):
        assert effective_temperature(torch.softmax(p.log() / t, 0), p) == pytest.approx(t, rel=1e-9)
    step = mask_dominated(2000)
    told = [effective_temperature(truncated_gumbel(step, bits=b)[1:], step[1:]) for b in (11, 16, 24, 53)]
    assert told == sorted(told) and told[0] < 0.7 and told[-1] == pytest.approx(1, abs=1e-6)


def test_refusals() -> None:
    for bad in (torch.tensor([0.5, -0.1]), torch.zeros(3), torch.tensor([torch.nan, 1.0])):
        with pytest.raises(InputError, match="probs"):
            truncated_gumbel(bad)
    with pytest.raises(InputError, match="bits"):
        truncated_gumbel(torch.ones(2), bits=0)
