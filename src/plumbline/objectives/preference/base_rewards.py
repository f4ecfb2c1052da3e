"""What rewards of the base policy's own samples say of a prompt: a quantile to be centred on."""

from __future__ import annotations

import torch
from torch import Tensor

from plumbline.core.errors import refuse
from plumbline.kernels.notes import note


def base_quantile(base_rewards: Tensor, *, quantile: float = 0.85, least: int = 16) -> Tensor:
    r"""The reward below which a share ``quantile`` of the base policy's samples fall, per prompt.

    Linear interpolation between order statistics. A prompt with fewer than ``least`` samples gets the quantile of
    the samples of all prompts together; the share of those prompts is noted as ``global_reference``.

    Args:
        base_rewards: [P, S] or [P, S, K], rewards of S samples of the base policy for each of P prompts (by K reward
            models); NaN where a prompt has fewer samples.
        quantile: 0.85 is from memory of the paper, unverified. least: 16 is a judgement.

    Returns:
        [P] or [P, K] float32 or wider.

    Raises:
        InputError: no sample at all, or a quantile outside [0, 1].
    """
    if not 0 <= quantile <= 1:
        raise refuse("base_quantile", "quantile", "within [0, 1]", quantile, "pass 0.85, say")
    if base_rewards.dim() not in (2, 3):
        got = tuple(base_rewards.shape)
        raise refuse("base_quantile", "base_rewards", "of shape [P,S] or [P,S,K]", got, "one row of samples a prompt")
    wide = base_rewards.to(torch.promote_types(base_rewards.dtype, torch.float32))
    pooled = wide.flatten(0, 1).nanquantile(quantile, dim=0)  # [] or [K]
    if bool(pooled.isnan().any()):
        raise refuse("base_quantile", "base_rewards", "at least one number for each reward", "none", "sample first")
    few = (~wide.isnan()).sum(1) < least
    note(global_reference=few.float())
    return torch.where(few, pooled, wide.nanquantile(quantile, dim=1))
