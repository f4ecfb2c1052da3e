"""One forward pass over a tree of drafted tokens per row, and a cache in which every row keeps its own length."""

from __future__ import annotations

import inspect
import weakref
from collections.abc import Sequence
from functools import lru_cache, partial
from typing import Any

import torch
from torch import Tensor
from transformers.cache_utils import Cache, DynamicCache, DynamicLayer, DynamicSlidingWindowLayer

from plumbline.core.errors import refuse
from plumbline.kernels.cached_lm import CachedLM
from plumbline.kernels.few_rows import few_rows

_tried: weakref.WeakKeyDictionary[Any, str] = weakref.WeakKeyDictionary()


class _Places:
    """Where the next keys go: row b's to the slots ``starts[b] + 0 .. n``."""

    def __init__(self, rows: int) -> None:
        self.starts = [0] * rows

    def top(self, n: int) -> int:
        return max(self.starts) + n


class _Rows(DynamicLayer):
    """Keys and values [B, H, capacity, D], written at each row's own place: what was rejected is written over."""

    def __init__(self, places: _Places) -> None:
        super().__init__()
        self.places = places

    def update(self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
        n, starts = key_states.shape[-2], self.places.starts
        top = self.places.top(n)
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
            self.keys, self.values = key_states[..., :0, :], value_states[..., :0, :]
        if self.keys.shape[-2] < top:
            room = 2 * top - self.keys.shape[-2]  # doubled, so that growing costs a copy only now and then
            self.keys, self.values = (torch.cat([x, x.new_zeros(*x.shape[:-2], room, x.shape[-1])], -2)
                                      for x in (self.keys, self.values))  # fmt: skip
        if min(starts) == max(starts):
            self.keys[:, :, starts[0] : top], self.values[:, :, starts[0] : top] = key_states, value_states
        else:
            for b, s in enumerate(starts):
                self.keys[b, :, s : s + n], self.values[b, :, s : s + n] = key_states[b], value_states[b]
        return self.keys[:, :, :top], self.values[:, :, :top]

    def get_seq_length(self) -> int:
        return max(self.places.starts)

    def move(self, row: int, start: int, path: Sequence[int]) -> None:
        """Bring the slots ``start + path`` of a row together at ``start``."""
        at = torch.tensor(path, device=self.keys.device) + start
        for x in (self.keys, self.values):
            x[row, :, start : start + len(path)] = x[row].index_select(1, at)

    def take(self, rows: Tensor) -> None:
        self.keys, self.values = self.keys.index_select(0, rows), self.values.index_select(0, rows)


class TreeLM:
    r"""A causal LM that reads in one pass a tree of continuations for each row: :math:`p(\cdot \mid x_b, path)`.

    Row b's cache holds the keys of its own ``lengths[b]`` tokens. ``logits`` feeds N nodes a row on top of them, node 0
    the last token of the text; ``keep`` makes one path of each row's tree part of its text, however long, and forgets
    the rest. Equal to feeding every path by itself. Sliding windows are kept by masks: every layer's cache is whole.

    Args:
        model: a decoder-only transformers model whose attention takes a 4-D additive mask (eager or sdpa).
        where: the method, for messages.

    Raises:
        InputError: a recurrent state or another cache that cannot be rolled back, ALiBi, flash or chunked attention:
            whatever does not reproduce the model's own logits on a tree of three tokens.
    """

    def __init__(self, model: Any, where: str) -> None:
        self.model, self.where = model, where
        probe = CachedLM(model, -1)
        self._config, self._takes = probe._config, probe._takes
        _reject_caches(where, model, self._config)
        kinds = set(getattr(self._config, "layer_types", None) or ())
        self._window = getattr(self._config, "sliding_window", None)
        self._kinds = kinds if "sliding_attention" in kinds else set[str]()
        if kinds - {"full_attention", "sliding_attention"}:
            raise refuse(where, "model", "one with full or sliding attention", f"layers of {sorted(kinds)}",
                         "decode it without drafts")  # fmt: skip
        self.lengths: list[int] = []
        self.calls = self.fed = 0
        if model not in _tried:
            _tried[model] = self._fault()
            self.calls = self.fed = 0
        if _tried[model]:
            raise refuse(where, "model", "one that takes a 4-D attention mask and position ids", _tried[model],
                         "load it with attn_implementation='sdpa' or 'eager', or decode it without drafts")  # fmt: skip

    @property
    def device(self) -> torch.device:
        return self.model.get_input_embeddings().weight.device

    @torch.no_grad()
    def start(self, rows: Sequence[Sequence[int]]) -> None:
        """Read the texts (lists of ids, no padding), each but for its last token, which ``logits`` feeds as root."""
        self._places = _Places(len(rows))
        self._cache = Cache(layer_class_to_replicate=partial(_Rows, self._places))  # type: ignore[arg-type]
        self.lengths = [len(r) - 1 for r in rows]
        longest = max(self.lengths)
        context = getattr(self._config, "max_position_embeddings", None)
        if context and longest >= context:
            raise refuse(self.where, "input_ids", f"shorter than {context} tokens, the model's context", longest + 1,
                         "cut the prompt")  # fmt: skip
        if longest:
            # padding on the right: nothing that is real comes after it, so no mask is needed
            ids = torch.tensor([[*r[:-1], *[r[0]] * (longest - len(r) + 1)] for r in rows], device=self.device)
            self._forward(ids, None, torch.arange(longest, device=self.device).expand(len(rows), -1), 1)
            self.fed += sum(self.lengths)

    @torch.no_grad()
    def logits(self, tokens: Tensor, parents: Sequence[Sequence[int]]) -> Tensor:
        """Logits after every node.

        Args:
            tokens: [B, N] node tokens, the root (each row's last token, not yet fed) first, parents before children.
            parents: per row, the parents of nodes 1 .. N - 1 as node numbers.

        Returns:
            [B, N, V] float32 (float64 for a float64 model).
        """
        rows, n = tokens.shape
        tokens = tokens.to(self.device)
        self.fed += rows * n
        if n == 1 and min(self.lengths) == max(self.lengths) < (self._window or 1 << 62):
            # one token a row after texts of one length: everything is seen, and no mask is needed
            self._places.starts[:] = self.lengths
            at = torch.full((rows, 1), self.lengths[0], device=self.device)
            return self._wide(self._forward(tokens, None, at, 1))
        chains = all(len(p) == n - 1 and list(p) == list(range(n - 1)) for p in parents)
        tables = [_chain(n)] * rows if chains else [_lineage(tuple(p)) for p in parents]
        depth = torch.stack([d for d, _ in tables]).to(self.device)  # [B, N]
        kin = torch.stack([k for _, k in tables]).to(self.device)  # [B, N, N]: node i sees node j
        starts = torch.tensor(self.lengths, device=self.device)[:, None]
        self._places.starts[:] = self.lengths
        slots = torch.arange(self._places.top(n), device=self.device) - starts  # [B, S], 0 is the root's
        inside = (slots >= 0) & (slots < n)
        at = slots.clamp(0, n - 1)[:, None].expand(-1, n, -1)
        seen = (slots < 0)[:, None] | (inside[:, None] & kin.gather(2, at))  # [B, N, S]
        where = torch.where(inside, depth.gather(1, slots.clamp(0, n - 1)), slots)  # position less the row's length
        return self._wide(self._forward(tokens, self._masks(seen, depth, where), depth + starts, n))

    @staticmethod
    def _wide(logits: Tensor) -> Tensor:
        return logits.to(torch.promote_types(logits.dtype, torch.float32))

    def keep(self, paths: Sequence[Sequence[int]]) -> None:
        """Make a path of nodes (the root, 0, first) part of each row's text; an empty path leaves the row as it was."""
        for b, path in enumerate(paths):
            if list(path) != list(range(len(path))):
                for layer in self._cache.layers:
                    layer.move(b, self.lengths[b], path)
            self.lengths[b] += len(path)

    def take(self, rows: Sequence[int]) -> None:
        """Go on with these rows only, in this order."""
        at = torch.tensor(rows, device=self.device)
        for layer in self._cache.layers:
            layer.take(at)
        self.lengths = [self.lengths[r] for r in rows]
        self._places.starts[:] = self.lengths

    def _masks(self, seen: Tensor, depth: Tensor, where: Tensor) -> Any:
        def additive(allowed: Tensor) -> Tensor:
            dtype = self.model.get_input_embeddings().weight.dtype
            blocked = torch.finfo(dtype).min
            return torch.zeros(allowed.shape, dtype=dtype, device=allowed.device).masked_fill_(~allowed, blocked)[
                :, None
            ]

        if not self._window:
            return additive(seen)
        near = seen & (depth[:, :, None] - where[:, None] < self._window)
        if self._kinds:
            return {kind: additive(near if kind == "sliding_attention" else seen) for kind in self._kinds}
        return additive(near)

    def _forward(self, ids: Tensor, mask: Any, positions: Tensor, keep: int) -> Tensor:
        if self.model.training:
            raise refuse(self.where, "model", "in eval mode", "training mode", "call model.eval() first")
        inputs = {"attention_mask": mask, "position_ids": positions, "past_key_values": self._cache, "use_cache": True}
        inputs |= {"logits_to_keep": keep}
        self.calls += 1
        taken = {k: v for k, v in inputs.items() if k in self._takes}
        with few_rows(self.model):
            return self.model(ids, **taken, return_dict=True).logits[:, -keep:]

    def _fault(self) -> str:
        """What goes wrong on a tree of three tokens with two branches, or nothing."""
        names = type(self.model).__name__
        if not {"position_ids", "past_key_values", "attention_mask"} <= self._takes:
            return f"{names}, whose forward lacks position_ids"
        vocab = self.model.get_input_embeddings().weight.shape[0]
        text, a, b = [i % vocab for i in (5, 3, 4)], 6 % vocab, 7 % vocab
        try:
            self.start([text, text[1:]])
            got = self.logits(torch.tensor([[text[-1], a, b, a]] * 2), [[0, 0, 2]] * 2)
            rows = [[*text, a], [*text, b, a], [*text[1:], a], [*text[1:], b, a]]
            with torch.no_grad():
                want = torch.stack([self.model(torch.tensor([r], device=self.device), use_cache=False).logits[0, -1]
                                    for r in rows])  # fmt: skip
        except Exception as error:  # whatever an architecture makes of such a mask, it is told in one line
            return f"{names} ({type(error).__name__}: {' '.join(str(error).split())[:80]})"
        off = (got[[0, 0, 1, 1], [1, 3, 1, 3]] - want).abs().max() / want.abs().max().clamp(min=1)
        limit = 1e-3 if want.dtype.itemsize >= 4 else 0.05
        return "" if float(off) < limit else f"{names}, whose logits on a tree are off by {float(off):.2g}"


@lru_cache(maxsize=64)
def _chain(n: int) -> tuple[Tensor, Tensor]:
    return torch.arange(n), torch.ones(n, n, dtype=torch.bool).tril()


@lru_cache(maxsize=256)
def _lineage(parents: tuple[int, ...]) -> tuple[Tensor, Tensor]:
    """Depth [N] and ancestry [N, N] (itself included) of nodes whose parents are given from node 1 on."""
    kin = torch.eye(len(parents) + 1, dtype=torch.bool)
    for i, p in enumerate(parents, 1):
        kin[i] |= kin[p]
    return kin.sum(1) - 1, kin


def _reject_caches(where: str, model: Any, config: Any) -> None:
    """Before the first pass: a state that cannot be rolled back is refused by name."""
    if "past_key_values" not in inspect.signature(model.forward).parameters and not hasattr(model, "get_base_model"):
        raise refuse(where, "model", "one with a key-value cache", type(model).__name__, "decode it without drafts")
    for layer in DynamicCache(config=config).layers:
        if type(layer) not in (DynamicLayer, DynamicSlidingWindowLayer):
            kept = f"{type(model).__name__}, which keeps a {type(layer).__name__}"
            raise refuse(where, "model", "one whose cache can be rolled back", kept, "decode it without drafts")
