from __future__ import annotations

import math

import pytest
import torch
from tests.objectives.rl.faulty import likeness, unbounded
from tests.objectives.rl.trl_correction import rollouts, trl_weights

from plumbline.core.errors import InputError
from plumbline.core.scored import Scored
from plumbline.kernels.notes import noted
from plumbline.objectives import token_truncate


def by_hand():
    # ratios 2, 1/2, 8 and a masked one
    old = Scored(torch.tensor([[0.5, 0.25, 0.8, 0.1]]).log(), torch.tensor([[True, True, True, False]]))
    return old, Scored(torch.tensor([[0.25, 0.5, 0.1, 0.9]]).log(), old.mask)


def test_by_hand():
    old, engine = by_hand()
    assert token_truncate(old, engine, upper=3.0).tolist() == [[pytest.approx(x) for x in (2, 0.5, 3, 0)]]
    assert token_truncate(old, engine, upper=3.0, lower=1.0).tolist() == [[pytest.approx(x) for x in (2, 1, 3, 0)]]
    assert token_truncate(old, engine, upper=None, lower=1.0)[0, 2].item() == pytest.approx(8)


def test_self_normalised_weights_have_mean_one_over_scored_tokens():
    old, engine = by_hand()
    found = token_truncate(old, engine, upper=3.0, normalised=True)
    assert found[0, :3].mean().item() == pytest.approx(1) and found[0, 2].item() == pytest.approx(3 / (5.5 / 3))


def test_a_veto_drops_the_row():
    old, engine = by_hand()
    assert token_truncate(old, engine, veto=0.4).any() and not token_truncate(old, engine, veto=0.6).any()


def test_equal_engines_weigh_one_and_no_gradient_passes():
    logps = torch.full((2, 3), -1.0, requires_grad=True)
    found = token_truncate(Scored(logps), Scored(logps))
    assert torch.equal(found, torch.ones(2, 3)) and not found.requires_grad


def test_an_engine_without_a_number_counts_as_one_and_is_counted():
    old, engine = by_hand()
    for odd in (math.nan, -math.inf):
        told = Scored(engine.logps.clone().index_fill_(1, torch.tensor([2]), odd), old.mask)
        with noted() as heard:
            assert token_truncate(old, told)[0, 2].item() == 1
        assert heard["mismatch_unknown"] == [pytest.approx(1 / 3)]


def test_diagnostics_are_of_the_raw_ratios():
    old, engine = by_hand()
    w = [2.0, 0.5, 8.0]
    with noted() as heard:
        token_truncate(old, engine, upper=1.01)
    gap = [math.log(x) for x in w]
    wanted = {
        "abs": sum(map(abs, gap)) / 3, "max": math.log(8), "k1": -sum(gap) / 3,
        "k3": sum(x - 1 - math.log(x) for x in w) / 3, "ppl_ratio": math.exp(-sum(gap) / 3),
        "chi2": sum(x * x for x in w) / 3 - 1, "ess": (sum(w) / 3) ** 2 / (sum(x * x for x in w) / 3),
        "chi2_rows": 63.0, "ess_rows": 1.0, "outside": 1.0, "changed_tokens": 2 / 3, "changed_rows": 1.0,
    }  # fmt: skip
    assert {k: heard[f"mismatch_{k}"][0] for k in wanted} == {k: pytest.approx(v, rel=1e-5) for k, v in wanted.items()}


def test_ratios_stay_finite():
    far = Scored(torch.tensor([[-1.0]])), Scored(torch.tensor([[-500.0]]))
    assert token_truncate(*far, upper=None, lower=0.1).item() == pytest.approx(math.exp(20))


@pytest.mark.parametrize(("low", "high"), [(None, 2.0), (0.5, 3.0), (0.8, None)])
def test_as_trl(low, high):
    old, sampler, mask = rollouts()
    found = token_truncate(Scored(old, mask), Scored(sampler, mask), upper=high, lower=low)
    assert torch.allclose(found[mask], trl_weights("token_truncate", old, sampler, mask, low, high)[mask], atol=1e-5)


def test_what_cannot_be_weighed_is_refused():
    x = Scored(torch.zeros(2, 3))
    with pytest.raises(
        InputError, match=r"token_truncate: x_sampler must be .*engine's log-probabilities.*sampler_logps"
    ):
        token_truncate(x, None)
    with pytest.raises(InputError, match=r"x_sampler must be of shape \(2, 3\), got \(2, 2\)"):
        token_truncate(x, Scored(torch.zeros(2, 2)))
    for bad in ({"upper": None}, {"upper": 1.0, "lower": 2.0}):
        with pytest.raises(InputError, match="lower, upper must be a band"):
            token_truncate(x, x, **bad)


def test_a_short_training_goes_where_it_would_with_an_engine_that_is_right():
    assert likeness(token_truncate) > likeness(unbounded) + 0.1
