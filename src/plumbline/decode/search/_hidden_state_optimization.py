"""Hidden-state optimisation: a model that corrects its cached states, not its weights, while it reads a text."""

from __future__ import annotations

from typing import Any, Literal

import torch
from torch import Tensor

from plumbline.core.declare import Count, Evidence, NonNegative, Paper, claim, function
from plumbline.decode.search.hidden_states import HiddenStates, read_text
from plumbline.models import load
from plumbline.worlds import corpus
from plumbline.worlds.cipher import Cipher


@function(
    paper=Paper(
        "Making the Most of your Model: Methods for Finetuning and Applying Pretrained Transformers", "Yoshida", 2024,
        arxiv="2408.16241",
    ),
    says="Improve later predictions by gradient steps on the cached keys and values of the text read so far.",
    differs=(
        "The published Transformer-XL form moves layer inputs and computes keys from them again; here, as for GPT-2, "
        "the cached keys and values themselves move.",
        "Moments and step counts belong to a position from the moment it is cached, without decay when it grows old.",
        "With several steps a window, the window's own states move once, with the last: until then a fresh pass "
        "computes them from the moved past.",
        "Window, rate and number of steps are judgement: no official code is published.",
    ),
)  # fmt: skip
def hidden_state_optimization(
    model: Any, input_ids: Tensor, attention_mask: Tensor | None = None, *, lr: NonNegative = 3e-3, window: Count = 25,
    steps: Count = 1, update: Literal["past", "all"] = "past",
) -> Tensor:  # fmt: skip
    r"""The NLL of texts under a model whose cached states learn as it reads.

    .. math::
        \ell_j = \frac1w \sum_{t \in W_j} -\log p(x_{t+1} \mid x_{W_j, \le t}, h_{j-1}), \qquad
        h_j = \mathrm{Adam}(h_{j-1}, \nabla_h \ell_j) \,\Vert\, h(W_j)

    Each window is reported before the states learn from it, so nothing is predicted by a state that has seen it. The
    weights stay as they are and get no gradient; ``classify`` beside this file answers from optimised demonstrations.

    Args:
        model: a transformers causal LM in eval mode whose layers all have attention.
        input_ids: [B, L], no longer than the context; rows learn apart. attention_mask: [B, L], 0 on padding.
        lr: Adam's rate, 0 gives the model's own NLL. window: tokens a pass, w. steps: gradient steps a window.
        update: what moves, the states of earlier windows ("past") or the window's own as well ("all").

    Returns:
        [B, L - 1] nats of each next token, 0 where the mask is; float32, float64 for a float64 model.
    """
    mask = torch.ones_like(input_ids) if attention_mask is None else attention_mask
    hidden = HiddenStates(model, lr=lr, steps=steps, own=update == "all")
    return read_text(hidden, input_ids, mask, window)


def _foreign(tokenizer: Any, seed: int, rows: int = 2, length: int = 200) -> Tensor:
    """Text in a cipher that the zoo's models have never read, [rows, 1 + length]."""
    strange = Cipher(9)
    sentences = " ".join(strange.encode(document.text) for document in corpus.prose(seed, 10 * rows))
    ids = torch.tensor(tokenizer(sentences, truncation=True, max_length=rows * length + 1).input_ids)
    return torch.cat([ids[:1].expand(rows, 1), ids[1:].view(rows, length)], 1)


@claim(
    hidden_state_optimization,
    "Text of a domain that the model never saw gets likelier when the cached states learn from what was read.",
    cost="cpu:10s",
)
def adapts() -> Evidence:
    lm, drop, climb = load("zoo:base"), [], []
    for seed in range(5):
        ids = _foreign(lm.tokenizer, seed)
        own = hidden_state_optimization(lm.model, ids, lr=0.0).mean().item()
        drop.append(own - hidden_state_optimization(lm.model, ids).mean().item())
        away = read_text(HiddenStates(lm.model, lr=-3e-3), ids, torch.ones_like(ids), 25).mean().item()
        climb.append(away - own)
    measured = {"nll_drop": drop, "nll_rise_against_the_gradient": climb, "nll": own}
    return Evidence(min(drop) > 0, measured, control=min(climb) > 0)
