"""An inverted file over the keys of a datastore: k-means cells, of which a search reads the nearest few."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from plumbline.kernels.files import atomic
from plumbline.kernels.seeds import derive, rng

BLOCK = 1 << 16  # keys that are assigned to cells at once
FITTED = 128  # keys a cell that k-means learns from


class Block(NamedTuple):
    """Keys [n, D] with their rows [n], and the queries that are compared with them (a slice or their numbers)."""

    keys: Any
    rows: Tensor
    queries: Any


class Cells:
    """The keys once more, sorted by cell.

    Attributes:
        centres: [C, D] float32. starts: [C + 1], cell c holds keys ``starts[c]:starts[c + 1]``.
        order: [M] the datastore's row of each. keys: [M, D], mapped from disk where the datastore is.
    """

    def __init__(self, centres: Any, starts: Any, order: Any, keys: Any) -> None:
        self.centres, self.starts, self.order, self.keys = centres, starts, order, keys

    def __len__(self) -> int:
        return len(self.centres)

    @classmethod
    def build(cls, keys: Any, count: int, seed: int, folder: Path | None) -> Cells:
        """Learn ``count`` centres from a sample of keys [M, D] and sort all of them; written to ``folder`` if given."""
        from sklearn.cluster import MiniBatchKMeans

        size = min(len(keys), FITTED * count)
        sample = np.sort(rng(seed, "cells").choice(len(keys), size, replace=False))
        means = MiniBatchKMeans(count, random_state=derive(seed, "k-means") % (1 << 32), n_init=1, batch_size=4096)
        centres = means.fit(keys[sample].astype(np.float32)).cluster_centers_.astype(np.float32)
        of = np.concatenate(
            [_nearest(widened(keys[i : i + BLOCK]), centres, 1)[:, 0].numpy() for i in range(0, len(keys), BLOCK)]
        )
        order = np.argsort(of, kind="stable")
        starts = np.concatenate([[0], np.bincount(of, minlength=count).cumsum()])
        if folder is None:
            return cls(centres, starts, order, keys[order])
        with atomic(folder / "cell_keys.npy") as path:
            mapped = np.lib.format.open_memmap(path, "w+", keys.dtype, keys.shape)
            for i in range(0, len(keys), BLOCK):
                mapped[i : i + BLOCK] = keys[order[i : i + BLOCK]]
            mapped.flush()
            del mapped
        with atomic(folder / "cells.npz") as path, open(path, "wb") as file:  # last: without it there is no index
            np.savez(file, centres=centres, starts=starts, order=order)
        opened = cls.open(folder)
        return opened if opened is not None else cls(centres, starts, order, keys[order])

    @classmethod
    def open(cls, folder: Path) -> Cells | None:
        """The index of a folder, or None where it has none."""
        if not (folder / "cells.npz").exists():
            return None
        with np.load(folder / "cells.npz") as held:
            centres, starts, order = held["centres"], held["starts"], held["order"]
        return cls(centres, starts, order, np.load(folder / "cell_keys.npy", mmap_mode="r"))

    def near(self, queries: Tensor, probe: int) -> Iterator[Block]:
        """Each cell that is among the ``probe`` nearest of some query [B, D], with those queries."""
        chosen = _nearest(queries, self.centres, probe).cpu()  # [B, probe]
        for cell in chosen.unique().tolist():
            inside = slice(int(self.starts[cell]), int(self.starts[cell + 1]))
            if inside.stop > inside.start:
                who = (chosen == cell).any(1).nonzero()[:, 0].to(queries.device)
                yield Block(self.keys[inside], torch.from_numpy(self.order[inside].copy()), who)


def merged(queries: Tensor, k: int, blocks: Iterable[Block], without: Tensor | None) -> Tensor:
    """Rows [B, k] of the nearest keys over all blocks, -1 where fewer were seen; ``without`` [B, 2]: rows left out."""
    best = queries.new_full((len(queries), k), torch.inf)
    rows = torch.full((len(queries), k), -1, dtype=torch.long, device=queries.device)
    for block in blocks:
        who, names = block.queries, block.rows.to(queries.device)
        distances = _squared(queries[who], widened(block.keys).to(queries))
        if without is not None:
            low, high = without[who].unbind(1)
            distances.masked_fill_((names >= low[:, None]) & (names < high[:, None]), torch.inf)
        near = distances.topk(min(k, len(names)), -1, largest=False)
        both = torch.cat([best[who], near.values], 1)
        named = torch.cat([rows[who], names[near.indices]], 1)
        best[who], kept = both.topk(k, -1, largest=False)
        rows[who] = named.gather(1, kept)
    return rows.masked_fill(best == torch.inf, -1)


def _nearest(points: Tensor, centres: Any, n: int) -> Tensor:
    """Numbers [N, n] of the nearest centres."""
    return _squared(points, torch.from_numpy(centres).to(points)).topk(n, -1, largest=False).indices


def _squared(a: Tensor, b: Tensor) -> Tensor:
    """Squared distances [N, M] of all pairs, by norms: good enough to choose by."""
    return torch.addmm(b.square().sum(-1)[None], a, b.T, alpha=-2).add_(a.square().sum(-1, keepdim=True))


def widened(keys: Any) -> Tensor:
    """Keys in float32: a copy, for numpy's half precision is slow and what is mapped from disk is read-only."""
    return torch.from_numpy(np.array(keys)).float()
