"""Cached keys and values as tensors with gradients: one window over them, and what its loss says about every state."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from transformers import DynamicCache
from transformers.cache_utils import DynamicLayer, DynamicSlidingWindowLayer

from plumbline.core.errors import refuse
from plumbline.kernels.head import position_ids


class StateModel:
    r"""A causal LM as a function of its cached states: :math:`z = f(x_{s+1:s+w};\, K_{1:s}, V_{1:s})`.

    The states are plain tensors that the caller owns, two a layer (keys, then values), each [B, H, S, d]: detached,
    changed, copied or moved at will. The model's weights get no gradient.

    Args:
        model: a decoder-only transformers model in eval mode, whose layers all have attention. Sliding-window layers
            keep all their states here and are masked to their window.

    Raises:
        InputError: recurrent layers, an encoder-decoder, training mode, a text beyond the context.
    """

    def __init__(self, model: nn.Module) -> None:
        inner: Any = model.get_base_model() if hasattr(model, "get_base_model") else model  # type: ignore[operator]
        self.model, self.embed = model, inner.get_input_embeddings()
        self.config = inner.config.get_text_config(decoder=True)
        self._takes = set(inspect.signature(inner.forward).parameters)
        kinds = {type(layer) for layer in DynamicCache(config=self.config).layers}
        odd = sorted(kind.__name__ for kind in kinds - {DynamicLayer, DynamicSlidingWindowLayer})
        if odd or inner.config.is_encoder_decoder or "past_key_values" not in self._takes:
            raise refuse("StateModel", "model", "a decoder whose layers all cache keys and values",
                         ", ".join(odd) or type(inner).__name__, "use a model with attention only")  # fmt: skip

    def window(self, ids: Tensor, states: Sequence[Tensor], mask: Tensor | None = None) -> tuple[Tensor, list[Tensor]]:
        """One pass over a window on top of the states.

        Args:
            ids: [B, w]. states: as above, [B, H, S, d] each; none for the first window. They are cast to the model's
                dtype and never changed.
            mask: [B, S + w], 0 on left padding; None: none.

        Returns:
            logits [B, w, V] in float32 (float64 for a float64 model), and the states with the window's own behind
            them, [B, H, S + w, d] each, as nodes of the graph: ``torch.autograd.grad(loss, nodes)`` reaches old and
            new ones. Detach before keeping them.
        """
        cache = self._loaded(states)
        seen = states[0].shape[-2] if len(states) else 0
        context = getattr(self.config, "max_position_embeddings", None)
        if context and seen + ids.shape[1] > context:
            raise refuse("StateModel", "ids", f"at most {context} tokens with the states before them, the context",
                         seen + ids.shape[1], "cut the text")  # fmt: skip
        if self.model.training:
            raise refuse("StateModel", "model", "in eval mode", "training mode", "call model.eval() first")
        mask = torch.ones(ids.shape[0], seen + ids.shape[1], device=ids.device) if mask is None else mask
        given = {
            "position_ids": position_ids(mask.bool())[:, seen:],
            "attention_mask": None if bool(mask.all()) else mask.long(),
            "past_key_values": cache,
            "use_cache": True,
        }
        with torch.enable_grad():
            # the graph begins at the embeddings, so that it exists where all weights are frozen
            embedded = self.embed(ids).detach().requires_grad_()
            out = self.model(inputs_embeds=embedded, **{k: v for k, v in given.items() if k in self._takes})
            logits = out.logits.to(torch.promote_types(out.logits.dtype, torch.float32))
        return logits, [x for layer in cache.layers for x in (layer.keys, layer.values)]

    def _loaded(self, states: Sequence[Tensor]) -> DynamicCache:
        """A full-length cache that begins with copies of the states as leaves."""
        cache, dtype = DynamicCache(), self.embed.weight.dtype
        for i in range(0, len(states), 2):
            keys, values = (x.detach().to(dtype).clone().requires_grad_() for x in states[i : i + 2])
            with torch.enable_grad():
                cache.update(keys, values, i // 2)
        return cache


def gradients(loss: Tensor, nodes: Sequence[Tensor]) -> list[Tensor]:
    r""":math:`\partial \ell / \partial K, V` for nodes of :meth:`StateModel.window`, float32 or wider; zeros where the
    loss does not depend on one (the last position's keys, for instance, of a loss before it)."""
    found = torch.autograd.grad(loss, nodes, allow_unused=True)
    wide = [torch.promote_types(x.dtype, torch.float32) for x in nodes]
    return [torch.zeros_like(x, dtype=d) if g is None else g.to(d) for g, x, d in zip(found, nodes, wide, strict=True)]
