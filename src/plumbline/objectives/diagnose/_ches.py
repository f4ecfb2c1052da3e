"""CHES: pairs whose two answers look alike to the model, on which preference learning lowers both."""

from __future__ import annotations

import torch

from plumbline.core.declare import Count, Evidence, Paper, claim, probe
from plumbline.core.finding import Finding
from plumbline.lab.entangled import random_pairs, response_states
from plumbline.lab.tiny import tiny
from plumbline.models import LM
from plumbline.objectives.diagnose.pairs import FEW, Pairs, batches, checked, part, score, still, too_few
from plumbline.objectives.diagnose.similarity import similarity


@probe(
    paper=Paper(
        "Unintentional Unalignment: Likelihood Displacement in Direct Preference Optimization", "Razin et al.", 2024,
        arxiv="2410.08847",
    ),
    says="Scores how alike both answers of each pair are to the model: high scores foretell likelihood displacement.",
    differs=(
        "Padding never enters the sums: positions are those whose tokens are labelled. The official function sums "
        "whatever follows the prompt, which is right for one unpadded pair at a time only.",
        "The headline is the mean of the length-normalised score; the paper ranks pairs and reports no mean.",
    ),
    gives=("ches", "ches_raw"),
)  # fmt: skip
def ches(lm: LM, pairs: Pairs, *, batch_tokens: Count = 4096) -> Finding:
    r"""Centred hidden embedding similarity of pairs [N], length-normalised.

    .. math:: CHES = \Bigl\langle \frac{S_w}{|y_w|}, \frac{S_l}{|y_l|}\Bigr\rangle - \Bigl|\frac{S_w}{|y_w|}\Bigr|^2,
              \qquad S_y = \sum_{t=1}^{|y|} h(x, y_{<t})

    with h [T, D] what the head reads at the position that predicts token t (after the final norm, in float32). The raw
    score, without the lengths, is that of the paper's theory; the length-normalised one is for filtering
    (``diagnose.similarity.keep_lowest``). Equal answers score 0; the more an answer has of its own, the lower. A rank
    correlation of 0.9 with the fall of the chosen answer was seen for D of 64 and up; at 16 to 32 it is often less.

    Args:
        lm: an LM or a bare model. pairs: {"chosen": rows, "rejected": rows}, tokenised.
        batch_tokens: padded tokens of one pass.

    Returns:
        The mean score (in squared units of the hidden states: it compares pairs of one model, not models), with a row
        per pair.
    """
    n = checked("ches", pairs)
    if n < FEW:
        return too_few("ches", n)
    raw, normal, tokens = [0.0] * n, [0.0] * n, [(0, 0)] * n
    with torch.no_grad(), still(lm) as model:
        for chosen in batches(pairs, batch_tokens):
            won, lost = (score(model, [pairs[name][i] for i in chosen]) for name in ("chosen", "rejected"))
            found = similarity(won.hidden(), won.mask, lost.hidden(), lost.mask)
            lengths = zip(won.lengths().tolist(), lost.lengths().tolist(), strict=True)
            for i, a, b, of_both in zip(chosen, *(f.tolist() for f in found), lengths, strict=True):
                raw[i], normal[i], tokens[i] = a, b, of_both
    table = [
        {
            "pair": i,
            "ches": normal[i],
            "ches_raw": raw[i],
            "chosen_tokens": tokens[i][0],
            "rejected_tokens": tokens[i][1],
        }
        for i in range(n)
    ]
    worst = max(range(n), key=normal.__getitem__)
    sentence = (
        f"Pair {worst} is the most alike of {n} (CHES {normal[worst]:.3g}, mean {sum(normal) / n:.3g}): leave the "
        "highest scores out where chosen answers lose probability in training."
    )
    theory = part(
        "ches_raw", raw, title="CHES, not normalised", sentence="The score of the theory, over summed states."
    )
    return part("ches", normal, title="CHES", sentence=sentence, direction=-1, table=table, parts=(theory,))


def _example(items: int) -> tuple[LM, Pairs]:
    return tiny("llama"), random_pairs(items)  # type: ignore[return-value]


@claim(
    ches,
    "With states 64 wide it ranks pairs by how far a step on the margin lowers the chosen answer; how alike "
    "their embeddings are, not centred on the chosen one's, does not.",
    cost="cpu:4s",
)
def foretells_the_fall() -> Evidence:
    """Random states under a random linear head, width 64; at 16 to 32 the correlation often falls below 0.9."""
    from scipy.stats import spearmanr

    measured = {}
    for name, shared in (("shared tokens", True), ("unrelated tokens", False)):
        won, lost, falls = response_states(shared=shared)
        mask = torch.ones(won.shape[:2], dtype=torch.bool)
        sums = won.sum(1), lost.sum(1)
        rivals = {
            "ches": similarity(won, mask, lost, mask)[0], "inner product": (sums[0] * sums[1]).sum(-1),
            "cosine": torch.cosine_similarity(*sums),
        }  # fmt: skip
        measured[name] = {rival: float(spearmanr(s, falls).statistic) for rival, s in rivals.items()}
    shared_, apart = measured["shared tokens"], measured["unrelated tokens"]
    control = max(shared_["inner product"], shared_["cosine"], apart["inner product"], apart["cosine"]) < 0.5
    return Evidence(shared_["ches"] >= 0.9 and apart["ches"] >= 0.5, measured, control)
