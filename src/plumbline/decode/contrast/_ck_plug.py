"""CK-PLUG: token by token, lean on the retrieved context or on memory, where the context made the model less sure."""

from __future__ import annotations

from typing import Annotated, Any

import torch
from torch import Tensor

from plumbline.core.declare import Bound, Count, Evidence, Paper, Probability, claim, logit_rule
from plumbline.decode.mixing import plausible
from plumbline.kernels.peer import Rule
from plumbline.kernels.seeds import generator
from plumbline.kernels.vocab import entropy, log_probs


@logit_rule(
    paper=Paper(
        "Parameters vs. Context: Fine-Grained Control of Knowledge Reliance in Language Models",
        "Bi et al.",
        2025,
        arxiv="2503.15888",
    ),
    says="Weigh a retrieved context against the model's memory, only at tokens where the context lowered confidence.",
    differs=(
        "Each row decides for itself; the official code reads one row.",
        "The kept tokens are the official code's: the 10 likeliest and those within a factor 100 of the likeliest,"
        " under either prompt; the paper says top-k of each.",
        "margin is minus the paper's epsilon, as the official code uses it (1 for LLaMA-3 and Mistral, 2 for LLaMA-2, 3"
        " for Qwen); the paper prints the other sign, with which epsilon <= -1 would never adjust. 0 is its Eq. 7.",
        "alpha=None is the official code's adaptive weighting; Eq. 10 is the same without its factor 2 and its nf.",
        "Tokens that earlier rules forbid count in neither entropy; rows that are adjusted come out normalised, so that"
        " beams compare.",
    ),
)
def ck_plug(
    memory: Any,
    *,
    alpha: Probability | None = 0.5,
    margin: Annotated[float, Bound(ge=-1)] = 0.0,
    ratio: Probability = 0.01,
    min_keep: Count = 10,
) -> Rule:
    r"""With :math:`l^c` the logits under the prompt with the context, :math:`l^p` under the prompt without it, both on
    the tokens plausible under either, and :math:`H_c, H_p` their entropies:

    .. math::

        out = \begin{cases} \alpha\, l^p + (1-\alpha)(l^c - l^p) & H_p - H_c < margin \cdot H_c \\ l^c & else
        \end{cases} \qquad
        \alpha = None:\; \tfrac{2}{D}\bigl[H_c\, l^p + H_p (l^c - l^p)\bigr],\quad
        D = H_c + \Bigl(1 + \tfrac{|H_c - H_p|}{H_c + H_p}\Bigr) H_p

    Args:
        memory: the same model under the prompt without the context, ``Peer(model, prompt=...)``; logits [B, V].
        alpha: 1 follows memory alone, 0 the context's contribution alone, 0.5 is the context's distribution at
            temperature 2; None weighs the two by their entropies.
        margin: 0 adjusts where the context raised the entropy, larger values more often, -1 never.
        ratio, min_keep: a token is plausible within this factor of the likeliest, or among the ``min_keep`` likeliest.

    Returns:
        A rule ``(tokens [B, T], logits [B, V]) -> [B, V]``; implausible tokens are -inf.

    Warns: the peer's prompt decides everything: with the context in both prompts no token is adjusted at margin 0.
    """

    def mix(context: Tensor, parametric: Tensor) -> Tensor:
        parametric = parametric.masked_fill(context == -torch.inf, -torch.inf)
        kept = plausible(context, ratio, min_keep) | plausible(parametric, ratio, min_keep)
        context, parametric = (x.masked_fill(~kept, -torch.inf) for x in (context, parametric))
        h_c, h_p = entropy(context)[:, None], entropy(parametric)[:, None]
        adjust = h_p - h_c < margin * h_c
        if alpha is None:
            total = h_c + (1 + (h_c - h_p).abs() / (h_c + h_p)) * h_p
            on_memory, on_context = 2 * h_c / total, 2 * h_p / total
        else:
            on_memory, on_context = torch.full_like(h_c, alpha), torch.full_like(h_c, 1 - alpha)
        both = (context > -torch.inf) & (parametric > -torch.inf)
        l_c, l_p = (log_probs(x).masked_fill(~both, 0.0) for x in (context, parametric))
        mixed = on_memory * l_p + on_context * (l_c - l_p)
        # no token is left where the two prompts allow none in common; then there is nothing to mix
        adjust = adjust & both.any(-1, keepdim=True)
        return torch.where(adjust, log_probs(mixed.masked_fill(~both, -torch.inf)), context)

    return Rule("ck_plug", mix, memory)


@claim(
    ck_plug,
    "In conflicts alpha moves the answer from the context's to memory's; where the context helps, nothing changes.",
    cost="cpu:2s",
)
def reliance_follows_alpha() -> Evidence:
    draw = generator(0, "ck_plug")
    n, vocab = 200, 20
    noise = torch.randn(2, n, vocab, generator=draw)
    remembered, told = torch.randint(0, 10, (n, 1), generator=draw), torch.randint(10, 20, (n, 1), generator=draw)
    memory = noise[0].scatter_add(1, remembered, torch.full((n, 1), 6.0))
    both = torch.cat([remembered, told], 1)
    conflict = noise[1].scatter_add(1, both, torch.tensor([[4.0, 4.5]]).expand(n, 2))
    support = memory.scatter_add(1, both, torch.tensor([[2.0, 2.5]]).expand(n, 2))
    tokens = torch.zeros(n, 1, dtype=torch.long)

    def picks(context: Tensor, **settings: Any) -> Tensor:
        return ck_plug(lambda _: memory, **settings)(tokens, context).argmax(-1, keepdim=True)

    share = [float((picks(conflict, alpha=a) == remembered).float().mean()) for a in (0.0, 0.25, 0.5, 0.75, 1.0)]
    unharmed = float((picks(support, alpha=0.0) == remembered).float().mean())
    everywhere = float((picks(support, alpha=0.0, margin=1e9) == remembered).float().mean())
    return Evidence(
        holds=all(a <= b for a, b in zip(share, share[1:], strict=False))
        and share[-1] - share[0] > 0.3
        and unharmed == 1,
        measured={"share_from_memory_by_alpha": share, "supported_right": unharmed, "adjusted_everywhere": everywhere},
        control=everywhere < 0.5,  # without the test for conflict, the contrast breaks what context and memory agree on
    )
