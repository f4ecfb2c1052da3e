"""Entropy Adaptive Decoding: a small model writes, and a large one takes over while the text is hard to predict."""

from __future__ import annotations

import copy
import math
from collections import deque
from collections.abc import Callable
from typing import Annotated, Any, Literal

import torch
from torch import Tensor, nn
from transformers import GenerationConfig

from plumbline.core.declare import Bound, Count, Evidence, Paper, claim, sampler
from plumbline.decode.loop import Report, Run, same_place
from plumbline.kernels.cached_lm import CachedLM
from plumbline.kernels.choice import Chooser
from plumbline.kernels.seeds import rng
from plumbline.kernels.vocab import entropy


@sampler(
    paper=Paper(
        "Entropy Adaptive Decoding: Dynamic Model Switching for Efficient Inference",
        "Simonds",
        2025,
        arxiv="2502.06833",
    ),
    says="Decode with a small model and hand over to a large one while the running entropy is high.",
    differs=(
        "No code was published: 1 bit and 10 tokens between switches are judgement, the paper sweeps the threshold.",
        "A token's entropy decides about the next token, so that each costs one model; the mean runs on over switches.",
        "Rows of a batch switch on their own; a step asks a model if any row is on it, and then for the whole batch.",
        "What the large model reads to catch up is reported; the paper's cost leaves it out.",
    ),
)
def entropy_adaptive_decoding(
    model: Any, input_ids: Tensor, logits_processor: Any, stopping_criteria: Any, generation_config: Any, *,
    large: nn.Module, threshold: float = 1.0, window: Count = 5, min_tokens: Annotated[int, Bound(ge=0)] = 10,
    start: Literal["small", "large"] = "small", report: Report | None = None, chooser: Chooser | None = None,
    **model_kwargs: Any,
) -> Any:  # fmt: skip
    r"""``small.generate(ids, custom_generate=entropy_adaptive_decoding, large=model)``.

    With :math:`H_t` the entropy in bits of the active model's raw next-token distribution and c the number of tokens
    since the last switch, after each token:

    .. math::

        \bar H_t = \frac1w \sum_{i=t-w+1}^{t} H_i, \qquad
        active_{t+1} = \begin{cases} large & \bar H_t > threshold,\; c \ge min\_tokens \\
        small & \bar H_t \le threshold,\; c \ge min\_tokens \\ active_t & \text{else} \end{cases}

    Approximate by design: the text is neither model's own.

    Args:
        input_ids: [B, L], left-padded. The model that generates is the small one.
        large: a causal LM of the same vocabulary.
        threshold: bits; inf never asks the large model, below 0 never leaves it once it was asked.
        window: w; at the start the mean is over the tokens there are. min_tokens: least tokens between switches.
        start: the model of the first token.
        report: filled with calls of either model, the tokens the large one chose and what it read.
        chooser: where random outcomes come from.

    Returns:
        [B, L'] ids.
    """
    run = Run("entropy_adaptive_decoding", model, input_ids, logits_processor, stopping_criteria, generation_config,
              model_kwargs, report=report, chooser=chooser)  # fmt: skip
    same_place(run.where, "large", model, large)
    return _alternate(run, large, start == "large", window, min_tokens, lambda row, mean: mean > threshold)


def _alternate(
    run: Run, large: nn.Module, first: bool, window: int, min_tokens: int, decide: Callable[[int, float], bool]
) -> Any:
    """One token a step from each row's active model; ``decide(row, mean entropy)`` says whether the large is next."""
    models = (CachedLM(run.model, -1), CachedLM(large, -1))
    rows = len(run.rows)
    on_large, since, seen = [first] * rows, [0] * rows, [deque[float](maxlen=window) for _ in range(rows)]
    while group := run.active():
        ids = torch.tensor([[*run.pads[b], *run.rows[b]] for b in group], device=run.input_ids.device)
        real = torch.tensor([[0] * len(run.pads[b]) + [1] * len(run.rows[b]) for b in group], device=ids.device)
        asked = {which: models[which](ids, real) for which in sorted({on_large[b] for b in group})}
        raw = torch.stack([asked[on_large[b]][i] for i, b in enumerate(group)])
        bits = (entropy(raw) / math.log(2)).tolist()
        for i, b in enumerate(group):
            run.report.peer_tokens += run.emit(b, [run.choose(b, [], raw[i])]) * on_large[b]
            seen[b].append(bits[i])
            since[b] += 1
            if since[b] >= min_tokens and on_large[b] != decide(b, sum(seen[b]) / len(seen[b])):
                on_large[b], since[b] = not on_large[b], 0
    run.report.calls, run.report.fed = run.report.calls + models[0].calls, run.report.fed + models[0].tokens_fed
    run.report.peer_calls += models[1].calls
    run.report.notes.append(f"the large model read {models[1].tokens_fed} tokens, prompts and catching up included")
    return run.result()


@claim(
    entropy_adaptive_decoding,
    "Switching by entropy buys the large model's accuracy where the small one is lost; at random it buys far less.",
    cost="cpu:8s",
)
def entropy_finds_the_hard_stretches() -> Evidence:
    from plumbline.lab.transitions import following

    width = 256
    large, ring = following(vocab=51, cycle=48, hidden_size=width, intermediate_size=32, num_hidden_layers=1)
    small, half = copy.deepcopy(large), ring[24:48]
    with torch.no_grad():  # on half of the ring both are unsure: the large model is right, the small one lost
        own = large.get_input_embeddings().weight[half]
        there = 24 * 12 * own.mean(0)
        large.get_output_embeddings().weight[ring[25:49]] = (there + 3.5 * own) / width
        small.get_output_embeddings().weight[ring[25:48]] = (there + 2 * own[:23].roll(5, 0)) / width
        small.get_output_embeddings().weight[ring[48]] = 0.0
    after = dict(zip(ring, ring[1:], strict=False))
    ids = torch.tensor([[ring[i]] for i in range(0, 48, 6)])

    def decode(tau: float, measure: Callable[[float], float] = float) -> tuple[float, float]:
        """Share of right transitions on the ring, and of tokens from the large model."""
        config = GenerationConfig(max_length=97, do_sample=False, pad_token_id=0)
        run = Run("entropy_adaptive_decoding", small, ids, None, None, config, {})
        out = _alternate(run, large, False, 5, 5, lambda _, mean: measure(mean) > tau)
        pairs = [pair for row in out.tolist() for pair in zip(row, row[1:], strict=False)]
        return sum(after[a] == b for a, b in pairs) / len(pairs), run.report.peer_tokens / run.report.tokens

    found = {tau: decode(tau) for tau in (-1.0, 1.0, 2.0, 3.0, math.inf)}
    coin = rng(0, "entropy_adaptive_decoding")
    blind = decode(1 - found[2.0][1], lambda mean: coin.random())
    (right, share), lost = found[2.0], found[math.inf][0]
    return Evidence(
        holds=right > 0.8 and share < 0.5,
        measured={"right_and_large_share": {str(t): v for t, v in found.items()}, "switching_at_random": blind},
        control=blind[1] > share - 0.05 and blind[0] < right - 0.1 and lost < 0.5,
    )
