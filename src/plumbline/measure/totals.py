"""Streaming sums per item and bounded sketches of a distribution: what probes keep instead of the tokens."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from plumbline.core.errors import refuse
from plumbline.kernels.stats import Estimate, cluster_bootstrap

Floats = NDArray[np.float64]
EXACT = 1 << 20  # values kept as they are before a sketch takes over: 8 MB
BINS = 1 << 14
FINEST, LARGEST = 1e-6, 1e4  # the sketch is linear below FINEST, logarithmic above, to LARGEST


class ItemSums:
    """Named float64 sums per item, grown batch by batch: memory is [items, columns] whatever the number of tokens.

    Items are row numbers >= 0 (the cluster of every interval); the column ``n`` counts the rows added.
    """

    def __init__(self) -> None:
        self.columns: dict[str, Floats] = {"n": np.zeros(0)}

    def add(self, items: ArrayLike, **values: ArrayLike) -> None:
        """Add rows: items [n] and one array [n] (numbers or booleans) per column."""
        index = np.asarray(items, np.int64)
        if not len(index):
            return
        size = int(index.max()) + 1
        for name, value in {"n": None, **values}.items():
            weights = None if value is None else np.asarray(value, np.float64)
            found = np.bincount(index, weights=weights, minlength=size).astype(np.float64)
            known = self.columns.get(name, np.zeros(0))
            if len(known) < len(found):
                known = np.concatenate([known, np.zeros(len(found) - len(known))])
            known[: len(found)] += found
            self.columns[name] = known

    @property
    def items(self) -> NDArray[np.int64]:
        """Items with at least one row [G]."""
        return np.flatnonzero(self.columns["n"])

    def of(self, *names: str, items: NDArray[np.int64] | None = None) -> Floats:
        """The sums [G, len(names)] of ``items`` (default: all that have rows)."""
        rows = self.items if items is None else items
        wide = len(self.columns["n"])
        padded = [np.pad(c, (0, wide - len(c))) for c in (self.columns.get(name, np.zeros(0)) for name in names)]
        return np.stack([c[rows] for c in padded], axis=1)

    def total(self, name: str) -> float:
        return float(self.columns.get(name, np.zeros(0)).sum())

    def mean(self, name: str, weight: str = "n", **options: Any) -> Estimate:
        """The mean of a column over rows as a ratio of sums, with a bootstrap over items."""
        sums = self.of(name, weight)
        return cluster_bootstrap(sums[sums[:, 1] > 0], n_items=int(self.total(weight)), **options)


class Distribution:
    """Quantiles of a stream in bounded memory: exact to a million values, then a histogram of 16,384 fixed bins.

    Bins are even in asinh(x / 1e-6): 0.3% wide relative to the value, on both sides of 0. Minimum and maximum are
    always exact. NaN is refused; infinities count as the largest value.
    """

    def __init__(self) -> None:
        self.n, self.minimum, self.maximum = 0, np.inf, -np.inf
        self._kept: list[Floats] = []
        self._counts: Floats | None = None
        edge = np.arcsinh(LARGEST / FINEST)
        self._edges = np.sinh(np.linspace(-edge, edge, BINS + 1)) * FINEST
        self._sorted: tuple[Floats, Floats] | None = None

    def add(self, values: ArrayLike) -> None:
        x = np.asarray(values, np.float64)
        if not len(x):
            return
        if np.isnan(x).any():
            raise refuse("Distribution.add", "values", "numbers", "NaN", "drop undefined positions first")
        self.n += len(x)
        self.minimum, self.maximum = min(self.minimum, float(x.min())), max(self.maximum, float(x.max()))
        self._sorted = None
        self._kept.append(x)
        if self._counts is not None or self.n > EXACT:
            if self._counts is None:
                self._counts = np.zeros(BINS)
            for part in self._kept:
                bins = np.clip(np.searchsorted(self._edges, part, side="right") - 1, 0, BINS - 1)
                self._counts += np.bincount(bins, minlength=BINS)
            self._kept = []

    def _points(self) -> tuple[Floats, Floats]:
        """Values in order and how many lie at or below each."""
        if self._sorted is None:
            if self._counts is None:
                values = np.sort(np.concatenate(self._kept)) if self._kept else np.zeros(0)
                self._sorted = values, np.arange(1, len(values) + 1, dtype=np.float64)
            else:
                full = self._counts > 0
                middle = (self._edges[1:] + self._edges[:-1])[full] / 2
                self._sorted = np.clip(middle, self.minimum, self.maximum), np.cumsum(self._counts[full])
        return self._sorted

    def quantile(self, q: float) -> float | None:
        r"""The inverse of the distribution function, :math:`\min\{v : F(v) \ge q\}`; None without values."""
        if not self.n:
            return None
        if q <= 0 or q >= 1:
            return self.minimum if q <= 0 else self.maximum
        values, below = self._points()
        at = int(np.searchsorted(below, q * self.n * (1 - 1e-12)))
        return float(values[min(at, len(values) - 1)])

    def edges(self, parts: int) -> Floats:
        """Distinct inner cut points that split the values into about ``parts`` equally heavy pieces."""
        cuts = [self.quantile(i / parts) for i in range(1, parts)]
        return np.unique(np.asarray([c for c in cuts if c is not None and c < self.maximum]))

    def histogram(self, parts: int = 60) -> tuple[Floats, Floats]:
        """Edges [k+1] and counts [k], even in asinh(x / 1e-6) from the minimum to the maximum."""
        values, below = self._points()
        if not len(values):
            return np.zeros(1), np.zeros(0)
        low, high = max(self.minimum, -LARGEST), min(self.maximum, LARGEST)
        if high - low <= 1e-9 * max(1.0, abs(high)):  # one value, as for two equal models
            return np.array([low - FINEST, low + FINEST]), np.array([float(self.n)])
        ends = np.arcsinh(np.array([low, high]) / FINEST)
        edges = np.sinh(np.linspace(ends[0], ends[1] + 1e-9, parts + 1)) * FINEST
        edges = np.unique([low, *edges[1:-1], np.nextafter(high, np.inf)])
        counts = np.diff(below, prepend=0)
        return edges, np.histogram(np.clip(values, low, high), bins=edges, weights=counts)[0]
