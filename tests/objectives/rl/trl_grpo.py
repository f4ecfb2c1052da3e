"""TRL's own GRPO loss, driven on given log-probabilities: its method runs on a stand-in for the trainer."""

from __future__ import annotations

from collections import defaultdict
from types import SimpleNamespace

import pytest
import torch
from torch import Tensor

from plumbline.kernels.seeds import generator


def trl_loss(
    new: Tensor, mask: Tensor, advantages: Tensor, *, kind: str = "grpo", level: str = "token",
    old: Tensor | None = None, ref: Tensor | None = None, beta: float = 0.0, low: float = 0.2, high: float = 0.2,
    cap: float | None = None, weights: Tensor | None = None, weigh_kl: bool = False, max_tokens: int = 0,
) -> Tensor:  # fmt: skip
    """The scalar that ``GRPOTrainer._compute_loss`` makes of log-probabilities [B,T]; gradients reach ``new``."""
    pytest.importorskip("trl")
    from trl import GRPOTrainer

    rows, tokens = new.shape
    accelerator = SimpleNamespace(num_processes=1, reduce=lambda x, reduction: x, gather=lambda x: x)
    args = SimpleNamespace(delta=cap, use_bias_correction_kl=weigh_kl, steps_per_generation=1)
    trainer = SimpleNamespace(
        _get_per_token_logps_and_entropies=lambda *_, **__: (new, torch.zeros_like(new), None), args=args,
        aux_loss_enabled=False, top_entropy_quantile=1.0, off_policy_mask_threshold=None, loss_type=kind,
        importance_sampling_level=level, beta=beta, epsilon_low=low, epsilon_high=high, accelerator=accelerator,
        use_vllm=weights is not None, vllm_importance_sampling_correction=True, model=SimpleNamespace(training=True),
        current_gradient_accumulation_steps=1, _entropy_bonus_enabled=False, max_completion_length=max_tokens,
        _metrics={"train": defaultdict(list)},
    )  # fmt: skip
    inputs = {
        "prompt_ids": torch.zeros(rows, 1).long(), "prompt_mask": torch.ones(rows, 1).long(), "advantages": advantages,
        "completion_ids": torch.zeros(rows, tokens).long(), "completion_mask": mask.long(),
        "num_items_in_batch": mask.sum(),
    }  # fmt: skip
    inputs |= {} if old is None else {"old_per_token_logps": old}
    inputs |= {} if ref is None else {"ref_per_token_logps": ref}
    inputs |= {} if weights is None else {"importance_sampling_ratio": weights}
    return GRPOTrainer._compute_loss(trainer, None, inputs)


def case(*, spread: float = 0.4) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """new (a leaf), old, ref [6,9], mask [6,9] of ragged completions, advantages [6]."""
    g = generator(0, "trl_grpo")
    old = -3 * torch.rand(6, 9, generator=g)
    new = (old + spread * torch.randn(6, 9, generator=g)).requires_grad_()
    ref = old + spread * torch.randn(6, 9, generator=g)
    mask = torch.arange(9) < torch.tensor([[9], [2], [5], [1], [7], [9]])
    return new, old, ref, mask, torch.randn(6, generator=g)


def agree(ours: Tensor, theirs: Tensor, new: Tensor) -> None:
    """The same loss and the same gradient, to 1e-5."""
    assert ours.item() == pytest.approx(theirs.item(), abs=1e-5)
    mine, other = (torch.autograd.grad(loss, new)[0] for loss in (ours, theirs))
    assert mine.abs().max() > 1e-3 and torch.allclose(mine, other, atol=1e-5)
