from __future__ import annotations

import pytest
import torch

from plumbline.checks import CheckFailed
from plumbline.checks import objective as checks
from plumbline.core.declare import Paper, objective
from plumbline.core.scored import Scored


def card(fn):
    return objective(paper=Paper("A Title", "Doe", 2024), says="It says.", needs=("batch",))(fn).card


def failing(fn):
    found = set()
    for check in checks.CHECKS:
        try:
            check(card(fn))
        except CheckFailed:
            found.add(check.__name__)
    return found


@pytest.fixture(autouse=True)
def example(monkeypatch):
    made = {"features": torch.arange(12.0).view(4, 3) / 7, "classes": torch.tensor([0, 1, 0, 1])}
    monkeypatch.setitem(globals(), "_example", lambda mask: {n: x.clone() for n, x in made.items()})


def test_a_loss_without_scored_roles_is_differentiated_by_its_first_floating_tensor():
    def good(features: torch.Tensor, classes: torch.Tensor) -> torch.Tensor:
        """x = y, [B]."""
        return features.float().square().sum(-1) * classes

    def detached(features: torch.Tensor, classes: torch.Tensor) -> torch.Tensor:
        """x = y, [B]."""
        return (features * 0).sum(-1) + features.detach().sum(-1)

    def half(features: torch.Tensor, classes: torch.Tensor) -> torch.Tensor:
        """x = y, [B]."""
        return features.square().sum(-1)

    assert failing(good) == set()
    assert failing(detached) == {"differentiable", "steady_in_bf16"}
    assert failing(half) == {"steady_in_bf16"}


def test_a_loss_with_nothing_to_differentiate_is_told_so(monkeypatch):
    def nothing(classes: torch.Tensor) -> torch.Tensor:
        """x = y, [B]."""
        return classes

    monkeypatch.setitem(globals(), "_example", lambda mask: {"classes": torch.zeros(4, dtype=torch.long)})
    with pytest.raises(CheckFailed, match="a Scored role, or an _example"):
        checks.pure(card(nothing))


def test_labels_are_padded_with_what_is_not_scored(monkeypatch):
    def counted(x: Scored, marks: torch.Tensor) -> torch.Tensor:
        """x = y, [B]."""
        return x.total() / (marks != -100).sum(-1)

    marks = torch.zeros(4, 6, dtype=torch.long)
    monkeypatch.setitem(globals(), "_example", lambda mask: {"marks": marks})
    assert failing(counted) == {"blind_to_padding"}  # zeros count: these are not labels
    marks[1, -2:] = -100
    assert failing(counted) == set()
