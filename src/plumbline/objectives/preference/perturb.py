"""Change a few tokens of a batch, those that matter least most often, and stop scoring them; for every model alike."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from plumbline.core.errors import refuse
from plumbline.core.scored import IGNORED

Change = Callable[[Tensor, torch.Generator | None], Tensor]  # ids [N] -> ids [N]
Columns = dict[str, Any]


def replaced(vocab_size: int, *, lowest: int = 5) -> Change:
    """Another id, uniform on [lowest, vocab_size); ids below 5 are special in Llama's tokenizer."""
    if not 0 <= lowest < vocab_size:
        raise refuse("replaced", "lowest", f"an id below vocab_size = {vocab_size}", lowest, "pass len(tokenizer)")
    return lambda ids, generator: torch.randint(lowest, vocab_size, ids.shape, generator=generator).to(ids.device)


def masked(mask_id: int) -> Change:
    """One id for all: the tokenizer's mask, or its unknown or padding token where it has none."""
    return lambda ids, generator: torch.full_like(ids, mask_id)


def perturb(
    input_ids: Tensor, labels: Tensor, relevance: Tensor, attention_mask: Tensor, *, change: Change, rate: float = 0.05,
    never: Sequence[int] = (), generator: torch.Generator | None = None,
) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    r"""Draw positions without replacement in proportion to their irrelevance, change their ids, drop their labels.

    .. math:: P(t) \propto \frac{1 - \rho_t}{\max_s (1 - \rho_s)}, \qquad n = \max(1, \lfloor rate \cdot N \rfloor)

    with N the tokens of the batch that may change: attended, and not among ``never``. Fewer change where fewer are
    irrelevant at all, and none at rate 0.

    Args:
        input_ids: [B, L]. labels: [B, L], -100 where not scored, unshifted. attention_mask: [B, L], 0 on padding.
        relevance: [B, L] in [0, 1], how much a token depends on the condition (an image, a passage); 1 or NaN for
            tokens to be kept, the prompt's for instance.
        change: ``replaced(vocab_size)`` or ``masked(mask_id)``.
        never: ids that are never changed: BOS, EOS, padding.
        generator: on the CPU.

    Returns:
        New ids [B, L], new labels [B, L] and the changed positions [B, L] bool.

    Raises:
        InputError: shapes differ, or relevance or rate lie outside [0, 1].
    """
    shapes = {tuple(t.shape) for t in (input_ids, labels, relevance, attention_mask)}
    if len(shapes) > 1:
        raise refuse("perturb", "relevance", "of the shape [B,L] of input_ids", shapes, "pass one number per token")
    score = 1 - relevance.float().nan_to_num(nan=1.0)
    if not 0 <= rate <= 1 or bool((score < 0).any()) or bool((score > 1).any()):
        got = [rate, float(relevance.min()), float(relevance.max())]
        raise refuse("perturb", "rate and relevance", "within [0, 1]", got, "scale relevance to [0, 1]")
    free = attention_mask.bool() & ~torch.isin(input_ids, torch.tensor(list(never), device=input_ids.device))
    score = torch.where(free, score, 0.0).flatten().cpu()
    most = int((score > 0).sum())
    count = min(most, max(1, int(rate * int(free.sum())))) if rate > 0 else 0
    changed = torch.zeros_like(score, dtype=torch.bool)
    if count:
        changed[torch.multinomial(score / score.max(), count, generator=generator)] = True
    changed = changed.view(input_ids.shape).to(input_ids.device)
    ids = input_ids.clone()
    ids[changed] = change(input_ids[changed], generator)
    return ids, labels.masked_fill(changed, IGNORED), changed


def perturbed_pair(
    batch: Mapping[str, Columns], *, change: Change, rate: float = 0.05, never: Sequence[int] = (),
    generator: torch.Generator | None = None, degrade: Callable[[Columns], Columns] | None = None,
) -> dict[str, Columns]:  # fmt: skip
    """For ``fit(prepare=...)``: the streams that ``tars`` reads, from ``chosen`` and ``rejected`` as collated.

    Both need a column ``relevance`` [B, L]. They come back perturbed, so that policy and reference see the same ids;
    as they were they become ``clean_chosen`` and ``clean_rejected``. With ``degrade`` (columns of the perturbed
    chosen stream -> the same under a worse condition, ``without_context`` for text) comes the stream ``degraded``.
    """
    found = dict(batch)
    for side in ("chosen", "rejected"):
        if "relevance" not in batch.get(side, {}):
            got = sorted(batch.get(side, batch))
            raise refuse("perturbed_pair", f"stream {side}", "a stream with a column relevance", got, "add the column")
        columns = batch[side]
        names = ("input_ids", "labels", "relevance", "attention_mask")
        how: dict[str, Any] = dict(change=change, rate=rate, never=never, generator=generator)
        ids, labels, _ = perturb(*(columns[name] for name in names), **how)
        found[f"clean_{side}"] = columns
        found[side] = {**columns, "input_ids": ids, "labels": labels}
    if degrade is not None:
        found["degraded"] = degrade(found["chosen"])
    return found


def without_context(columns: Columns) -> Columns:
    """The text-only degraded condition: a column ``context`` [B, L] marks tokens, and they are not attended to."""
    if "context" not in columns:
        raise refuse(
            "without_context", "columns", "a stream with a column context", sorted(columns), "mark those tokens"
        )
    return {**columns, "attention_mask": columns["attention_mask"].masked_fill(columns["context"].bool(), 0)}
