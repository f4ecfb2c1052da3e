"""What a group's centred rewards are divided by: pass one of these, or a function of your own, as ``spread``."""

from __future__ import annotations

import torch
from torch import Tensor

from plumbline.kernels.ranks import everywhere


def group_std(rewards: Tensor, groups: Tensor) -> Tensor:
    """Unbiased standard deviation of the row's own group, [N], [N] -> [N]; every group has two rows or more."""
    _, index, count = groups.unique(return_inverse=True, return_counts=True)
    zero = rewards.new_zeros(len(count))
    mean = zero.index_add(0, index, rewards) / count
    square = zero.index_add(0, index, (rewards - mean[index]).square())
    return (square / (count - 1)).sqrt()[index]


def batch_std(rewards: Tensor, groups: Tensor) -> Tensor:
    """Unbiased standard deviation of all rewards of the batch over all processes, [N], [N] -> [N]."""
    return torch.std(everywhere(rewards)).expand_as(rewards)
