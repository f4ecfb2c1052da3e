"""Sums per item and the bounded sketch against numpy."""

from __future__ import annotations

import numpy as np
import pytest

from plumbline.core.errors import InputError
from plumbline.measure import totals
from plumbline.measure.totals import Distribution, ItemSums


def test_sums_do_not_depend_on_the_batches():
    rng = np.random.default_rng(0)
    item, x = rng.integers(0, 9, 500), rng.standard_normal(500)
    whole, parts = ItemSums(), ItemSums()
    whole.add(item, x=x)
    for cut in np.array_split(np.arange(500), 7):
        parts.add(item[cut], x=x[cut])
    parts.add([])
    assert np.allclose(whole.of("x", "n"), parts.of("x", "n"), atol=1e-12)
    assert whole.mean("x").value == pytest.approx(x.mean())
    assert whole.of("x")[3, 0] == pytest.approx(x[item == 3].sum())


def test_a_column_that_comes_late_is_zero_before():
    sums = ItemSums()
    sums.add([0, 5])
    sums.add([1], late=[2.0])
    assert sums.items.tolist() == [0, 1, 5] and sums.of("late", "never").tolist() == [[0, 0], [2, 0], [0, 0]]


@pytest.mark.parametrize("exact", [1 << 20, 100])
def test_quantiles_exact_then_sketched(monkeypatch, exact):
    monkeypatch.setattr(totals, "EXACT", exact)
    x = np.random.default_rng(1).lognormal(-5, 3, 5000) * np.where(np.arange(5000) % 3, 1, -1)
    d = Distribution()
    for part in np.array_split(x, 11):
        d.add(part)
    for q in (0, 0.001, 0.1, 0.5, 0.9, 0.999, 1):
        want = np.quantile(x, q, method="inverted_cdf")
        assert d.quantile(q) == pytest.approx(want, rel=0.004 if exact == 100 else 1e-12, abs=1e-8)
    edges, counts = d.histogram()
    assert counts.sum() == 5000 and (np.diff(edges) > 0).all()


def test_one_value_and_nan():
    d = Distribution()
    assert d.quantile(0.5) is None
    d.add(np.zeros(4))
    assert d.histogram()[1].tolist() == [4.0] and d.quantile(0.99) == 0
    with pytest.raises(InputError, match="NaN"):
        d.add([np.nan])
