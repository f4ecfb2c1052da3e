"""Random answers, and TRL's own losses on the same log-probabilities: its trainers, without their constructors."""

from __future__ import annotations

from collections import defaultdict
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor

from plumbline.core.scored import Scored
from plumbline.kernels.seeds import generator

ROWS, LENGTH = 5, 7


def draw(*roles: str, seed: int = 0) -> list[Scored]:
    """One ``Scored`` [5,7] a role: two unscored positions, then 1 to 5 scored ones; a role and its _ref share rows."""
    found = []
    for role in roles:
        lengths = torch.randint(1, LENGTH - 1, (ROWS, 1), generator=generator(seed, role.removesuffix("_ref")))
        mask = (torch.arange(LENGTH) >= 2) & (torch.arange(LENGTH) < 2 + lengths)
        found.append(Scored(-3 * torch.rand(ROWS, LENGTH, generator=generator(seed, role, "logps")), mask))
    return found


def pairs(seed: int = 0) -> list[Scored]:
    """chosen, rejected, chosen_ref, rejected_ref."""
    return draw("chosen", "rejected", "chosen_ref", "rejected_ref", seed=seed)


def row(scored: Scored, i: int) -> Scored:
    return Scored(scored.logps[i : i + 1], scored.mask[i : i + 1])


def _bare(trainer: type, **settings: Any) -> Any:
    """A trainer of TRL with nothing but what its loss reads."""
    bare = object.__new__(trainer)
    model = torch.nn.Identity().eval()
    model.is_gradient_checkpointing = False
    same = SimpleNamespace(gather=lambda x: x, gather_for_metrics=lambda x: x, device=torch.device("cpu"))
    bare.__dict__ |= dict(accelerator=same, model=model, args=SimpleNamespace(gradient_checkpointing_kwargs=None))
    bare.__dict__ |= dict(aux_loss_enabled=False, precompute_ref_logps=False, is_encoder_decoder=False)
    bare.__dict__ |= dict(_metrics=defaultdict(lambda: defaultdict(list)), _total_train_tokens=0, **settings)
    return bare


def _completion(mask: Tensor) -> Tensor:
    """The unshifted mask [B,L] of a next-token mask [B,T]."""
    return torch.cat([torch.zeros(len(mask), 1, dtype=torch.bool), mask], 1).long()


def _fused(logps_of: Any) -> Any:
    """A model whose fused head returns ``logps_of(input_ids)`` as label log-probabilities."""

    def model(input_ids: Tensor, **_: Any) -> Any:
        logps = logps_of(input_ids)
        other = torch.zeros_like(logps)
        return SimpleNamespace(log_probs=logps, entropy=other, mean_logits=other, is_top1=other.bool())

    return model


def trl_dpo(kind: str, pair: list[Scored], beta: float, label_smoothing: float = 0.0) -> Tensor:
    """``DPOTrainer._compute_loss`` on each pair by itself, [B]."""
    from trl.trainer.dpo_trainer import DPOTrainer

    bare = _bare(DPOTrainer, loss_types=[kind], loss_weights=[1.0], beta=beta, label_smoothing=label_smoothing)
    bare.__dict__ |= dict(ld_alpha=None, use_weighting=False, f_divergence_type="reverse_kl")
    found = []
    for i in range(ROWS):
        policy, ref = (torch.cat([row(s, i).logps for s in side]) for side in (pair[:2], pair[2:]))
        mask = _completion(torch.cat([row(s, i).mask for s in pair[:2]]))
        bare.ref_model = _fused(lambda _, ref=ref: ref)
        inputs = dict(input_ids=torch.zeros_like(mask), attention_mask=torch.ones_like(mask), completion_mask=mask)
        found.append(bare._compute_loss(_fused(lambda _, policy=policy: policy), inputs, False))
    return torch.stack(found)


def trl_kto(
    x: Scored, x_ref: Scored, desirable: Tensor, mismatched: Scored, mismatched_ref: Scored, **settings: float
) -> Tensor:
    """``KTOTrainer._compute_loss``: the mean over the batch."""
    from trl.trainer.kto_trainer import KTOTrainer

    bare = _bare(KTOTrainer, loss_type="kto", calculate_KL=True, **settings)

    def answering(matched: Scored, other: Scored) -> Any:  # ids of 1 mark the mismatched rows
        return _fused(lambda ids: other.logps if bool(ids.any()) else matched.logps)

    bare.ref_model = answering(x_ref, mismatched_ref)
    batch = {"label": desirable}
    for prefix, side, mark in (("", x, 0), ("KL_", mismatched, 1)):
        mask = _completion(side.mask)
        batch |= {f"{prefix}input_ids": torch.full_like(mask, mark), f"{prefix}attention_mask": torch.ones_like(mask)}
        batch[f"{prefix}completion_mask"] = mask
    return bare._compute_loss(answering(x, mismatched), batch, False)


def _two_way(logps: Tensor) -> Tensor:
    """Logits [B,L,2] under which token 0 has these log-probabilities [B,T]."""
    rest = torch.log(-torch.expm1(logps.double())).to(logps.dtype)
    scored = torch.stack([logps, rest], -1)
    return torch.cat([scored, torch.zeros_like(scored[:, :1])], 1)


def _without_reference(bare: Any, chosen: Scored, rejected: Scored) -> Tensor:
    """``get_batch_loss_metrics`` of an experimental trainer on each pair by itself, [B]."""
    found = []
    for i in range(ROWS):
        batch = {}
        for name, side in (("chosen", row(chosen, i)), ("rejected", row(rejected, i))):
            mask = _completion(side.mask)
            batch |= {f"{name}_input_ids": torch.zeros_like(mask), f"{name}_attention_mask": mask}
            batch[f"{name}_labels"] = torch.where(mask == 1, 0, -100)
        logits = _two_way(torch.cat([row(chosen, i).logps, row(rejected, i).logps]))
        model = lambda *_, logits=logits, **__: SimpleNamespace(logits=logits)  # noqa: E731
        found.append(bare.get_batch_loss_metrics(model, batch)[0])
    return torch.stack(found)


def trl_simpo(chosen: Scored, rejected: Scored, *, beta: float, gamma: float) -> Tensor:
    """TRL's CPO trainer with the SimPO loss and no NLL, [B]."""
    from trl.experimental.cpo.cpo_trainer import CPOTrainer

    settings: dict[str, Any] = dict(loss_type="simpo", beta=beta, simpo_gamma=gamma, cpo_alpha=0.0, alpha=0.0)
    return _without_reference(_bare(CPOTrainer, label_smoothing=0.0, pad_token_id=0, **settings), chosen, rejected)


def trl_orpo(chosen: Scored, rejected: Scored, *, weight: float) -> Tensor:
    """TRL's ORPO trainer, its NLL on the answer alone (the attention mask is the answer's), [B]."""
    from trl.experimental.orpo.orpo_trainer import ORPOTrainer

    return _without_reference(_bare(ORPOTrainer, beta=weight, padding_value=0), chosen, rejected)
