"""Masked language models as functions: of partly masked text, and of what each position may see."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from plumbline.core.errors import refuse

LogitsFn = Callable[..., Tensor]


def masked_probs(logits: Tensor, mask_token_id: int, temperature: float = 1.0) -> Tensor:
    """Float64 probabilities [..., V] of ``logits`` [..., V], the mask's own set to 0 and the rest normalised."""
    wide = logits.double() / temperature
    if bool(wide.isnan().any()):
        raise refuse("decode", "logits", "free of NaN", "NaN", "look at the model's precision and attention mask")
    forbidden = torch.arange(wide.shape[-1], device=wide.device) == mask_token_id
    return torch.softmax(wide.masked_fill(forbidden, -torch.inf), -1)


class MaskedLM:
    """A transformers masked LM (BERT, RoBERTa, ModernBERT ...) as ``x [B, L] -> logits [B, L, V]``.

    Equal to the model's own forward pass, with the padding masked out, gradients off, in the model's dtype.

    Attributes:
        calls: forward passes. rows: sequences in them.

    Args:
        model: anything that takes ``input_ids`` and ``attention_mask`` and returns ``.logits``, in eval mode.
        pad_token_id: ids that are padding, on either side; default the model's own, None in both: none.
    """

    def __init__(self, model: Any, pad_token_id: int | None = None) -> None:
        self.model = model
        own = getattr(getattr(model, "config", None), "pad_token_id", None)
        self.pad_token_id = own if pad_token_id is None else pad_token_id
        self.calls = self.rows = 0

    @torch.no_grad()
    def __call__(self, x: Tensor) -> Tensor:
        if self.model.training:
            raise refuse("MaskedLM", "model", "in eval mode", "training mode", "call model.eval() first")
        mask = torch.ones_like(x) if self.pad_token_id is None else (x != self.pad_token_id).long()
        self.calls, self.rows = self.calls + 1, self.rows + len(x)
        device = self.model.get_input_embeddings().weight.device
        return self.model(input_ids=x.to(device), attention_mask=mask.to(device)).logits.to(x.device)


def plain_logits(where: str, model: Any) -> LogitsFn:
    """``model`` as a function of ids: a transformers masked LM is wrapped, a function is left as it is."""
    if isinstance(model, torch.nn.Module) and hasattr(model, "get_input_embeddings"):
        return MaskedLM(model)
    if not callable(model):
        raise refuse(where, "logits_fn", "a function x [B, L] -> logits [B, L, V]", type(model).__name__,
                     "pass a masked LM or such a function")  # fmt: skip
    return model


def check_ids(where: str, x: Tensor) -> None:
    """Refuse what is not a batch of ids."""
    if x.dim() != 2 or x.shape[1] == 0 or x.is_floating_point():
        raise refuse(where, "x", "ids [B, L] with L >= 1", list(x.shape), "put the mask's id where text is missing")
