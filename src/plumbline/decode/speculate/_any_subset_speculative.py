"""Any-Subset Speculative Decoding: fill masked positions in any order, several a pass, from the model's own joint."""

from __future__ import annotations

import itertools as it
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from plumbline.core.declare import Count, Evidence, Paper, Positive, claim, function
from plumbline.core.errors import refuse
from plumbline.decode.masked import masked_probs
from plumbline.decode.speculate.any_order import visibility
from plumbline.kernels.choice import Chooser, verify_chain
from plumbline.lab.enumeration import exact_distribution
from plumbline.lab.joint import JointTable, total_variation


@dataclass(frozen=True)
class _Filled:
    tokens: Tensor
    calls: int
    drafted: int
    kept: int


@function(
    paper=Paper(
        "Reviving Any-Subset Autoregressive Models with Principled Parallel Sampling and Speculative Decoding",
        "Guo and Ermon",
        2025,
        arxiv="2504.20456",
    ),
    says="Fill the masked positions of a text several at a time, in any order, exactly as one at a time would.",
    differs=(
        "The verifying pass also asks for the position after the drafts: one token more if all are kept.",
        "The official code's r_atol, which accepts more than the rule allows, is not offered: it is not exact.",
        "The mask's probability is 0 and the rest renormalised in draft and target; the official code only zeroes it.",
    ),
)
def any_subset_speculative(
    model_fn: Any, tokens: Tensor, *, mask_token_id: int, order: Sequence | None = None, k: Count = 10,
    temperature: Positive = 1.0, drafter: Callable | None = None, slow_verify: bool = False,
    chooser: Chooser | None = None,
) -> _Filled:  # fmt: skip
    r"""Draft k positions given the known ones, verify them in one pass, keep a prefix.

    .. math:: x_i \sim P_i = p(\cdot \mid known),\quad
        Q_i = p(\cdot \mid known, x_{<i}),\quad \text{keep with } \min(1, Q_i(x_i) / P_i(x_i)),
        \text{ else draw from } (Q_i - P_i)_+

    Args:
        model_fn: ``(tokens [1, L], content_mask [L, L] bool, targets [k]) -> logits [k, V]``, target t given the
            positions that row t of the mask shows; ``any_order.TwoStream(xlnet)``, or ``any_order.MaskedRows(bert,
            mask id)`` together with ``slow_verify=True``.
        tokens: [1, L] ids with the mask's where text is missing. order: positions in which to fill them; default left
            to right. k: positions drafted at a time. temperature: of draft and target alike.
        drafter: ``(tokens [L], known [L], position) -> probs [V]`` instead of a drafting pass: one call a round
            (``any_order.BigramDrafter``). slow_verify: allow a model that verifies one row a position.

    Returns:
        ``.tokens`` [1, L], ``.calls`` of the model, ``.drafted`` and ``.kept`` tokens. With the model as its own
        drafter calls never exceed the tokens filled in: two give at least two, a lone last one costs one.

    Raises InputError for a masked LM without slow_verify, an order of other positions, a model that peeks.
    """
    _check(model_fn, tokens, slow_verify)
    text, chooser = tokens[0].clone(), chooser or Chooser()
    order = _order((text == mask_token_id).nonzero().flatten().tolist(), order)
    sees, known = visibility(len(text), order, text.device), text != mask_token_id
    calls = drafted = kept = done = 0

    def probs(sequence: Tensor, mask: Tensor, positions: list[int]) -> Tensor:
        logits = model_fn(sequence[None], mask, torch.tensor(positions, device=text.device))
        return masked_probs(logits, mask_token_id, temperature)

    while done < len(order):
        ahead = order[done : done + k + 1]  # the drafts, and the position after them
        drafts = ahead[:k]
        guess, rows = text.clone(), list[Tensor]()
        if drafter is None:
            rows = list(probs(text, sees & known, drafts))
            calls += 1
        for i, at in enumerate(drafts):
            if drafter is not None:
                rows.append(drafter(guess, known, at).double())
            guess[at] = chooser.categorical(rows[i])
        if drafter is None and len(ahead) == 1:
            text[ahead[0]] = guess[ahead[0]]
            break
        target = _target(probs(guess, sees, ahead), rows, drafter is None)
        calls += len(ahead) if slow_verify else 1
        n, extra = verify_chain(chooser, target, torch.stack(rows), [int(guess[at]) for at in drafts])
        for at, token in zip(ahead, [*(int(guess[at]) for at in drafts[:n]), extra], strict=False):
            text[at], known[at] = token, True
        drafted, kept, done = drafted + len(drafts), kept + n, min(done + n + 1, len(order))
    return _Filled(text[None], calls, drafted, kept)


def _check(model_fn: Any, tokens: Tensor, slow_verify: bool) -> None:
    where, wrap = "any_subset_speculative", "wrap it in TwoStream, or in MaskedRows with slow_verify=True"
    if isinstance(model_fn, nn.Module) or not callable(model_fn):
        raise refuse(where, "model_fn", "a function of what targets see", type(model_fn).__name__, wrap)
    if not getattr(model_fn, "one_pass", True) and not slow_verify:
        raise refuse(where, "slow_verify", "True for a masked LM: in one pass a position would see itself", False,
                     "pass slow_verify=True (a call a position), or use a two-stream model")  # fmt: skip
    if tokens.dim() != 2 or tokens.shape[0] != 1:
        raise refuse(where, "tokens", "ids [1, L]", list(tokens.shape), "fill one text at a time")


def _order(missing: list[int], order: Sequence[int] | None) -> list[int]:
    if sorted(found := missing if order is None else [int(i) for i in order]) == missing:
        return found
    raise refuse("any_subset_speculative", "order", f"the masked positions {missing}", found, "name each once")


def _target(target: Tensor, drafts: list[Tensor], own: bool) -> Tensor:
    """What the drafts are held against [n + 1, V]; a first draft of the model's ``own`` is right by definition."""
    if own and float((target[0] - drafts[0]).abs().max()) > 0.05:
        raise refuse("any_subset_speculative", "model_fn", "a function of what content_mask shows alone",
                     "other probabilities under other hidden tokens", "block them in every layer")  # fmt: skip
    unused = [torch.eye(1, target.shape[1]).to(target)[0]] * (
        len(target) == len(drafts)
    )  # nothing comes after the drafts
    return torch.stack([drafts[0] if own else target[0], *target[1:], *unused])


@claim(any_subset_speculative, "Any-order drafts that are verified keep the joint; calls <= tokens.", cost="cpu:8s")
def exact_in_every_order() -> Evidence:
    table, spent, error = JointTable.random(3, 3), 0, 0.0
    start = torch.full((1, 3), table.mask)
    for order, k in it.product(it.permutations(range(3)), (2, 3)):
        options: dict[str, Any] = {"mask_token_id": table.mask, "order": order, "k": k}

        def fill(chooser: Chooser, options: dict[str, Any] = options) -> tuple[tuple[int, ...], int]:
            out = any_subset_speculative(table.any_order, start, chooser=chooser, **options)
            return tuple(out.tokens[0].tolist()), out.calls

        paths = exact_distribution(fill)
        spent, law = max(spent, *(calls for _, calls in paths)), dict.fromkeys(table.law(), 0.0)
        for (sequence, _), p in paths.items():
            law[sequence] += p
        error = max(error, total_variation(law, table.law()))
    a, b, c = (table.conditional({}, i) for i in range(3))
    loss = total_variation({(i, j, k): float(a[i] * b[j] * c[k]) for i, j, k in table.law()}, table.law())
    measured = {"tv_verified": error, "most_calls_for_3_tokens": spent, "tv_unverified": loss}
    return Evidence(holds=error < 1e-10 and spent <= 3, measured=measured, control=loss > 0.05)
