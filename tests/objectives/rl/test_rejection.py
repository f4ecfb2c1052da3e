from __future__ import annotations

import pytest
import torch
from tests.objectives.rl.faulty import likeness, unbounded

from plumbline.core.errors import InputError
from plumbline.core.scored import Scored
from plumbline.kernels.notes import noted
from plumbline.objectives import rejection
from plumbline.objectives.rl.correction import geometric, sequence, token


def case():
    mask = torch.tensor([[True, True, True], [True, True, False]])
    old = Scored(torch.tensor([[0.5, 0.5, 0.5], [0.4, 0.3, 1.0]]).log(), mask)
    return old, Scored(torch.tensor([[0.3, 0.3, 0.3], [0.1, 0.9, 0.1]]).log(), mask)  # 5/3 each; 4 and 1/3


@pytest.mark.parametrize(
    ("level", "wanted"),
    [(token, [[1, 1, 1], [0, 0, 0]]), (sequence, [[0], [1]]), (geometric, [[1], [1]])],
)  # products (5/3)^3 = 4.6 and 4/3; geometric means 5/3 and 1.15
def test_by_hand(level, wanted):
    assert rejection(*case(), level=level).tolist() == wanted


def test_the_lower_bound_is_one_over_the_upper():
    old, engine = Scored(torch.tensor([[0.3]]).log()), Scored(torch.tensor([[0.61]]).log())
    assert rejection(old, engine).item() == 0 and rejection(old, engine, upper=2.1).item() == 1
    assert rejection(old, engine, lower=0.4).item() == 1


def test_a_row_that_is_kept_counts_as_unchanged():
    with noted() as heard:
        rejection(*case(), level=sequence)
    assert heard["mismatch_changed_rows"] == [0.5] and heard["mismatch_changed_tokens"] == [pytest.approx(3 / 5)]


def test_a_veto_reaches_a_row_that_its_mean_would_keep():
    assert rejection(*case(), level=geometric, veto=0.4).tolist() == [[1], [0]]


def test_a_level_must_be_a_function():
    with pytest.raises(InputError, match="rejection: level must be"):
        rejection(*case(), level="token")


def test_a_short_training_goes_where_it_would_with_an_engine_that_is_right():
    assert likeness(rejection) > likeness(unbounded) + 0.1
