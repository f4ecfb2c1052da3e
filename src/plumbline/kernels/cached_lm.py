"""Next-token logits of a transformers causal LM for prefixes that grow, shrink, branch or change, over one cache."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from transformers import DynamicCache
from transformers.cache_utils import (
    DummyLayer,
    DynamicIndexedLayer,
    DynamicLayer,
    DynamicSlidingWindowLayer,
    LinearAttentionCacheLayerMixin,
)

from plumbline.core.errors import refuse
from plumbline.kernels.few_rows import few_rows
from plumbline.kernels.head import position_ids


@dataclass
class _Seen:
    """What the cache holds: ids and mask [B, S], the cache itself and the last position's logits [B, V]."""

    ids: Tensor
    mask: Tensor
    cache: Any
    last: Tensor


class CachedLM:
    r"""A causal LM as a function of its prefix: the logits of :math:`p(x_{t+1} \mid x_{\le t})`.

    Equal to a forward pass over the whole prefix without a cache, whatever the order of calls. Between two calls the
    longest prefix that every row shares with some row of the call before is kept and only the rest is fed: a prefix
    that grew by one token costs one token, beams that changed places cost nothing more, and a prefix that was cut
    (a rejected draft) rolls the cache back. Where a cache cannot be rolled back (a recurrent state, or a sliding
    window further back than ``history``) the prefix is fed again.

    It has the call shape of a second model inside a ``LogitsProcessor``: ``rule(tokens, logits)`` calls ``lm(tokens)``.
    Gradients are off. The cache knows the prefix and not the weights: call ``reset()`` after a change of weights,
    adapters or hooks.

    Attributes:
        calls: how often it was asked.
        tokens_fed: columns given to the model, times rows.
        rebuilds: how often a shared prefix was fed again because the cache could not be rolled back to it.

    Args:
        model: any decoder-only transformers model, a PEFT model around one, or an ``LM``, in eval mode.
        pad_token_id: the padding of batches that come without a mask: a leading run of it is padding. Default: the
            model's own, unless that is also its bos or eos (then such a batch is refused). -1: never infer padding.
        history: tokens that sliding-window layers keep beyond their window, the furthest they can roll back.

    Raises:
        InputError: an encoder-decoder, a model in training mode, ids outside the vocabulary, a mask that is not left
            padding, a prefix longer than the model's context.
    """

    def __init__(self, model: Any, pad_token_id: int | None = None, *, history: int = 256) -> None:
        self._use: Callable[[], AbstractContextManager[Any]]
        self._use = model.use if hasattr(model, "use") else lambda: nullcontext(model)
        with self._use() as opened:
            self.model = opened
        inner = self.model.get_base_model() if hasattr(self.model, "get_base_model") else self.model
        self._config = inner.config.get_text_config(decoder=True)
        if getattr(inner.config, "is_encoder_decoder", False):
            raise refuse("CachedLM", "model", "a decoder-only language model", type(inner).__name__, "pass a causal LM")
        if history < 0:
            raise refuse("CachedLM", "history", "a number of tokens >= 0", history, "leave it at its default")
        self.history = history
        self._takes = set(inspect.signature(inner.forward).parameters)
        self._caches = "past_key_values" in self._takes
        self._embeddings = inner.get_input_embeddings()
        own = getattr(self._config, "pad_token_id", None)
        special = set[Any]()
        for name in ("bos_token_id", "eos_token_id"):
            value = getattr(self._config, name, None)
            special.update(value if isinstance(value, (list, tuple)) else (value,))
        self.pad_token_id = own if pad_token_id is None else pad_token_id
        self._ambiguous_pad = pad_token_id is None and own in special
        self.calls = self.tokens_fed = self.rebuilds = 0
        self._seen: _Seen | None = None

    @property
    def device(self) -> torch.device:
        """Where ids are sent: the input embedding's device."""
        return self._embeddings.weight.device

    def reset(self) -> None:
        """Forget the cache. Needed after the weights, an adapter or a hook of the model changed; counters stay."""
        self._seen = None

    def __call__(self, input_ids: Tensor, attention_mask: Tensor | None = None) -> Tensor:
        """Logits of the next token.

        Args:
            input_ids: [B, L] prefixes, left-padded where their lengths differ.
            attention_mask: [B, L], 1 on tokens and 0 on left padding; None: see ``pad_token_id``.

        Returns:
            [B, V] float32 (float64 for a float64 model), on the device of ``input_ids``.
        """
        return self.many(input_ids, 1, attention_mask)[:, -1]

    @torch.no_grad()
    def many(self, input_ids: Tensor, n: int, attention_mask: Tensor | None = None) -> Tensor:
        """Logits at the last ``n`` positions, as verification of a draft needs them: [B, n, V].

        Entry ``[:, -1]`` predicts the token after the prefix, ``[:, -1 - i]`` the token ``i`` places before that.
        """
        ids, mask = self._checked(input_ids, n, attention_mask)
        self.calls += 1
        if n == 1 and (again := self._same(ids, mask)) is not None:
            return again[:, None].to(input_ids.device)
        cache, kept = self._reuse(ids, mask, ids.shape[1] - n)
        logits = self._feed(ids, mask, cache, kept, n)
        if cache is not None:
            self._seen = _Seen(ids.clone(), mask, cache, logits[:, -1].clone())
        return logits.to(input_ids.device)

    def _checked(self, input_ids: Tensor, n: int, attention_mask: Tensor | None) -> tuple[Tensor, Tensor]:
        if input_ids.dim() != 2 or input_ids.shape[1] == 0:
            raise refuse(
                "CachedLM", "input_ids", "[B, L] with L >= 1", list(input_ids.shape), "pass a batch of prefixes"
            )
        if not 1 <= n <= input_ids.shape[1]:
            raise refuse(
                "CachedLM", "n", f"between 1 and the length {input_ids.shape[1]}", n, "ask for fewer positions"
            )
        ids = input_ids.to(self._embeddings.weight.device)
        mask = self._padding(ids) if attention_mask is None else attention_mask.to(ids.device).bool()
        if mask.shape != ids.shape:
            raise refuse(
                "CachedLM", "attention_mask", str(list(ids.shape)), str(list(mask.shape)), "pass one entry a token"
            )
        left_padded = mask[:, -1].all() & (mask[:, 1:] >= mask[:, :-1]).all()
        if not left_padded:
            raise refuse("CachedLM", "attention_mask", "left padding: 0s, then 1s up to the end of every row",
                         "padding on the right, in the middle or over a whole row", "pad on the left")  # fmt: skip
        longest, context = int(mask.sum(1).max()), getattr(self._config, "max_position_embeddings", None)
        if context and longest > context:
            raise refuse(
                "CachedLM", "input_ids", f"at most {context} tokens, the model's context", longest, "cut the prefix"
            )
        rows = self._embeddings.weight.shape[0]
        if int(ids.max()) >= rows or int(ids.min()) < 0:
            raise refuse("CachedLM", "input_ids", f"ids in [0, {rows})", f"ids up to {int(ids.max())}",
                         "encode the prefix with this model's own tokenizer")  # fmt: skip
        return ids, mask

    def _padding(self, ids: Tensor) -> Tensor:
        if self.pad_token_id is None:
            return torch.ones_like(ids, dtype=torch.bool)
        mask = (ids != self.pad_token_id).cumsum(1) > 0
        if self._ambiguous_pad and not mask.all():
            raise refuse("CachedLM", "attention_mask", "given where the pad token is also the model's bos or eos",
                         "none, and rows that begin with it",
                         "pass attention_mask, or pad_token_id (-1: no padding)")  # fmt: skip
        return mask

    def _same(self, ids: Tensor, mask: Tensor) -> Tensor | None:
        """The logits of the call before, if this call has the same prefixes."""
        seen = self._seen
        if seen is None or seen.ids.shape != ids.shape or _shared(seen, ids, mask) < ids.shape[1]:
            return None
        return seen.last.clone()  # the caller may write into what it got

    def _reuse(self, ids: Tensor, mask: Tensor, limit: int) -> tuple[Any, int]:
        """A cache that holds the first ``kept <= limit`` columns of every row, and ``kept``."""
        seen, self._seen = self._seen, None  # a pass that breaks off leaves some layers ahead of others: never kept
        if not self._caches:
            return None, 0
        if seen is not None:
            rows, kept = _best_rows(seen, ids, mask)
            kept, drop = min(kept, limit), seen.ids.shape[1] - min(kept, limit)
            if kept > 0 and _can_drop(seen.cache, kept, drop):
                _drop_last(seen.cache, drop)
                if rows is not None:
                    seen.cache.reorder_cache(rows)
                return seen.cache, kept
            self.rebuilds += kept > 0
        cache = DynamicCache(config=self._config)
        for layer in cache.layers:
            if type(layer) is DynamicSlidingWindowLayer:
                layer.activate_past_recording()
        return cache, 0

    def _feed(self, ids: Tensor, mask: Tensor, cache: Any, kept: int, n: int) -> Tensor:
        """Logits [B, n, V] at the last ``n`` columns, in float32 or better; feeds the columns after ``kept``."""
        length = ids.shape[1]
        if kept and any(isinstance(layer, LinearAttentionCacheLayerMixin) for layer in cache.layers):
            # several tokens on top of a recurrent state are not supported by every architecture, one always is
            steps = [self._pass(ids[:, : t + 1], mask[:, : t + 1], cache, t, 1) for t in range(kept, length)]
            logits = torch.cat(steps[-n:], 1)
        else:
            logits = self._pass(ids, mask, cache, kept, n)
        for layer in cache.layers if cache is not None else ():
            if type(layer) is DynamicSlidingWindowLayer and layer.is_initialized:
                keep = layer.sliding_window - 1 + self.history
                layer.keys, layer.values = layer.keys[..., -keep:, :], layer.values[..., -keep:, :]
        return logits.to(torch.promote_types(logits.dtype, torch.float32))

    def _pass(self, ids: Tensor, mask: Tensor, cache: Any, kept: int, n: int) -> Tensor:
        inputs: dict[str, Any] = {
            "attention_mask": None if mask.all() else mask.long(),
            "position_ids": position_ids(mask)[:, kept:],
            "logits_to_keep": n,  # the head's product is made for these positions only
            "past_key_values": cache,
            "use_cache": cache is not None,
        }
        self.tokens_fed += ids.shape[0] * (ids.shape[1] - kept)
        taken = {k: v for k, v in inputs.items() if k in self._takes}
        # an LM that shares its weights with another puts its own adapter in place here
        with self._use() as model, few_rows(model):
            if model.training:
                raise refuse("CachedLM", "model", "in eval mode", "training mode", "call model.eval() first")
            out = model(ids[:, kept:], **taken, return_dict=True)
        return out.logits[:, -n:].to(ids.device)


def tokens_held(inputs: Mapping[str, Any]) -> int:
    """How many tokens the cache already holds that ``generate`` hands to a sampler among its ``inputs``."""
    cache = inputs.get("past_key_values")
    return 0 if cache is None or isinstance(cache, tuple) else int(cache.get_seq_length())


def _shared(seen: _Seen, ids: Tensor, mask: Tensor) -> int:
    """The number of leading columns on which every row agrees with the cache's row of the same number."""
    return int(_agreement(seen.ids, seen.mask, ids, mask).min())


def _agreement(old_ids: Tensor, old_mask: Tensor, ids: Tensor, mask: Tensor) -> Tensor:
    """Length of the common prefix of each pair of rows, [B] (old rows broadcast), whatever lies under padding."""
    n = min(old_ids.shape[1], ids.shape[1])
    old_ids, old_mask, ids, mask = old_ids[:, :n], old_mask[:, :n], ids[:, :n], mask[:, :n]
    same = (old_mask == mask) & ((old_ids == ids) | ~mask)
    return same.long().cumprod(1).sum(1)


def _best_rows(seen: _Seen, ids: Tensor, mask: Tensor) -> tuple[Tensor | None, int]:
    """For each row the cached row to go on from (None: the same row), and the number of columns all of them share."""
    in_place = -1
    if seen.ids.shape[0] == ids.shape[0]:
        in_place = _shared(seen, ids, mask)
        if in_place == min(seen.ids.shape[1], ids.shape[1]):
            return None, in_place
    pairs = [_agreement(seen.ids[r : r + 1], seen.mask[r : r + 1], ids, mask) for r in range(seen.ids.shape[0])]
    best = torch.stack(pairs).max(0)
    moved = int(best.values.min())
    return (best.indices, moved) if moved > in_place else (None, in_place)


def _can_drop(cache: Any, kept: int, drop: int) -> bool:
    """Whether every layer still holds what a prefix of ``kept`` tokens needs."""
    if drop == 0:
        return True
    for layer in cache.layers:
        if isinstance(layer, DummyLayer) or not getattr(layer, "is_initialized", True):
            continue
        if type(layer) is DynamicSlidingWindowLayer:
            oldest = layer.cumulative_length - layer.keys.shape[-2]
            if oldest > max(kept - (layer.sliding_window - 1), 0):
                return False
        elif type(layer) not in (DynamicLayer, DynamicIndexedLayer):
            return False  # a recurrent state, or a layer nobody has checked
    return True


def _drop_last(cache: Any, n: int) -> None:
    """Roll the cache back by ``n`` tokens."""
    for layer in cache.layers if n else ():
        if type(layer) is DynamicSlidingWindowLayer and layer.is_initialized:
            # its own crop would also cut the history that the next rollback needs
            layer.keys, layer.values = layer.keys[..., :-n, :], layer.values[..., :-n, :]
            layer.cumulative_length -= n
        else:
            layer.crop(-n)
