"""The audit: numbers by hand, fair samplers pass, biased and broken ones do not."""

from __future__ import annotations

import pytest
import torch
from scipy import stats
from torch import Tensor

from plumbline.core.errors import InputError
from plumbline.decode.diffusion import audit_sampler
from plumbline.decode.diffusion.draws import categorical, exponential_race, gumbel_max, inverse, mask_dominated
from plumbline.kernels.choice import Chooser
from plumbline.kernels.seeds import generator

P = torch.tensor([0.5, 0.3, 0.19, 0.01], dtype=torch.float64)


def test_chi_square_and_tail_by_hand() -> None:
    counts = [520, 290, 175, 15]
    ids = torch.cat([torch.full((n,), i) for i, n in enumerate(counts)])
    found = audit_sampler(lambda p, n: ids, P, draws=1000)
    expected = [500, 300, 190, 10]
    chi2, p = stats.chisquare(counts, expected)
    assert found.chi2 == pytest.approx(chi2) and found.p == pytest.approx(p)
    assert (found.tail_found, found.tail_expected) == (15, pytest.approx(10))
    assert found.tail_p == pytest.approx(stats.binomtest(15, 1000, 0.01).pvalue)
    wider = audit_sampler(lambda p, n: ids, P, draws=1000, tail=0.3)
    assert (wider.tail_found, wider.tail_expected) == (190, pytest.approx(200))


def test_rare_cells_are_pooled_and_impossible_tokens_fail() -> None:
    p = torch.tensor([0.96, 0.02, 0.012, 0.004, 0.004, 0.0])
    ids = torch.cat([torch.zeros(960), torch.ones(20), torch.full((12,), 2), torch.full((8,), 3)]).long()
    found = audit_sampler(lambda q, n: ids, p, draws=1000)
    assert found.chi2 == pytest.approx(0, abs=1e-6) and found.passes()
    assert not audit_sampler(lambda q, n: torch.where(ids == 2, 5, ids), p, draws=1000).passes()


def test_fair_samplers_pass_and_biased_ones_are_caught() -> None:
    p, g = mask_dominated(30, 0.99), generator(3)

    def multinomial(q: Tensor, n: int) -> Tensor:
        return torch.multinomial(q, n, replacement=True, generator=g)

    def rows(q: Tensor, n: int) -> Tensor:
        return categorical(q.expand(n, -1), g)

    for fair in (inverse(g), multinomial, rows, gumbel_max(torch.float64, g), exponential_race(torch.float64, g)):
        assert audit_sampler(fair, p, draws=50_000).passes()
    for biased in (gumbel_max(torch.bfloat16, g), exponential_race(torch.float16, g)):
        found = audit_sampler(biased, p, draws=50_000)
        assert not found.passes() and found.temperature < 0.97 and found.tail_found < found.tail_expected
    sharper = audit_sampler(lambda q, n: inverse(g)(q**1.25, n), P, draws=50_000)
    assert not sharper.passes() and sharper.temperature == pytest.approx(0.8, abs=0.04)


def test_the_batched_draw_is_the_chooser_s() -> None:
    probs = torch.softmax(torch.randn(6, 50, generator=generator(4)), -1)
    one, other = generator(5), generator(5)
    chooser = Chooser(one)
    assert [chooser.categorical(p) for p in probs.double()] == [int(categorical(p, other)) for p in probs]
    holes = torch.tensor([[0.0, 1.0, 0.0], [1.0, 0.0, 0.0]])
    assert categorical(holes).tolist() == [1, 0]


def test_refusals() -> None:
    with pytest.raises(InputError, match="sampler"):
        audit_sampler(lambda p, n: torch.zeros(3, dtype=torch.long), P)
    with pytest.raises(InputError, match="sampler"):
        audit_sampler(lambda p, n: torch.full((n,), 4), P)
    with pytest.raises(InputError, match="V >= 2"):
        audit_sampler(lambda p, n: torch.zeros(n), P[None])
    with pytest.raises(InputError, match="tail"):
        audit_sampler(lambda p, n: torch.zeros(n), P, tail=1.5)
