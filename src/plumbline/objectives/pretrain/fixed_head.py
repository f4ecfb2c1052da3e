"""A classification head that is never trained: what makes features stationary."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from plumbline.core.errors import refuse


class FixedHead(nn.Module):
    r"""Logits :math:`s\, W f` of features under fixed prototypes, [..., D] -> [..., K].

    Args:
        prototypes: W [K, D], ``d_simplex(1024)`` say; kept as a buffer, so that it is saved and moved but not trained.
        scale: s. 1 with features as they come, as in the official code; 8 to 16 where they are normalised, or else
            cross-entropy cannot come near 0 (our judgement).

    Raises:
        InputError: the prototypes are no matrix, or the features have another width.
    """

    prototypes: Tensor

    def __init__(self, prototypes: Tensor, *, scale: float = 1.0) -> None:
        super().__init__()
        if prototypes.dim() != 2:
            raise refuse("FixedHead", "prototypes", "[K,D]", tuple(prototypes.shape), "pass d_simplex(K)")
        self.register_buffer("prototypes", prototypes.detach().clone())
        self.scale = scale

    def forward(self, features: Tensor) -> Tensor:
        if features.shape[-1] != self.prototypes.shape[1]:
            raise refuse("FixedHead", "features", f"of width {self.prototypes.shape[1]}", tuple(features.shape),
                         "project them to one less than the allocated classes")  # fmt: skip
        wide = torch.promote_types(features.dtype, torch.float32)
        return self.scale * (features.to(wide) @ self.prototypes.to(wide).T)
