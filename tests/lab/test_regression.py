from __future__ import annotations

from plumbline.lab.regression import mixed_regression


def test_learns_and_depends_on_the_loss():
    squared = mixed_regression(lambda x: -x.total(), seed=0)
    assert squared < 0.1 and squared == mixed_regression(lambda x: -x.total(), seed=0)
    assert mixed_regression(lambda x: -x.total(), seed=0, steps=10) > 10 * squared
    assert mixed_regression(lambda x: 0 * x.total(), seed=0) > 1
