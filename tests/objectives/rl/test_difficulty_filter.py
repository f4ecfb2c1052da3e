from __future__ import annotations

import pytest
import torch

from plumbline.core.errors import InputError
from plumbline.objectives import difficulty_filter


def test_by_hand():
    rates = torch.tensor([0.0, 0.05, 0.5, 0.95, 1.0, 0.04])
    assert difficulty_filter(rates).tolist() == [False, True, True, True, False, False]
    assert difficulty_filter(rates, lowest=0.0, highest=1.0).all()


def test_refusals():
    for bad in (torch.tensor([0.5, 1.5]), torch.tensor([float("nan")]), torch.zeros(2, 2)):
        with pytest.raises(InputError, match=r"difficulty_filter: pass_rates must be \[N\] shares from 0 to 1"):
            difficulty_filter(bad)
    with pytest.raises(InputError, match="lowest must be at most highest"):
        difficulty_filter(torch.tensor([0.5]), lowest=0.9, highest=0.1)
