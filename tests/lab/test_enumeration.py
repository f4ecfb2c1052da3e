from __future__ import annotations

import pytest
import torch

from plumbline.core.errors import InputError
from plumbline.kernels.choice import Chooser
from plumbline.lab.enumeration import exact_distribution


def test_two_dice_and_a_coin() -> None:
    probs = torch.tensor([0.5, 0.0, 0.3, 0.2], dtype=torch.float64)

    def play(chooser: Chooser) -> tuple[int, ...]:
        first = chooser.categorical(probs)
        if chooser.accept(0.25):
            return (first,)
        return (first, chooser.index(2))

    found = exact_distribution(play)
    assert abs(sum(found.values()) - 1) < 1e-15
    assert found[(0,)] == pytest.approx(0.125) and found[(3, 1)] == pytest.approx(0.2 * 0.75 * 0.5)
    assert set(found) == {(a, *b) for a in (0, 2, 3) for b in ((), (0,), (1,))}


def test_without_a_choice_there_is_one_outcome() -> None:
    assert exact_distribution(lambda chooser: "only") == {"only": 1.0}


def test_certain_outcomes_are_not_branched_on() -> None:
    assert exact_distribution(lambda chooser: (chooser.accept(1.0), chooser.accept(0.0))) == {(True, False): 1.0}


def test_refuses_what_it_cannot_replay() -> None:
    with pytest.raises(InputError, match="categorical, accept or index"):
        exact_distribution(lambda chooser: chooser.uniform())
    with pytest.raises(InputError, match="at most 10 random paths"):
        exact_distribution(lambda chooser: tuple(chooser.index(2) for _ in range(5)), limit=10)
