from __future__ import annotations

import pytest
import torch

from plumbline.core.errors import InputError
from plumbline.kernels.seeds import generator
from plumbline.objectives.preference.bco_shift import RunningShift, balanced_shift, density_weights


def test_balanced_shift_is_halfway_between_the_classes():
    rewards, up = torch.tensor([4.0, 1.0, 3.0]), torch.tensor([True, False, False])
    assert balanced_shift(rewards, up).item() == pytest.approx(3.0)  # (4 + 2) / 2, not the mean 8/3
    assert balanced_shift(rewards[:1], up[:1]).item() == 4.0 and balanced_shift(rewards[1:], up[1:]).item() == 2.0


def test_balanced_shift_is_detached():
    assert not balanced_shift(torch.ones(2, requires_grad=True), torch.tensor([True, False])).requires_grad


def test_running_shift_is_the_mean_of_all_rewards_seen():
    shift, up = RunningShift(), torch.tensor([True])
    assert shift(torch.tensor([2.0, 4.0]), up).item() == pytest.approx(3.0)
    assert shift(torch.tensor([9.0]), up).item() == pytest.approx(5.0)
    rewards = torch.randn(100, generator=generator(0, "running"))
    for part in rewards.split(7):
        last = shift(part, up)
    assert last.item() == pytest.approx((15 + float(rewards.sum())) / 103, abs=1e-6)


def test_an_evaluation_leaves_the_running_shift_as_it_is():
    shift, up = RunningShift(), torch.tensor([True])
    shift(torch.tensor([2.0]), up)
    with torch.no_grad():
        assert shift(torch.tensor([100.0]), up).item() == 2.0
    assert shift.state_dict() == {"mean": 2.0, "count": 1}


def test_running_shift_goes_on_from_a_checkpoint():
    shift, again, up = RunningShift(), RunningShift(), torch.tensor([True])
    shift(torch.tensor([1.0, 2.0, 6.0]), up)
    again.load_state_dict(shift.state_dict())
    assert again(torch.tensor([7.0]), up).item() == shift(torch.tensor([7.0]), up).item() == 4.0


def test_density_weights_are_the_ratio_of_prompt_densities_on_bad_rows():
    # kind 0 is twice as likely among good prompts, kind 1 half as likely; three times as many good rows change nothing
    good, bad = [0] * 1200 + [1] * 600, [0] * 200 + [1] * 400
    kinds, up = torch.tensor(good + bad), torch.arange(2400) < 1800
    weights = density_weights(torch.eye(2)[kinds], up, per_class=2000)
    assert weights.shape == (2400,) and weights.dtype == torch.float32 and (weights[up] == 1).all()
    assert weights[~up & (kinds == 0)].unique().item() == pytest.approx((2 / 3) / (1 / 3), rel=0.02)
    assert weights[~up & (kinds == 1)].unique().item() == pytest.approx(0.5, rel=0.01)  # also the lower bound


def test_density_weights_are_clamped_and_deterministic():
    points = torch.randn(400, 3, generator=generator(0, "points"))
    up = points[:, 0] > 0  # separable: the odds run off
    weights = density_weights(points, up, per_class=50)
    assert weights.min() == 0.5 and density_weights(20 * points, ~up).min() == 0.5
    assert (
        density_weights(torch.tensor([[0.0], [0.0], [0.0], [5.0]]), torch.tensor([1, 1, 1, 0]).bool(), low=2.0)[3]
        == 2.0
    )
    assert torch.equal(weights, density_weights(points, up, per_class=50))
    mixed = torch.cat([points, points[:1] + 9]), torch.cat([up, torch.tensor([False])])  # bad, but looks good
    assert density_weights(*mixed)[-1] == 10.0


def test_bad_input_is_refused_in_one_sentence():
    with pytest.raises(InputError, match=r"density_weights: embeddings must be \[N, D\] with desirable \[N\]"):
        density_weights(torch.ones(3, 2), torch.ones(4, dtype=torch.bool))
    with pytest.raises(InputError, match="desirable must be both good and bad rows, got 3 good of 3"):
        density_weights(torch.ones(3, 2), torch.ones(3, dtype=torch.bool))
