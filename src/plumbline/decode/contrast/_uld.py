"""ULD: unlearn at decoding time by subtracting an assistant that knows what is to be forgotten and nothing else."""

from __future__ import annotations

from typing import Annotated, Any

import torch
from torch import Tensor

from plumbline.core.declare import Bound, Count, Evidence, Paper, Probability, claim, logit_rule
from plumbline.decode.contrast.assistants import subtract
from plumbline.kernels.peer import Rule
from plumbline.kernels.seeds import generator


@logit_rule(
    paper=Paper(
        "Reversing the Forget-Retain Objectives: An Efficient LLM Unlearning Framework from Logit Difference",
        "Ji et al.",
        2024,
        arxiv="2406.08607",
    ),
    says="Subtract the logits of a small assistant that remembers the forget set and is uniform elsewhere.",
    differs=(
        "min_keep is apart from ratio; the official code takes int(ratio * V) for it, the default here (1 at least).",
        "The assistant counts relative to the uniform distribution, log(V p), so that a uniform one changes nothing, "
        "also in scoring, where tokens outside the set keep the target's logits. The official code adds raw logits.",
        "Assistants and their loss are in decode.contrast.assistants: assistant(), assistant_loss(), subtract().",
        "A token that the assistant gives probability 0 is left as the target has it.",
    ),
)
def uld(
    assistant: Any,
    *,
    weight: Annotated[float, Bound(gt=-1e6, le=0)] = -0.8,
    ratio: Probability = 0.01,
    min_keep: Count | None = None,
) -> Rule:
    r"""Logits of the target without what the assistant remembers; the model that generates is the target.

    .. math::
        out_v = \log p(v) + w \log(V\,p_{assistant}(v))
        \quad\text{if}\quad p(v) \ge ratio \cdot \max p, \quad\text{else } -\infty

    weight 0 or a uniform assistant leaves the target, inside the set. ratio 0 keeps every token. To score a given text
    use ``assistants.subtract``, which leaves tokens outside the set at the target's own logits.

    Args:
        assistant: trained on the forget set to remember it and to be uniform elsewhere, logits [B, V].
        weight: w <= 0 (TOFU -0.8; the official default -1).
        ratio: share of the likeliest token's probability (TOFU 0.01; the official default 0.1).
        min_keep: tokens kept at least; None: max(1, int(ratio * V)).

    Returns:
        a rule on logits [B, V]; not normalised (beams: pass ``renormalize_logits=True``).
    """

    def mix(target: Tensor, assistant: Tensor) -> Tensor:
        out, kept = subtract(target, assistant, weight=weight, ratio=ratio, min_keep=min_keep)
        return out.masked_fill(~kept, -torch.inf)

    return Rule("uld", mix, assistant)


@claim(
    uld,
    "An assistant that knows only the forget set takes it out and leaves the retain set as it was; one that knows "
    "everything takes the retain set with it.",
    cost="cpu:2s",
)
def forgets_and_retains() -> Evidence:
    """A bigram table of 200 words: the target knows a successor of each, 100 to be forgotten and 100 to be kept."""
    words = 200
    g = generator(0, "uld")
    successor = torch.randperm(words, generator=g)
    target = 0.5 * torch.randn(words, words, generator=g)
    target[torch.arange(words), successor] += 8.0
    forget = torch.arange(words) < words // 2
    everything = torch.nn.functional.one_hot(successor, words) * 20.0
    tokens = torch.arange(words)[:, None]

    def kept(table: Tensor, weight: float = -0.8) -> dict[str, float]:
        """Share of the pairs that greedy decoding still says."""
        scores = uld(lambda t: table[t[:, -1]], weight=weight, min_keep=20)(tokens, target)
        said = (scores.argmax(-1) == successor).float()
        return {"forget": float(said[forget].mean()), "retain": float(said[~forget].mean())}

    found = {
        "target": kept(torch.zeros(words, words)),
        "uld": kept(everything * forget[:, None]),
        "assistant_that_knows_all": kept(everything),
    }
    holds = found["target"]["forget"] == 1 and found["uld"]["forget"] <= 0.1 and found["uld"]["retain"] == 1
    return Evidence(holds=holds, measured=found, control=found["assistant_that_knows_all"]["retain"] <= 0.1)
