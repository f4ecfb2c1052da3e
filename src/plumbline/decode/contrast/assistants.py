"""Assistants for logit difference: a target's first blocks as a small model, its loss, and the difference itself."""

from __future__ import annotations

import copy
import math
from typing import Any

import torch
from torch import Tensor, nn

from plumbline.core.errors import refuse
from plumbline.core.scored import Scored
from plumbline.decode.mixing import plausible
from plumbline.kernels.vocab import log_probs
from plumbline.models.sites import layout_of, n_layers, unwrapped


def subtract(
    target: Tensor, assistant: Tensor, *, weight: float = -0.8, ratio: float = 0.01, min_keep: int | None = None
) -> tuple[Tensor, Tensor]:
    r"""The logit difference on a target's plausible tokens, and which these are.

    .. math:: out_v = \log p(v) + w \log(V\,p_{assistant}(v)) \text{ for kept } v, \quad \log p(v) \text{ elsewhere}

    As it stands it scores a given text (teacher forcing): normalise it, then read the labels off. The rule ``uld``
    forbids the rest instead. What the assistant gives probability 0 stays at the target's.

    Args:
        target, assistant: logits [..., V]. weight, ratio, min_keep: see ``uld``.

    Returns:
        out [..., V] float32 (float64 for float64), not normalised, and kept [..., V] bool.
    """
    own, other = log_probs(target), log_probs(assistant)
    vocab = own.shape[-1]
    kept = plausible(own, ratio, max(1, int(ratio * vocab)) if min_keep is None else min(min_keep, vocab))
    difference = torch.where(kept & (other > -torch.inf), weight * (other + math.log(vocab)), 0.0)
    return own + difference, kept


def assistant(target: nn.Module, layers: int = 8) -> Any:
    """A new model of the target's first ``layers`` blocks with copies of its embeddings, final norm and head.

    The paper trains a LoRA adapter on it (rank 16, alpha 32, dropout 0.05, learning rate 1e-3, 10 epochs) with
    ``assistant_loss``: wrap the result with ``peft.get_peft_model``.

    Raises:
        InputError: an architecture without a known list of blocks, or more blocks than the target has.
    """
    inner: Any = unwrapped(target)
    path = layout_of(inner).blocks
    if not 1 <= layers <= n_layers(inner):
        raise refuse("assistant", "layers", f"from 1 to the target's {n_layers(inner)}", layers, "keep fewer blocks")
    config = copy.deepcopy(inner.config)
    text = config.get_text_config(decoder=True)
    text.num_hidden_layers = layers
    if getattr(text, "layer_types", None):
        text.layer_types = text.layer_types[:layers]
    parameter = next(inner.parameters())
    small = type(inner)(config).to(parameter.device, parameter.dtype)
    beyond = tuple(f"{path}.{i}." for i in range(layers, n_layers(inner)))
    small.load_state_dict({k: v for k, v in inner.state_dict().items() if not k.startswith(beyond)})
    return small.train(inner.training)


def assistant_loss(forget: Scored, retain: Scored, *, uniform_weight: float = 5.0) -> Tensor:
    r"""The assistant's reversed objective: remember what is to be forgotten, know nothing of the rest.

    .. math:: \ell = -\overline{\log p(y \mid x)}_{forget} + \lambda\,\overline{KL(U \,\|\, p)}_{retain}

    with :math:`KL(U \| p) = -\log V - \frac1V\sum_v \log p_v`.

    Args:
        forget: the assistant on the forget set and its paraphrases, logps [B, T].
        retain: the assistant on the retain set and perturbed answers, logps [B', T'], with ``logits()``.
        uniform_weight: lambda, 5 in the official configuration.

    Returns:
        scalar, the mean over the scored tokens of either batch.
    """
    if uniform_weight < 0:
        raise refuse("assistant_loss", "uniform_weight", "a number >= 0", uniform_weight, "pass 5.0")
    remembered = -forget.total().sum() / forget.mask.sum().clamp_min(1)
    logs = log_probs(retain.logits()[retain.mask])
    return remembered + uniform_weight * (-math.log(logs.shape[-1]) - logs.mean(-1)).mean()
