from __future__ import annotations

import math

import pytest
import torch

from plumbline.core.errors import InputError
from plumbline.lab.tilts import divergence, tilted, tilted_to


def test_a_tilt_by_hand():
    p = tilted(torch.tensor([0.0, 1.0]), math.log(3), torch.tensor([0.5, 0.5]))
    assert p.tolist() == pytest.approx([0.25, 0.75])
    assert float(divergence(p)) == pytest.approx(0.25 * math.log(0.5) + 0.75 * math.log(1.5))


def test_the_budget_is_met_and_its_bound_refused():
    utility = torch.tensor([0.3, -1.0, 2.0, 0.0])
    base = torch.tensor([0.1, 0.2, 0.3, 0.4])
    assert float(divergence(tilted_to(utility, 0.5, base), base.double())) == pytest.approx(0.5, abs=1e-9)
    with pytest.raises(InputError, match="tilted_to: kl must be within reach"):
        tilted_to(utility, 5.0, base)
