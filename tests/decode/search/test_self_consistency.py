"""Self-consistency: the majority by hand, its error, and equality of the caller's."""

from __future__ import annotations

import numpy as np
import pytest

from plumbline.core.errors import InputError
from plumbline.decode.samples import Samples, Selection
from plumbline.decode.search import self_consistency
from plumbline.kernels.seeds import rng


def saying(*answers):
    return Samples(tuple(f"text {i}" for i in range(len(answers))), (), answers)


def test_majority_by_hand():
    assert self_consistency(saying(3, 4, 4, None, 4, 3)) == Selection(1, 4, {3: 2 / 5, 4: 3 / 5})
    assert self_consistency(saying(None)) == Selection(None, None, {})
    assert self_consistency(saying("3", "2.0", "2"), equal=lambda a, b: float(a) == float(b)).answer == "2.0"


def test_squared_error_of_its_confidence_is_that_of_a_share():
    p, n, random = 0.3, 25, rng(0, "test")
    said = random.random((4000, n)) < p
    confidence = [self_consistency(saying(*row.tolist())).confidence.get(True, 0.0) for row in said]
    assert np.mean((np.array(confidence) - p) ** 2) == pytest.approx(p * (1 - p) / n, rel=0.08)


def test_refuses_a_comparison_that_cannot_be_called():
    with pytest.raises(InputError, match="self_consistency: equal must be"):
        self_consistency(saying(1), equal="loose")
