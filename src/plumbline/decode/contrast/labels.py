"""Answers as label words: their token ids, their probabilities, and an affine map that takes a prior out of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from plumbline.core.errors import refuse


@dataclass(frozen=True)
class Affine:
    r"""A diagonal affine map of class probabilities, :math:`q = W p + b`.

    Attributes:
        weight, bias: [..., C], W's diagonal and b; leading dimensions are one map an example.
        normalised: whether q is divided by its sum, so that it is a distribution again.
    """

    weight: Tensor
    bias: Tensor
    normalised: bool

    def __call__(self, probs: Tensor) -> Tensor:
        """Scores [N, C] of probabilities [N, C]; the answer is their argmax. Without normalising some may be < 0."""
        if probs.shape[-1] != self.weight.shape[-1]:
            raise refuse("affine_calibration", "probs", f"of {self.weight.shape[-1]} classes", list(probs.shape),
                         "pass the classes that the map was fitted on")  # fmt: skip
        scores = probs.to(self.weight) * self.weight + self.bias
        return scores / scores.sum(-1, keepdim=True) if self.normalised else scores


def label_ids(tokenizer: Any, words: Sequence[Sequence[str]]) -> list[list[int]]:
    """Token ids of C classes' surface forms, ``[["yes", "Yes"], ["no", "No"]]`` -> ``[[17, 90], [21, 4]]``.

    Each form is encoded without special tokens, as it is: put the space in that the answer begins with.

    Raises:
        InputError: forms of more than one token, all of them named, or a token that two classes share.
    """
    encoded = [[tokenizer.encode(w, add_special_tokens=False) for w in forms] for forms in words]
    long = [
        w for forms, ids in zip(words, encoded, strict=True) for w, i in zip(forms, ids, strict=True) if len(i) != 1
    ]
    if long:
        raise refuse("label_ids", "words", "forms of exactly one token", long, "use other label words")
    ids = [sorted({i[0] for i in forms}) for forms in encoded]
    _disjoint(ids)
    return ids


def label_probs(logits: Tensor, ids: Sequence[Sequence[int]]) -> Tensor:
    r"""Class probabilities from the answer's first token: sums over each class's forms, normalised over the classes.

    .. math:: p_c = \frac{\sum_{v \in ids_c} e^{z_v}}{\sum_{c'} \sum_{v \in ids_{c'}} e^{z_v}}

    Args:
        logits: [B, V]. ids: for each of C classes its token ids.

    Returns:
        [B, C] float32 (float64 for float64).
    """
    if not ids or not all(ids):
        raise refuse("label_probs", "ids", "at least one token for every class", ids, "take them from label_ids")
    _disjoint(ids)
    wide = logits.to(torch.promote_types(logits.dtype, torch.float32))
    classes = [torch.logsumexp(wide[:, list(forms)], -1) for forms in ids]
    return torch.softmax(torch.stack(classes, -1), -1)


def _disjoint(ids: Sequence[Sequence[int]]) -> None:
    flat = [i for forms in ids for i in set(forms)]
    shared = sorted({i for i in flat if flat.count(i) > 1})
    if shared:
        raise refuse("label words", "ids", "different for every class", f"shared tokens {shared}", "use other words")
