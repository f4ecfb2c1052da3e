"""Token Recycling: draft a tree from the tokens that were last seen as likely after each token."""

from __future__ import annotations

from functools import cache
from math import prod
from typing import Any

import torch
from torch import Tensor

from plumbline.core.declare import Count, Evidence, Paper, claim, sampler
from plumbline.core.errors import refuse
from plumbline.decode.backoff import Backoff
from plumbline.decode.drafts import Candidates, Recycles
from plumbline.decode.loop import Report, Run, speculate
from plumbline.kernels.choice import Chooser
from plumbline.kernels.seeds import generator

# the published tree of 80 nodes: how many ranks are followed below each path of ranks
_CHILDREN = {
    "": 8, "0": 8, "1": 4, "2": 3, "3": 2, "4": 1, "5": 1, "6": 1, "7": 1,
    "00": 8, "01": 3, "02": 2, "03": 1, "04": 1, "05": 1, "06": 1, "07": 1, "10": 2, "11": 1, "20": 1, "30": 1,
    "40": 1, "50": 1, "000": 5, "001": 2, "002": 1, "003": 1, "004": 1, "010": 1, "020": 1, "100": 1, "200": 1,
    "300": 1, "0000": 3, "0001": 1, "0002": 1, "0010": 1, "0100": 1, "1000": 1, "00000": 2, "00010": 1,
}  # fmt: skip
_SHARES = (0.62, 0.16, 0.08, 0.05, 0.03, 0.02, 0.02, 0.02)  # of a rank being the right one: decides what goes first


@cache
def _shape() -> tuple[tuple[int, ...], ...]:
    """The nodes as paths of ranks, likeliest first, so that the first n are the best tree of n nodes."""
    paths = [(*map(int, path), rank) for path, count in _CHILDREN.items() for rank in range(count)]
    return tuple(sorted(paths, key=lambda path: (-prod(_SHARES[r] for r in path), len(path), path)))


@sampler(
    paper=Paper(
        "Turning Trash into Treasure: Accelerating Inference of Large Language Models with Token Recycling",
        "Luo et al.", 2024, arxiv="2408.08696",
    ),
    says="Keep the likeliest tokens last seen after every token, and draft a fixed shape of tree from that table.",
    differs=(
        "The table begins empty (-1), not with zeros: a row that was never written drafts nothing.",
        "Sampling draws a token at each node and enters the child that holds it (lossless); released code is greedy.",
        "The 80 nodes are ordered by how often their ranks are right, so that a smaller tree is the best part of the "
        "published one; how many are fed adapts to measured throughput, down to none.",
        "The prompt's own logits do not fill the table: the reading of the prompt makes no logits but the last.",
    ),
)  # fmt: skip
def token_recycling(
    model: Any, input_ids: Tensor, logits_processor: Any, stopping_criteria: Any, generation_config: Any, *,
    candidates: Candidates | None = None, k: Count = 8, nodes: Count = 80, adapt: bool = True,
    report: Report | None = None,
    chooser: Chooser | None = None, **model_kwargs: Any,
) -> Any:  # fmt: skip
    r"""Decode with recycled candidates: ``model.generate(ids, custom_generate=token_recycling)``.

    Node tokens and the table M [V, k] after each pass, for every fed node, entered or not:

    .. math:: t(n) = M[t(parent(n)), rank(n)], \qquad M[t(n)] \leftarrow \text{top-}k\; p(\cdot \mid \text{path to } n)

    Args:
        input_ids: [B, L], left-padded.
        candidates: a table kept from call to call (a 150k vocabulary takes 4.8 MB); None: an empty one.
        k: candidates a token. nodes: the largest tree, at most 80.
        adapt: False always feeds ``nodes``.
        report: filled with calls, tokens and acceptance. chooser: where random outcomes come from.

    Returns:
        [B, L'] ids, distributed as the model's own samples; equal to greedy decoding where nothing is sampled.
    """
    run = Run("token_recycling", model, input_ids, logits_processor, stopping_criteria, generation_config, model_kwargs,
              report=report, chooser=chooser)  # fmt: skip
    vocab = model.get_output_embeddings().weight.shape[0]
    table = Candidates(vocab, k) if candidates is None else candidates
    if table.table.shape[0] != vocab:
        raise refuse("token_recycling", "candidates", f"a table of {vocab} tokens", len(table.table), "make a new one")
    shape = _shape()[:nodes]
    widths = sorted({min(w, nodes) for w in (4, 9, 20, 40, 80)})
    backoff = run.backoff(widths) if adapt else Backoff.fixed(nodes)
    return speculate(run, [Recycles(table, shape) for _ in run.rows], backoff)


@claim(
    token_recycling,
    "Recycled candidates give more than 1.5 tokens a pass on text that repeats, more when run again.",
    cost="cpu:6s",
)
def trash_is_treasure() -> Evidence:
    from plumbline.lab.transitions import following

    model, text = following(vocab=512, cycle=12, seed=2)
    how: dict[str, Any] = dict(max_new_tokens=48, do_sample=False, pad_token_id=0)
    table, ids, rates = Candidates(512), torch.tensor([text[:1]]), []
    plain = model.generate(ids, **how)
    for kept in (table, table, Candidates(512, k=1)):
        told = Report()
        got = model.generate(ids, custom_generate=token_recycling, candidates=kept, adapt=False, report=told, **how)
        rates.append(told.tokens / told.calls if torch.equal(got, plain) else 0.0)
    table.table[:] = torch.randint(
        3, 512, (512, 8), dtype=torch.int32, generator=generator(0, "wrong")
    )  # the wrong candidates after each token
    told = Report()
    model.generate(
        ids, custom_generate=token_recycling, candidates=table, adapt=False, report=told, **{**how, "max_new_tokens": 8}
    )
    wrong = told.tokens / told.calls
    return Evidence(
        holds=rates[0] > 1.5 and rates[1] >= rates[0],
        measured={"first run": rates[0], "second run": rates[1], "one candidate": rates[2], "random candidates": wrong},
        control=wrong < 1.5,
    )
