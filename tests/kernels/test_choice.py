from __future__ import annotations

import torch

from plumbline.kernels.choice import Chooser, verify_chain
from plumbline.kernels.seeds import generator


def test_categorical_never_draws_what_has_no_probability() -> None:
    chooser = Chooser(generator(0, "choice"))
    probs = torch.tensor([0.0, 0.5, 0.0, 0.5, 0.0])
    drawn = [chooser.categorical(probs) for _ in range(400)]
    assert set(drawn) == {1, 3} and 150 < drawn.count(1) < 250


def test_ends_of_the_unit_interval() -> None:
    class Fixed(Chooser):
        def __init__(self, u: float) -> None:
            self.u = u

        def uniform(self) -> float:
            return self.u

    probs = torch.tensor([0.0, 0.2, 0.8, 0.0])
    assert Fixed(0.0).categorical(probs) == 1
    assert Fixed(1 - 2**-53).categorical(probs) == 2
    assert Fixed(0.2 - 1e-9).categorical(probs) == 1
    assert not Fixed(0.0).accept(0.0) and Fixed(1 - 2**-53).accept(1.0)
    assert [Fixed(u).index(4) for u in (0.0, 0.26, 0.999999)] == [0, 1, 3]


def test_tails_beyond_float32_are_drawn() -> None:
    """A float32 uniform has steps of 6e-8: a class of 1e-9 would never come, or come 60 times too often."""

    class Fixed(Chooser):
        def uniform(self) -> float:
            return 1 - 5e-10

    assert Fixed().categorical(torch.tensor([1 - 1e-9, 1e-9], dtype=torch.float64)) == 1


def test_equal_distributions_accept_everything() -> None:
    p = torch.softmax(torch.randn(3, 5, generator=generator(0)), -1)
    for seed in range(50):
        kept, token = verify_chain(Chooser(generator(seed)), p, p[:2], [1, 4])
        assert kept == 2 and 0 <= token < 5


def test_a_draft_that_the_target_forbids_is_never_kept() -> None:
    p, q = torch.tensor([[0.0, 0.3, 0.7]] * 2), torch.tensor([[1.0, 0.0, 0.0]])
    for seed in range(50):
        kept, token = verify_chain(Chooser(generator(seed)), p, q, [0])
        assert kept == 0 and token in (1, 2)
