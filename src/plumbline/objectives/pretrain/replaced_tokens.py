"""Replaced tokens: hide some, let a generator fill them in, and ask a discriminator which ones are not the original."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from plumbline.core.errors import refuse
from plumbline.core.scored import IGNORED, Scored
from plumbline.kernels.head import hidden_states

_FEW = 0.02  # share of masked tokens replaced below which there is nothing left to detect


class Detection(NamedTuple):
    """What ``electra`` takes: generator ``Scored`` at the masked positions, ``detected`` and ``replaced`` [B,T]."""

    generator: Scored
    detected: Tensor
    replaced: Tensor


def masked_positions(allowed: Tensor, share: float, generator: torch.Generator | None = None) -> Tensor:
    r"""Draw :math:`\max(1, \mathrm{round}(n \cdot share))` of the n allowed positions of each row, [B,T] bool.

    Args:
        allowed: [B,T] bool. share: of the positions of a row. generator: on any device.
    """
    where = allowed.device if generator is None else generator.device
    scores = torch.rand(allowed.shape, generator=generator, device=where).to(allowed.device)
    order = scores.masked_fill(~allowed, 2.0).argsort(-1).argsort(-1)  # each position's place among the row's draws
    count = allowed.sum(-1, keepdim=True)
    wanted = (count * share).round().clamp(min=1)
    return allowed & (order < wanted)


def corrupted(input_ids: Tensor, masked: Tensor, sampled: Tensor) -> tuple[Tensor, Tensor]:
    """Ids [B,T] with the samples at the masked positions, and [B,T] int64: 1 where a sample is not the original."""
    ids = torch.where(masked, sampled, input_ids)
    return ids, (ids != input_ids).long()


def share_embeddings(generator: Any, discriminator: Any) -> None:
    """Give the generator the discriminator's token embeddings, as the paper does.

    Raises:
        InputError: their sizes differ.
    """
    ours, theirs = generator.get_input_embeddings(), discriminator.get_input_embeddings()
    if ours.weight.shape != theirs.weight.shape:
        got = f"{tuple(ours.weight.shape)} and {tuple(theirs.weight.shape)}"
        raise refuse("share_embeddings", "models", "with embeddings of one size", got, "set embedding_size in both")
    generator.set_input_embeddings(theirs)
    generator.tie_weights()


class Detector(nn.Module):
    """A discriminator out of any causal LM: a linear head on what its output head reads. It sees the left side only.

    Args:
        model: a transformers causal LM; its own output head is not used.
    """

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.body = model
        width, dtype = model.get_output_embeddings().weight.shape[1], next(model.parameters()).dtype
        self.score = nn.Linear(width, 1, dtype=dtype)

    def get_input_embeddings(self) -> nn.Module:
        return self.body.get_input_embeddings()

    def forward(self, input_ids: Tensor, attention_mask: Tensor | None = None) -> Tensor:
        """[B,L] ids -> [B,L] logits."""
        return self.score(hidden_states(self.body, input_ids, attention_mask))[..., 0]


class ReplacedTokens(nn.Module):
    """ELECTRA's two models as one, of which one keeps ``discriminator``.

    ``fit(module, {"x": rows}, loss=lambda s: s.mean(electra(*module(s.batch["x"], s.generator))))`` trains it.

    Args:
        generator: a masked LM (``ElectraForMaskedLM``) with ``mask_id``, or a causal LM without.
        discriminator: ids and attention mask to logits [B,L], as they are or in ``.logits`` (``ElectraForPreTraining``,
            ``Detector(causal_lm)``).
        mask_id: the mask token. None is for a causal generator: it predicts a token from those before it, so nothing is
            hidden from it, the first token is never masked, and the three results begin at the second one (T = L - 1).
        special_ids: tokens that are never masked. share: of the attended tokens of a row that are masked.
        keep: share of the masked tokens that the generator sees as they are (it is scored on them all the same).
        temperature: of the generator's samples.
    """

    def __init__(
        self, generator: Any, discriminator: Any, *, mask_id: int | None = None, special_ids: Sequence[int] = (),
        share: float = 0.15, keep: float = 0.15, temperature: float = 1.0,
    ) -> None:  # fmt: skip
        super().__init__()
        for name, value, top in (("share", share, True), ("keep", keep, False)):
            if not (0 < value <= 1 if top else 0 <= value <= 1):
                raise refuse("ReplacedTokens", name, "a share of the tokens", value, "pass 0.15")
        self.generator, self.discriminator, self.mask_id = generator, discriminator, mask_id
        self.special_ids, self.share, self.keep, self.temperature = tuple(special_ids), share, keep, temperature

    def forward(self, batch: Mapping[str, Tensor], rng: torch.Generator | None = None) -> Detection:
        """One corruption of a batch.

        Args:
            batch: ``input_ids`` [B,L] and ``attention_mask`` [B,L] (all attended where left out).
            rng: draws masks and samples; torch's global generator where left out.
        """
        ids = batch["input_ids"]
        attended = batch.get("attention_mask", torch.ones_like(ids)).bool()
        special = torch.tensor(
            [*self.special_ids, *([] if self.mask_id is None else [self.mask_id])], device=ids.device
        )
        allowed = attended & ~torch.isin(ids, special.long())
        if self.mask_id is None:
            allowed &= attended.cumsum(-1) > 1  # a causal model says nothing of the first token
        masked = masked_positions(allowed, self.share, rng)
        scored = self._scored(ids, attended.long(), masked, rng)
        first = ids.shape[1] - scored.logps.shape[1]
        sampled = scored.sample(1, generator=rng, temperature=self.temperature)[..., 0]
        seen, replaced = corrupted(ids, masked, nn.functional.pad(sampled, (first, 0)))
        found = self.discriminator(input_ids=seen, attention_mask=attended.long())
        self._warn(replaced, masked)
        logits = found if isinstance(found, Tensor) else found.logits
        labels = replaced.masked_fill(~attended, IGNORED)
        return Detection(scored, logits.reshape(ids.shape)[:, first:], labels[:, first:])

    def _scored(self, ids: Tensor, attention: Tensor, masked: Tensor, rng: torch.Generator | None) -> Scored:
        if self.mask_id is None:
            return Scored.of(self.generator, ids, attention, masked)
        where = ids.device if rng is None else rng.device
        hidden = masked & (torch.rand(ids.shape, generator=rng, device=where).to(ids.device) >= self.keep)
        logits = self.generator(input_ids=ids.masked_fill(hidden, self.mask_id), attention_mask=attention).logits
        return Scored.from_logits(logits, ids, masked, shift=False)

    def _warn(self, replaced: Tensor, masked: Tensor) -> None:
        share = float(replaced.sum() / masked.sum().clamp(min=1)) if self.training and masked.any() else 1.0
        if share < _FEW:
            warnings.warn(
                f"ReplacedTokens: only {share:.1%} of the masked tokens were replaced; the generator is too strong for "
                "the discriminator to learn from: make it smaller, or raise temperature or share",
                stacklevel=3,
            )
