from __future__ import annotations

import pytest
import torch

from plumbline.core.errors import InputError
from plumbline.objectives.rl.steps import StepPair, first_pit, numbered, step_pairs


def test_tokens_are_numbered_by_the_ends_of_steps():
    ids = torch.tensor([[9, 5, 0, 5, 5, 0, 5, 9], [5, 5, 0, 0, 5, 9, 9, 9]])  # 0 is the newline, 9 is not scored
    mask = ids != 9
    wanted = [[0, 1, 1, 2, 2, 2, 3, 0], [1, 1, 1, 2, 3, 0, 0, 0]]
    assert numbered(ids == 0, mask).tolist() == wanted
    assert numbered(torch.ones_like(mask), mask)[0].tolist() == [0, 1, 2, 3, 4, 5, 6, 0]


def test_the_first_pit():
    assert first_pit([0.5, 0.6, 0.2, 0.1]) == 2
    assert first_pit([0.5, 0.4, 0.4, 0.0]) == 3
    assert first_pit([0.5, 0.3, 0.1]) == 1  # the first of equal drops
    assert first_pit([0.5, 0.5, 0.7]) is None
    assert first_pit([0.5, 0.4, 0.2, 0.1], low=0.3) == 2
    assert first_pit([0.2, 0.1], low=0.3) is None  # it was lost before the first step


def test_pairs_stand_after_the_last_good_step():
    solutions = [["a", "b", "c"], ["d", "e"], ["f"], ["g"]]
    values = [[0.5, 0.6, 0.1, 0.0], [0.5, 0.5, 0.5], [0.5, 0.0], [0.5, 0.0]]
    asked = []

    def better(row, prefix):
        asked.append((row, prefix))
        return {0: "B", 2: None, 3: "g"}[row]

    assert step_pairs(solutions, values, better) == [StepPair(0, 2, ("a",), "B", "b")]
    assert asked == [(0, ("a",)), (2, ()), (3, ())]  # none for the second, which has no wrong step


def test_values_must_start_before_the_first_step():
    with pytest.raises(InputError, match="values must be one more than steps, V_0 first, got 2 for 2 steps in row 0"):
        step_pairs([["a", "b"]], [[0.5, 0.1]], lambda row, prefix: "c")
