"""Models of any order: an XLNet-style two-stream model, a masked LM one row a position, a bigram drafter."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from plumbline.core.errors import refuse
from plumbline.decode.masked import plain_logits


def visibility(length: int, order: list[int], device: torch.device) -> Tensor:
    """Who sees whom, [L, L]: given tokens each other, a position of the order the given ones and those before it.

    The mask is the same for the whole text, so what a token looks like to others never changes once it is known.
    The diagonal is False: whether a token's own content counts is the model's business.
    """
    rank = torch.full((length,), -1, device=device)
    rank[torch.tensor(order, device=device)] = torch.arange(len(order), device=device)
    sees = (rank[:, None] > rank[None, :]) | ((rank[:, None] < 0) & (rank[None, :] < 0))
    return sees & ~torch.eye(length, dtype=torch.bool, device=device)


class TwoStream:
    """An XLNet-style LM as ``(tokens [1, L], content_mask [L, L], targets [k]) -> logits [k, V]``.

    The query stream of a target sees what its row of the mask shows and not its own token, so one pass gives every
    :math:`p(x_{\\sigma_i} | x_{\\sigma_{<i}})` of a draft. ``perm_mask`` blocks where the content mask is False.

    Attributes:
        calls: forward passes.
    """

    def __init__(self, model: Any) -> None:
        self.model, self.calls = model, 0

    @torch.no_grad()
    def __call__(self, tokens: Tensor, content_mask: Tensor, targets: Tensor) -> Tensor:
        if self.model.training:
            raise refuse("TwoStream", "model", "in eval mode", "training mode", "call model.eval() first")
        if not bool(content_mask[targets].any(-1).all()):
            # a query that sees nothing attends to everything instead, its own token included
            raise refuse("TwoStream", "tokens", "some given token", "all masked", "give it at least a <cls> or <bos>")
        self.calls += 1
        weight = self.model.get_input_embeddings().weight
        blocked = (~content_mask).to(weight)[None]
        mapping = torch.nn.functional.one_hot(targets, tokens.shape[1]).to(weight)[None]
        half = weight.dtype in (torch.bfloat16, torch.float16)
        with torch.autocast(weight.device.type, weight.dtype, enabled=half):  # XLNet's positions are float32 always
            out = self.model(tokens.to(weight.device), perm_mask=blocked, target_mapping=mapping, use_mems=False)
        return out.logits[0].to(tokens.device)


class MaskedRows:
    """A masked LM in the same form, one row for every set of visible tokens: what a target may not see is masked.

    A masked LM sees its whole input, so a draft can only be verified by as many sequences as it has tokens; here they
    are one batch. ``any_subset_speculative`` takes it with ``slow_verify=True`` only.

    Attributes:
        one_pass: False, which tells the sampler. calls: forward passes.
    """

    one_pass = False

    def __init__(self, model: Any, mask_token_id: int) -> None:
        self.logits, self.mask_token_id, self.calls = plain_logits("MaskedRows", model), mask_token_id, 0

    def __call__(self, tokens: Tensor, content_mask: Tensor, targets: Tensor) -> Tensor:
        shown, row = torch.unique(content_mask[targets], dim=0, return_inverse=True)
        self.calls += 1
        logits = self.logits(torch.where(shown, tokens, self.mask_token_id))
        return logits[row, targets]


class BigramDrafter:
    """Bigram counts of the known text, with unigrams where the left neighbour was never followed by anything.

    It costs no call of the model and learns from what has been filled in. ``(tokens [L], known [L] bool, position) ->
    probs [V]``: the left neighbour counts as known when it is a draft itself.

    Args:
        vocab: V. skip: ids that are never drafted (the mask).
    """

    def __init__(self, vocab: int, skip: tuple[int, ...] = ()) -> None:
        self.vocab, self.skip = vocab, torch.tensor(skip, dtype=torch.long)

    def __call__(self, tokens: Tensor, known: Tensor, position: int) -> Tensor:
        counts = torch.zeros(self.vocab, dtype=torch.float64)
        if position > 0 and int(tokens[position - 1]) not in self.skip:
            pairs = known[:-1] & known[1:] & (tokens[:-1] == tokens[position - 1])
            counts += torch.bincount(tokens[1:][pairs].cpu(), minlength=self.vocab)
        counts[self.skip] = 0
        if not bool(counts.any()):
            counts += torch.bincount(tokens[known].cpu(), minlength=self.vocab)
            counts[self.skip] = 0
        if not bool(counts.any()):
            counts += 1  # nothing is known yet
            counts[self.skip] = 0
        return (counts / counts.sum()).to(tokens.device)


Drafter = Callable[[Tensor, Tensor, int], Tensor]
