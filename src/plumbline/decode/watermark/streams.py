"""Schemes of other software, drawn from a Mersenne twister: green lists that equal theirs without their permutations.

A CPU ``torch.Generator`` keeps the low 32 bits of its seed and runs MT19937, as numpy's legacy generator does. Its
``randperm`` swaps place i with place i + word_i mod (V - i), front to back: the first K places are settled after K
steps, and whether one token is among them follows from those K words alone.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache, reduce
from itertools import pairwise
from threading import Lock

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from plumbline.core.errors import refuse
from plumbline.decode.watermark.keys import MILLIONTH_PRIME, TINY, gram_hash, needs_vocab

Ints = NDArray[np.int64]
TABLE = 1_000_003
TRIED, FEW = 40, 4
_TWISTER, _ALONE = np.random.RandomState(0), Lock()  # seeding one again costs a hundredth of making one


def words(seed: int, n: int) -> NDArray[np.uint32]:
    """The first n 32-bit words [n] of the twister seeded with the low 32 bits of ``seed``."""
    with _ALONE:
        _TWISTER.seed(seed & 0xFFFFFFFF)
        return np.frombuffer(_TWISTER.bytes(4 * n), np.uint32)


@lru_cache(maxsize=8)
def _steps(vocab: int, head: int) -> tuple[NDArray[np.uint32], NDArray[np.uint32]]:
    steps = np.arange(head, dtype=np.uint32)
    return steps, np.uint32(vocab) - steps


def swaps(seed: int, vocab: int, head: int) -> NDArray[np.uint32]:
    """[K]: the place that ``randperm(vocab)`` swaps with place i, at each of its first K steps."""
    steps, left = _steps(vocab, head)
    return steps + words(seed, head) % left


def _settled(taken: NDArray[np.uint32], last: NDArray[np.int32], targets: Ints) -> NDArray[np.bool_]:
    """Which tokens [n] are among the first K: each is followed from place to place until it is drawn or left behind.

    ``taken`` [K] are the swaps; ``last`` [V] the last step that drew from each place, -1 if none did.
    """
    head, found = len(taken), np.zeros(len(targets), bool)
    live, place, step = np.arange(len(targets)), targets.copy(), np.full(len(targets), -1)
    while len(live):
        drawn = last[place] > step
        found[live[drawn]] = True
        moved = ~drawn & (place < head)  # step `place` puts what lies there into the place it draws from
        live, step = live[moved], place[moved]
        place = taken[step].astype(np.int64)
    return found


def _last_draw(taken: NDArray[np.uint32], vocab: int) -> NDArray[np.int32]:
    last = np.full(vocab, -1, np.int32)
    last[taken] = np.arange(len(taken), dtype=np.int32)
    return last


def _is_drawn(taken: NDArray[np.uint32], token: int) -> bool:
    """:func:`_settled` for one token, where filling ``last`` would cost more than looking for the token."""
    place, step = token, -1
    while not (taken[step + 1 :] == place).any():
        if place >= len(taken):
            return False
        step, place = place, int(taken[place])
    return True


def in_head(seed: int, vocab: int, head: int, targets: Ints) -> NDArray[np.bool_]:
    """Whether each of the tokens [n] is among the first ``head`` of ``randperm(vocab)`` for ``seed``."""
    taken = swaps(seed, vocab, head)
    if len(targets) <= FEW:
        return np.array([_is_drawn(taken, t) for t in targets.tolist()])
    return _settled(taken, _last_draw(taken, vocab), targets)


def head_mask(seed: int, vocab: int, head: int) -> NDArray[np.bool_]:
    """[V] bool: the first ``head`` tokens of ``randperm(vocab)`` for ``seed``."""
    taken = swaps(seed, vocab, head)
    last = _last_draw(taken, vocab)
    mask = last >= 0
    mask[:head] = _settled(taken, last, np.arange(head))
    return mask


@lru_cache(maxsize=4)
def _table(key: int, size: int) -> Tensor:
    """The first ``size`` entries [size] of ``randperm(1000003)`` for the key: tokens look up no more."""
    order = list(range(TABLE))
    for i, j in enumerate(swaps(key, TABLE, size).tolist()):
        order[i], order[j] = order[j], order[i]
    return torch.tensor(order[:size])


def _by_seed(seeds: Ints) -> Iterator[tuple[int, Ints]]:
    """Each distinct seed with the positions that have it."""
    order = np.argsort(seeds, kind="stable")
    starts = np.flatnonzero(np.diff(seeds[order], prepend=-1))
    for start, end in pairwise([*starts.tolist(), len(seeds)]):
        yield int(seeds[order[start]]), order[start:end]


def _head_size(scheme: str, gamma: float, vocab: int) -> int:
    if int(vocab * gamma) < 1:
        raise refuse(scheme, "gamma", f"large enough for one green token of {vocab}", gamma, "pass gamma=0.25")
    return int(vocab * gamma)


def _green(name: str, seeds: Ints, tokens: Tensor, gamma: float, vocab: int | None) -> Tensor:
    """Colours [N] of ``tokens`` [N], each under the list of its seed."""
    width = needs_vocab(vocab, tokens, name)
    head, targets, found = _head_size(name, gamma, width), tokens.cpu().numpy(), np.zeros(len(tokens), bool)
    for seed, at in _by_seed(seeds):
        found[at] = in_head(seed, width, head, targets[at])
    return torch.from_numpy(found).to(tokens.device)


@dataclass(frozen=True)
class TransformersGreens:
    """The lists of transformers' ``WatermarkLogitsProcessor`` on a CPU: "lefthash", or "selfhash" with ``self_hash``.

    Its left hash reads the last token whatever ``context`` is (which then only decides what counts as a repetition);
    its self-hash looks at the 40 likeliest candidates alone. Lists that transformers drew on a GPU are others: its
    generators differ between devices, so such text must be detected by transformers on that device.

    Args:
        key, context, self_hash: its ``hashing_key``, ``context_width`` and ``seeding_scheme``.
    """

    key: int = MILLIONTH_PRIME
    context: int = 1
    self_hash: bool = False

    def __post_init__(self) -> None:
        if self.self_hash and not -(2**63) <= self.key < 2**63:
            raise refuse(
                "TransformersGreens", "key", "a 64-bit integer for a self-hash", self.key, "pass a smaller key"
            )

    @property
    def window(self) -> int:
        return self.context - self.self_hash

    def pairs(self, grams: Tensor) -> Tensor:
        return gram_hash(grams)

    def _seeds(self, grams: Tensor) -> Ints:
        """[N, w + 1] (self-hash) or [N, w] and more (left hash reads the last of w) -> low 32 bits of the seeds [N]."""
        if self.self_hash:
            looked_up = grams.cpu() % TABLE
            size = min(1 << int(looked_up.max() if looked_up.numel() else 0).bit_length(), TABLE)
            own = _table(self.key, size)[looked_up] + 1
            product = (own * self.key * own[:, -1:]).amin(-1)  # wraps as transformers' does
            # the seed is reduced modulo 2^64 - 1, one short of the wrap, which negative products feel
            return ((product - (product < 0).long()) & 0xFFFFFFFF).numpy()
        tokens, at = np.unique(grams[:, self.window - 1].cpu().numpy(), return_inverse=True)
        return np.array([self.key * t % (2**64 - 1) & 0xFFFFFFFF for t in tokens.tolist()], np.int64)[at]

    def uniform(self, grams: Tensor, vocab: int | None) -> Tensor:
        raise refuse("watermark", "scheme", "one that gives every token a number", "TransformersGreens, colours only",
                     "pass scheme=Hashed or scheme=SeededStream")  # fmt: skip

    uniforms = uniform

    def green(self, grams: Tensor, gamma: float, vocab: int | None) -> Tensor:
        return _green("TransformersGreens", self._seeds(grams), grams[:, -1], gamma, vocab)

    def greens(self, contexts: Tensor, logits: Tensor, gamma: float) -> Tensor:
        vocab = logits.shape[-1]
        if not self.self_hash:
            head = _head_size("TransformersGreens", gamma, vocab)
            rows = np.stack([head_mask(seed, vocab, head) for seed in self._seeds(contexts).tolist()])
            return torch.from_numpy(rows).to(logits.device)
        likely = logits.sort(dim=-1, descending=True).indices[:, :TRIED]  # [B, 40]
        before = contexts[:, None, :].expand(-1, likely.shape[1], -1)
        colours = self.green(torch.cat([before, likely[..., None]], -1).flatten(0, 1), gamma, vocab)
        return torch.zeros_like(logits, dtype=torch.bool).scatter(1, likely, colours.view_as(likely))


@dataclass(frozen=True)
class SeededStream:
    r"""The papers' own code: a seed from the context, and a CPU generator's permutation or uniforms for the vocabulary.

    .. math:: s \leftarrow (35317\,s + x) \bmod (2^{64} - 1) \quad\text{over the last h tokens, from } s = k

    The first gamma V of ``randperm(V)`` are green; the numbers are ``rand(V)`` in float32, 0 raised to 2^-53.

    Args:
        key: the secret. context: h. self_hash: there is none; True is refused.
    """

    key: int = MILLIONTH_PRIME
    context: int = 1
    self_hash: bool = False

    def __post_init__(self) -> None:
        if self.self_hash:
            raise refuse("SeededStream", "self_hash", "False", True, "pass scheme=Hashed for a self-hash")

    @property
    def window(self) -> int:
        return self.context

    def pairs(self, grams: Tensor) -> Tensor:
        return gram_hash(grams)

    def _seeds(self, contexts: Tensor) -> Ints:
        rows, at = np.unique(contexts.cpu().numpy(), axis=0, return_inverse=True)
        seeds = [reduce(lambda s, x: (s * 35317 + x) % (2**64 - 1), row, self.key) for row in rows.tolist()]
        return np.array([s & 0xFFFFFFFF for s in seeds], np.int64)[at.reshape(-1)]

    def uniform(self, grams: Tensor, vocab: int | None) -> Tensor:
        needs_vocab(vocab, grams[:, -1], "SeededStream")
        tokens, found = grams[:, -1].cpu().numpy(), np.zeros(len(grams))
        for seed, at in _by_seed(self._seeds(grams[:, :-1])):
            found[at] = _rand(seed, int(tokens[at].max()) + 1)[tokens[at]]
        return torch.from_numpy(found).to(grams.device)

    def uniforms(self, contexts: Tensor, vocab: int) -> Tensor:
        rows = [_rand(seed, vocab) for seed in self._seeds(contexts).tolist()]
        return torch.from_numpy(np.stack(rows)).to(contexts.device)

    def green(self, grams: Tensor, gamma: float, vocab: int | None) -> Tensor:
        return _green("SeededStream", self._seeds(grams[:, :-1]), grams[:, -1], gamma, vocab)

    def greens(self, contexts: Tensor, logits: Tensor, gamma: float) -> Tensor:
        vocab = logits.shape[-1]
        head = _head_size("SeededStream", gamma, vocab)
        rows = np.stack([head_mask(seed, vocab, head) for seed in self._seeds(contexts).tolist()])
        return torch.from_numpy(rows).to(logits.device)


def _rand(seed: int, n: int) -> NDArray[np.float64]:
    """``torch.rand(n)`` of a CPU generator: 24 bits of each word; in float64, and never 0."""
    return np.maximum((words(seed, n) & 0xFFFFFF) * 2.0**-24, TINY)
