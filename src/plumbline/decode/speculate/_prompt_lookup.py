"""Prompt lookup: draft by copying what followed the last few tokens earlier in the text."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from plumbline.core.declare import Count, Evidence, claim, sampler
from plumbline.decode.backoff import Backoff
from plumbline.decode.drafts import Copies
from plumbline.decode.loop import Report, Run, speculate
from plumbline.kernels.choice import Chooser


@sampler(
    paper=None,
    says="Draft by copying what followed the text's last tokens earlier in it; verify the copy in one pass (lossless).",
    differs=(
        "No paper: Saxena's prompt lookup (2023), known from transformers' prompt_lookup_num_tokens.",
        "The latest earlier place is copied, not the first, and a copy that runs past the end of the text goes on with "
        "itself, so that short cycles give long drafts.",
        "Batches run together, rows accepting different lengths; transformers raises an error above batch 1.",
        "The number of drafted tokens adapts to measured throughput, down to none.",
    ),
)
def prompt_lookup(
    model: Any, input_ids: Tensor, logits_processor: Any, stopping_criteria: Any, generation_config: Any, *,
    tokens: Count = 10, ngram: Count = 2, adapt: bool = True, report: Report | None = None,
    chooser: Chooser | None = None, **model_kwargs: Any,
) -> Any:  # fmt: skip
    r"""Decode with copied drafts: ``model.generate(ids, custom_generate=prompt_lookup, max_new_tokens=64)``.

    .. math:: d_i = x_{a + i}, \quad a = \max\{a < T : x_{a-n:a} = x_{T-n:T}\}, \quad n = \text{ngram}, \ldots, 1

    Args:
        input_ids: [B, L], left-padded.
        tokens: drafted tokens in a pass; the width adapts between a third of it and three times as many.
        ngram: the longest run of last tokens that is looked up.
        adapt: False drafts ``tokens`` whenever there is a match, whatever it costs.
        report: filled with calls, tokens and acceptance. chooser: where random outcomes come from.

    Returns:
        [B, L'] ids, distributed as the model's own samples; equal to greedy decoding where nothing is sampled.
    """
    run = Run("prompt_lookup", model, input_ids, logits_processor, stopping_criteria, generation_config, model_kwargs,
              report=report, chooser=chooser)  # fmt: skip
    widths = sorted({max(tokens // 3, 1), tokens, 3 * tokens})
    backoff = run.backoff(widths) if adapt else Backoff.fixed(tokens)
    return speculate(run, [Copies(ngram) for _ in run.rows], backoff)


@claim(
    prompt_lookup,
    "Where the output copies the prompt, several tokens come of one pass; the tokens are greedy's.",
    cost="cpu:4s",
)
def copies_are_accepted() -> Evidence:
    from plumbline.lab.transitions import following

    model, text = following(vocab=64, cycle=16, seed=0)
    told, plain = Report(), Report()
    how: dict[str, Any] = dict(max_new_tokens=60, do_sample=False, pad_token_id=0)
    ids = torch.tensor([text])
    got = model.generate(ids, custom_generate=prompt_lookup, adapt=False, report=told, **how)
    unknown = model.generate(ids[:, :1], custom_generate=prompt_lookup, adapt=False, report=plain, max_new_tokens=12,
                             do_sample=False, pad_token_id=0)  # fmt: skip
    same = torch.equal(got, model.generate(ids, **how))
    per_call = told.tokens / told.calls
    return Evidence(
        holds=same and per_call > 3,
        measured={
            "tokens per call": per_call,
            "without anything to copy": plain.tokens / plain.calls,
            "same as greedy": same,
        },
        control=plain.tokens / plain.calls <= 1.1 and unknown.shape[1] == 13,
    )
