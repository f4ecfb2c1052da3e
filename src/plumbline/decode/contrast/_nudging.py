"""Nudging: a small aligned model speaks where a large base model is unsure, token by token."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from plumbline.core.declare import Evidence, Paper, Probability, claim, logit_rule
from plumbline.kernels.peer import Rule
from plumbline.kernels.seeds import generator
from plumbline.kernels.vocab import log_probs


@logit_rule(
    paper=Paper("Nudging: Inference-time Alignment via Model Collaboration", "Fei et al.", 2024, arxiv="2410.09300"),
    says="Let a small aligned model choose the token wherever the base model's likeliest token is not likely enough.",
    differs=(
        "Token by token over one vocabulary; the paper hands over words of text, see nudging_text.",
        "Where the base would end the answer (eos_token_id given) the nudger speaks, as at text level, where an empty"
        " completion by the base gives the turn back; with eos_token_id=None the base may end it.",
        "The nudger's turn returns log-probabilities, so that beams of the two models compare.",
    ),
)
def nudging(nudger: Any, *, threshold: Probability = 0.3, eos_token_id: int | list | None = None) -> Rule:
    r"""Base logits where the base is sure, the nudger's elsewhere.

    .. math::

        out = \begin{cases} \ell_{base} & \max_{v \ne eos} p_{base}(v) \ge threshold \\
        \log p_{nudger} & \text{else} \end{cases}

    Args:
        nudger: the small aligned model, usually ``Peer(model, prompt=...)`` with the question in its chat template;
            logits [B, V].
        threshold: 0 is the base alone, 1 the nudger alone (wherever the base is not certain).
        eos_token_id: the base's end tokens. Given, they are forbidden on the base's turn, so that only the nudger ends
            the answer, as in the paper. None: not touched, and threshold 0 gives the base's tokens exactly.

    Returns:
        A rule ``(tokens [B, T], logits [B, V]) -> [B, V]``. It must come before any rule that sharpens or flattens
        the logits: how sure the base is, is read from what it is given.
    """
    ends = [] if eos_token_id is None else [eos_token_id] if isinstance(eos_token_id, int) else list(eos_token_id)

    def choose(base: Tensor, aligned: Tensor) -> Tensor:
        probability = torch.softmax(base, -1)
        probability[:, ends] = 0.0
        sure = probability.amax(-1, keepdim=True) >= threshold
        own = base.clone()
        own[:, ends] = -torch.inf
        return torch.where(sure, own, log_probs(aligned))

    return Rule("nudging", choose, nudger)


@claim(
    nudging,
    "A base that knows content and a nudger that knows style answer right together, which neither does alone.",
    cost="cpu:2s",
)
def together_better_than_alone() -> Evidence:
    draw = generator(0, "nudging")
    tasks, length, vocab = 100, 12, 20
    right = torch.randint(0, vocab, (tasks, length), generator=draw)
    style = (torch.arange(length) % 3 == 0).expand(tasks, -1)  # a third of the positions
    peaked = 6.0 * torch.nn.functional.one_hot(right, vocab) + torch.randn(tasks, length, vocab, generator=draw)
    flat = 0.5 * torch.randn(2, tasks, length, vocab, generator=draw)
    misled = flat[1] + 5.0 * torch.nn.functional.one_hot((right + 7) % vocab, vocab)
    knows, aligned = torch.where(style[..., None], flat[0], peaked), torch.where(style[..., None], peaked, misled)

    def solved(choose: Callable[[Tensor, Tensor], Tensor]) -> float:
        tokens = torch.zeros(tasks, 1, dtype=torch.long)
        for t in range(length):
            tokens = torch.cat([tokens, choose(tokens, knows[:, t]).argmax(-1, keepdim=True)], 1)
        return float((tokens[:, 1:] == right).all(1).float().mean())

    def at(threshold: float) -> float:
        return solved(nudging(lambda tokens: aligned[:, tokens.shape[1] - 1], threshold=threshold))

    turns = torch.rand(tasks, length, generator=draw) < 1 / 3  # as many turns for the nudger, at random places
    guessed = solved(lambda tokens, base: torch.where(turns[:, t := tokens.shape[1] - 1, None], aligned[:, t], base))
    alone = {"base": at(0.0), "nudger": at(1.0)}
    together = at(0.3)
    return Evidence(
        holds=together > max(alone.values()) + 0.5,
        measured=alone | {"nudged": together, "nudged_at_random_places": guessed},
        control=guessed < 0.1 and max(alone.values()) < 0.1,
    )
