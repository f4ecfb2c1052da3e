"""Lookahead: several continuations at once from a trie of the n-grams of the prompt and of earlier outputs."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from plumbline.core.declare import Count, Evidence, Paper, claim, sampler
from plumbline.decode.backoff import Backoff
from plumbline.decode.drafts import Looks, Trie
from plumbline.decode.loop import Report, Run, speculate
from plumbline.kernels.choice import Chooser


@sampler(
    paper=Paper(
        "Lookahead: An Inference Acceleration Framework for Large Language Model with Lossless Generation Accuracy",
        "Zhao et al.", 2023, arxiv="2312.12728",
    ),
    says="Draft a tree of continuations from n-grams of the prompt and of earlier outputs, and verify it in one pass.",
    differs=(
        "An n-gram of the output is in the trie as soon as it is said; the released code waits for a whole branch.",
        "Sampling draws a token at each node and enters the child that holds it (lossless); the paper is greedy.",
        "Batches run together, and the size of the tree adapts to measured throughput, down to none.",
        "The released par and one forms (separate branches, a single branch) are left out: a merged tree holds both.",
    ),
)  # fmt: skip
def lookahead(
    model: Any, input_ids: Tensor, logits_processor: Any, stopping_criteria: Any, generation_config: Any, *,
    trie: Trie | None = None, nodes: Count = 63, adapt: bool = True, report: Report | None = None,
    chooser: Chooser | None = None, **model_kwargs: Any,
) -> Any:  # fmt: skip
    r"""Decode with drafts from a trie: ``model.generate(ids, custom_generate=lookahead, trie=Trie())``.

    A node's score mixes its frequencies in this prompt and in outputs, half of the room being kept for outputs:

    .. math:: s = (1 - w)\,f_{prompt} + w\,f_{output}, \qquad w = 10^{-4}

    Args:
        input_ids: [B, L], left-padded.
        trie: shared by the requests that should learn from one another; None: one for this call.
        nodes: the largest tree, 63 and the root being the paper's 64.
        adapt: False always drafts ``nodes``.
        report: filled with calls, tokens and acceptance. chooser: where random outcomes come from.

    Returns:
        [B, L'] ids, distributed as the model's own samples; equal to greedy decoding where nothing is sampled.
    """
    run = Run("lookahead", model, input_ids, logits_processor, stopping_criteria, generation_config, model_kwargs,
              report=report, chooser=chooser)  # fmt: skip
    trie = Trie() if trie is None else trie
    widths = sorted({min(w, nodes) for w in (4, 12, 24, nodes)})
    rows = [Looks(trie, row) for row in run.rows]
    try:
        return speculate(run, rows, run.backoff(widths) if adapt else Backoff.fixed(nodes))
    finally:
        for row in rows:
            row.close()


@claim(
    lookahead,
    "An answer that copies its prompt takes several tokens a pass, a second request more; greedy's tokens.",
    cost="cpu:6s",
)
def copies_and_remembers() -> Evidence:
    from plumbline.lab.transitions import following

    model, text = following(vocab=64, cycle=24, seed=1)
    how: dict[str, Any] = dict(
        max_new_tokens=60, do_sample=False, pad_token_id=0, custom_generate=lookahead, adapt=False
    )
    trie, rates, same = Trie(), [], True
    for prompt in (text[:1], text[:1], text):  # nothing to copy; the same again; everything to copy
        told, ids = Report(), torch.tensor([prompt])
        got = model.generate(ids, trie=trie if len(prompt) == 1 else Trie(), report=told, **how)
        same &= torch.equal(got, model.generate(ids, max_new_tokens=60, do_sample=False, pad_token_id=0))
        rates.append(told.tokens / told.calls)
    cold, warm, copied = rates
    told = Report()
    model.generate(torch.tensor([text[:1]]), report=told, **{**how, "max_new_tokens": 20})
    alone = told.tokens / told.calls
    return Evidence(
        holds=same and copied > 2 and warm > cold,
        measured={
            "copied": copied,
            "first request": cold,
            "second request": warm,
            "nothing to copy": alone,
            "same as greedy": same,
        },
        control=alone <= 1.0,
    )
