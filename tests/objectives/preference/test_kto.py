from __future__ import annotations

import math

import pytest
import torch
from tests.objectives.preference.peer import draw, trl_kto
from tests.objectives.preference.recipes import fine_tuned, gaps, judged
from tests.short_training import base, trained

from plumbline.core.errors import InputError
from plumbline.core.scored import Scored
from plumbline.kernels.notes import noted
from plumbline.objectives import kto

ROLES = ("x", "x_ref", "mismatched", "mismatched_ref")


def of(*values: float) -> Scored:
    return Scored(torch.tensor(values)[:, None])


def batch(desirable: torch.Tensor, seed: int = 0) -> dict:
    return dict(zip(ROLES, draw(*ROLES, seed=seed)), desirable=desirable)


def test_by_hand():
    # log-ratios log 4 and -log 2; mismatched log-ratios log 4 and 0, so z0 = log 2
    x, ref = of(math.log(0.8), math.log(0.2)), of(math.log(0.2), math.log(0.4))
    other, other_ref = of(math.log(0.8), -1.0), of(math.log(0.2), -1.0)
    loss = kto(x, ref, torch.tensor([True, False]), other, other_ref, beta=1.0)
    # good: 1 - sigmoid(log 4 - log 2) = 1/3; bad: 1 - sigmoid(log 2 + log 2) = 1/5
    assert loss.tolist() == pytest.approx([1 / 3, 1 / 5], abs=1e-6)
    weighted = kto(
        x, ref, torch.tensor([True, False]), other, other_ref, beta=1.0, desirable_weight=3.0, undesirable_weight=0.5
    )
    assert weighted.tolist() == pytest.approx([1.0, 0.1], abs=1e-6)


def test_a_negative_mean_counts_as_zero_and_z0_is_noted():
    with noted() as heard:
        loss = kto(of(-1.0), of(-1.0), torch.tensor([True]), of(-9.0), of(-1.0))
        kto(of(-1.0), of(-1.0), torch.tensor([True]), of(-1.0), of(-4.0))
    assert loss.item() == pytest.approx(0.5) and heard["z0"] == [0.0, 3.0]


def test_gradients_reach_x_alone_and_fade_at_both_ends():
    def slope(ratio: float, good: bool) -> float:
        x, other = torch.tensor([[ratio - 50.0]], requires_grad=True), torch.tensor([[-1.0]], requires_grad=True)
        loss = kto(Scored(x), of(-50.0), torch.tensor([good]), Scored(other), of(-2.0), beta=1.0)
        (found,) = torch.autograd.grad(loss.sum(), x, retain_graph=True)
        assert torch.autograd.grad(loss.sum(), other, allow_unused=True) == (None,)
        return found.item()

    assert slope(1.0, True) == pytest.approx(-0.25) and slope(1.0, False) == pytest.approx(0.25)  # at z0 = 1
    assert all(abs(slope(ratio, good)) < 1e-6 for ratio in (-20.0, 22.0) for good in (True, False))


def test_bad_values_are_refused_by_name():
    given = batch(torch.ones(5, dtype=torch.bool))
    with pytest.raises(InputError, match="kto: beta must be a number > 0, got 0"):
        kto(**given, beta=0)
    with pytest.raises(InputError, match="kto: undesirable_weight must be a number >= 0, got -1"):
        kto(**given, undesirable_weight=-1)
    with pytest.raises(InputError, match=r"kto: desirable must be of shape \[5\], one a row, got \(5, 1\)"):
        kto(**given | {"desirable": given["desirable"][:, None]})


@pytest.mark.parametrize("seed", [0, 1, 2, 3])
@pytest.mark.parametrize("good", [(1, 0, 1, 0, 0), (1, 1, 1, 1, 1), (0, 0, 0, 0, 0)])
def test_trl_has_the_same_loss(good, seed):
    pytest.importorskip("trl")
    given, told = batch(torch.tensor(good).bool(), seed), {"desirable_weight": 1.2, "undesirable_weight": 0.7}
    assert kto(**given, beta=0.3, **told).mean().item() == pytest.approx(
        trl_kto(**given, beta=0.3, **told).item(), abs=1e-5
    )


def test_twenty_steps_part_good_and_bad_more_than_fine_tuning():
    before = gaps(base())
    done = trained(kto, judged(), lr=2e-4)
    own, its = (gaps(model) - before for model in (done.model, fine_tuned(2e-4)))
    assert own.mean() > 2 * its.mean() > 0 and (own > 0).float().mean() > 0.6
    assert all(entry["z0"] >= 0 for entry in done.history if "loss" in entry)
