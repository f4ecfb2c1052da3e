from __future__ import annotations

import math

import pytest
import torch

from plumbline.lab.principles import information_gained, mutual_information


def test_mutual_information_of_known_tables():
    assert mutual_information(torch.zeros(2, 5)) == pytest.approx(0, abs=1e-7)
    apart = torch.tensor([[50.0, 0, 0], [0, 50.0, 0]])
    assert mutual_information(apart) == pytest.approx(math.log(2), abs=1e-6)
    # p = (3/4, 1/4) and (1/4, 3/4): log 2 minus the entropy of a quarter
    half = torch.tensor([[3.0, 1.0], [1.0, 3.0]]).log()
    wanted = math.log(2) + 0.75 * math.log(0.75) + 0.25 * math.log(0.25)
    assert mutual_information(half) == pytest.approx(wanted, abs=1e-6)


def test_no_loss_gains_nothing():
    gained, entropy = information_gained(lambda x: x.total() * 0, steps=3)
    assert gained == 0 and 2.0 < entropy < math.log(12)
