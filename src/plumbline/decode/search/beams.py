"""Beams that carry two scores, and exact search for the mode among the outputs that meet a condition."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from plumbline.core.errors import refuse
from plumbline.decode.loop import Run
from plumbline.kernels.cached_lm import CachedLM
from plumbline.kernels.vocab import log_probs

Attribute = Callable[[Tensor], Tensor]  # ids [N, T] -> log p(a | ids) [N]
IMPOSSIBLE = -1e9  # below every finite score, and still in the order of log p(y | x)


@dataclass(frozen=True)
class Beam:
    """A hypothesis: new tokens, log p(y | x), log p(a | x, y) and whether it has ended."""

    tokens: tuple[int, ...]
    logp: float
    attribute: float
    ended: bool

    def score(self, weight: float) -> float:
        """log p(y | x) + weight * log p(a | x, y)."""
        if weight == 0:
            return self.logp
        return self.logp + (weight * self.attribute if self.attribute > -torch.inf else IMPOSSIBLE)


def attribute_scores(where: str, attribute: Attribute, ids: Tensor) -> list[float]:
    """log p(a | ids) of every row, checked."""
    found = torch.as_tensor(attribute(ids)).double()
    if found.shape != (len(ids),):
        raise refuse(where, "attribute", f"a function to [{len(ids)}] log-probabilities", list(found.shape),
                     "return one number a row")  # fmt: skip
    if bool(found.isnan().any()) or bool((found > 1e-4).any()):
        raise refuse(where, "attribute", "log-probabilities, at most 0", found.tolist()[:8], "pass log p(a | ids)")
    return found.tolist()


def grow(
    run: Run, lm: CachedLM, growing: list[tuple[int, Beam]], branch: int, judges: tuple[Any, Any]
) -> dict[int, list[Beam]]:
    """The likeliest continuations of every hypothesis, by prompt, in one batch and with both scores."""
    place = run.input_ids.device
    rows = [[*run.pads[r], *run.rows[r], *beam.tokens] for r, beam in growing]
    ids = torch.tensor(rows, device=place)
    mask = torch.ones_like(ids)
    for i, (r, _) in enumerate(growing):
        mask[i, : len(run.pads[r])] = 0
    scores = lm(ids, mask)
    for processor in run.processors:
        scores = processor(ids, scores)
    logp, tokens = log_probs(scores).topk(min(branch, scores.shape[-1]), -1)
    found, texts = list[tuple[int, Beam]](), list[list[int]]()
    for i, (r, beam) in enumerate(growing):
        for p, token in zip(logp[i].tolist(), tokens[i].tolist(), strict=True):
            if p > -torch.inf:
                new = (*beam.tokens, token)
                ended = token in run.eos or len(new) >= run.room[r]
                found.append((r, Beam(new, beam.logp + p, 0.0, ended)))
                texts.append([*rows[i], token])
    every = torch.tensor(texts, device=place)
    ended = torch.tensor([beam.ended for _, beam in found], dtype=torch.bool, device=place)
    for criterion in run.criteria:
        ended |= torch.as_tensor(criterion(every, None), device=place)
    logs = torch.zeros(len(found), dtype=torch.float64)
    for judge, who in zip(judges, (~ended, ended), strict=True):
        if judge is not None and bool(who.any()):
            logs[who.cpu()] = torch.tensor(attribute_scores(run.where, judge, every[who]), dtype=torch.float64)
    out: dict[int, list[Beam]] = {}
    for (r, beam), log, end in zip(found, logs.tolist(), ended.tolist(), strict=True):
        out.setdefault(r, []).append(Beam(beam.tokens, beam.logp, log, end))
    return out


@dataclass
class Found:
    """The likeliest output that meets the condition: tokens with the end token, its log-probability (None: there is
    none), the prefixes looked at, and whether the search was completed within ``node_cap``."""

    tokens: tuple[int, ...] | None
    logp: float
    nodes: int
    complete: bool


def exact_conditional_mode(
    model: Any, prompt: Tensor, *, eos: int, max_new_tokens: int = 32, length: int | None = None,
    predicate: Callable[[tuple[int, ...]], bool] | None = None, node_cap: int = 100_000,
) -> Found:  # fmt: skip
    r"""Depth-first branch and bound for :math:`\arg\max_y p(y \mid x)` over the outputs that meet a condition.

    Children are visited by falling probability, and a prefix is left as soon as it is no likelier than the best whole
    output so far: a prefix only loses by growing. With ``length`` the end token is banned before that many tokens and
    forced there; the probabilities stay the model's own.

    Args:
        model: a causal LM, or ``ids [1, T] -> logits [1, V]``. prompt: [T] or [1, T]. eos: ends an output.
        max_new_tokens: outputs of more tokens (the end token not counted) are not searched.
        predicate: of the output's tokens without the end token; None: every output.
        node_cap: prefixes to look at before giving up with ``complete=False``.
    """
    if length is not None and not 0 <= length <= max_new_tokens:
        raise refuse("exact_conditional_mode", "length", f"0 to max_new_tokens = {max_new_tokens}", length, "raise it")
    lm = CachedLM(model, pad_token_id=-1) if hasattr(model, "generate") or hasattr(model, "use") else model
    start, longest = prompt.reshape(1, -1), max_new_tokens if length is None else length
    best, nodes = (None, -torch.inf), 0
    stack: list[tuple[tuple[int, ...], float]] = [((), 0.0)]
    while stack:
        text, logp = stack.pop()
        if logp <= best[1]:
            continue
        if nodes >= node_cap:
            return Found(*best, nodes, False)
        nodes += 1
        ids = torch.cat([start, torch.tensor([text], dtype=start.dtype, device=start.device)], 1) if text else start
        after = log_probs(lm(ids))[0].double()
        ends = (length is None or len(text) == length) and (predicate is None or predicate(text))
        if ends and logp + float(after[eos]) > best[1]:
            best = ((*text, eos), logp + float(after[eos]))
        if len(text) < longest:
            after[eos] = -torch.inf
            ranked = after.sort(descending=True)
            hopeful = int((logp + ranked.values > best[1]).sum())
            children = zip(ranked.indices[:hopeful].tolist(), ranked.values[:hopeful].tolist(), strict=True)
            stack.extend(reversed([((*text, token), logp + p) for token, p in children]))
    return Found(*best, nodes, True)
