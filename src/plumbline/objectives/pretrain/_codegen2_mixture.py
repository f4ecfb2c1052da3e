"""CodeGen2's mixture: some rows as they are, some with spans moved to the end, so that one model also infills."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Annotated, Any

import torch

from plumbline.core.declare import Bound, Evidence, Paper, Probability, claim, function
from plumbline.core.errors import refuse
from plumbline.core.scored import IGNORED
from plumbline.kernels.notes import note
from plumbline.kernels.seeds import generator as stream
from plumbline.lab.infilling import FORMAT, causal_nll, continued, infilled, taught, texts
from plumbline.objectives.pretrain.spans import corrupt, draw_spans, uncorrupt

Id = Annotated[int, Bound(ge=0)]
_SHORTEST = 8


@function(
    paper=Paper(
        "CodeGen2: Lessons for Training LLMs on Programming and Natural Languages",
        "Nijkamp et al.",
        2023,
        arxiv="2305.02309",
    ),
    says="Mix causal rows with rows whose spans are moved behind a separator: one decoder writes on and fills in.",
    differs=(
        "The format is that of the released model cards; the share of causal rows, the ratio of hidden tokens and the "
        "span length are judgement: the paper's were not recovered.",
        "Attention is causal throughout: the paper found no gain in a prefix that sees itself.",
    ),
)
def codegen2_mixture(
    rows: Sequence[Sequence[int]], *, mask_ids: Sequence[int], sep_id: Id, eom_id: Id, eos_id: Id,
    causal: Probability = 0.5, ratio: tuple[float, float] = (0.05, 0.5), span: tuple[float, float] = (2.0, 6.0),
    target_only: bool = False, generator: torch.Generator | None = None,
) -> list[dict[str, Any]]:  # fmt: skip
    r"""Training rows: each stays causal with probability ``causal``, else its spans :math:`b_i` are hidden.

    .. math:: a_0\, b_1\, a_1\, b_2\, a_2 \;\to\;
              a_0\, m_1\, a_1\, m_2\, a_2\, eos\, sep\; m_1\, b_1\, eom\; m_2\, b_2\, eom

    A hidden row draws its ratio r and mean span length uniformly from their ranges, hides about r of its tokens and
    is longer by three tokens a span and two. Infilling: ask ``prefix m_1 suffix eos sep m_1`` and stop at eom;
    ``spans.uncorrupt`` puts the spans back.

    Args:
        rows: token ids of each row [T], without padding; an eos inside a row ends a document, and no span crosses it.
        mask_ids: sentinels in order; as many spans at most. sep_id, eom_id, eos_id: separator, end of a span, of text.
        ratio, span: (lowest, highest) share of hidden tokens and mean length of a span.
        target_only: no loss on what stands before the separator (and on it) in hidden rows.
        generator: where the draws come from; on the CPU.

    Returns:
        One dict a row: ``input_ids`` and ``labels`` (lists of the same length, -100 where there is no loss) and
        ``kind``, ``"causal"`` or ``"infill"``. Rows under 8 tokens are causal.

    Raises:
        InputError: special ids that coincide or occur in a row, a range that is not one.
    """
    special = [*mask_ids, sep_id, eom_id]
    if not mask_ids or len({*special, eos_id}) != len(special) + 1:
        raise refuse("codegen2_mixture", "mask_ids", "one or more ids, all different from sep, eom and eos",
                     [*special, eos_id], "add them to the tokenizer as special tokens")  # fmt: skip
    for name, (low, high), most in (("ratio", ratio, 1.0), ("span", span, float("inf"))):
        if not 0 < low <= high <= most:
            raise refuse("codegen2_mixture", name, "(lowest, highest) above 0", (low, high), "pass a range in order")
    made = [_row(list(map(int, row)), special, eos_id, causal, ratio, span, target_only, generator) for row in rows]
    note(infill_rows=sum(row["kind"] == "infill" for row in made))
    return made


def _row(
    ids: list[int], special: list[int], eos: int, causal: float, ratio: tuple[float, float],
    span: tuple[float, float], target_only: bool, generator: torch.Generator | None,
) -> dict[str, Any]:  # fmt: skip
    (*masks, sep, eom), taken = special, sorted(set(special).intersection(ids))
    if taken:
        raise refuse("codegen2_mixture", "rows", "text without mask, separator or eom ids", taken, "encode plain text")
    u, r, m = torch.rand(3, generator=generator, dtype=torch.float64).tolist()
    spans = []
    if u >= causal and len(ids) >= _SHORTEST:
        hidden = round((ratio[0] + r * (ratio[1] - ratio[0])) * len(ids))
        ends = [i for i, token in enumerate(ids) if token == eos]
        spans = draw_spans(len(ids), hidden, span[0] + m * (span[1] - span[0]), len(masks), ends, generator)
    if not spans:
        return {"input_ids": ids, "labels": list(ids), "kind": "causal"}
    changed = corrupt(ids, spans, mask_ids=masks, sep_id=sep, eom_id=eom, eos_id=eos)
    silent = changed.index(sep) + 1 if target_only else 0
    return {"input_ids": changed, "labels": [IGNORED] * silent + changed[silent:], "kind": "infill"}


@claim(
    codegen2_mixture,
    "Hidden spans come back to the letter, and at equal tokens the mixture fills gaps that a causal model cannot, for "
    "a small loss left to right: nothing is free.",
    cost="cpu:30s",
)
def fills_in_for_a_small_price() -> Evidence:
    """The controls: a causal model asked in the same format, and asked to write on from the left side alone."""
    rows, g = texts(1000, "codegen2_mixture"), stream(0, "codegen2_mixture")
    hidden = codegen2_mixture(rows, causal=0.0, generator=g, **FORMAT)
    lost = sum(uncorrupt(made["input_ids"], **FORMAT) != row for made, row in zip(hidden, rows))
    models = {
        name: taught(partial(codegen2_mixture, causal=share, **FORMAT), tokens=400_000, seed=0)
        for name, share in (("mixture", 0.5), ("causal", 1.0))
    }
    found: dict[str, float] = {"rows of 1000 not restored": lost}
    for name, model in models.items():
        found |= {f"{name}: nats left to right": causal_nll(model), f"{name}: filled in": infilled(model)}
    found["causal: written from the left"] = continued(models["causal"])
    price = found["mixture: nats left to right"] - found["causal: nats left to right"]
    alone = max(found["causal: filled in"], found["causal: written from the left"])
    holds = lost == 0 and 0 <= price <= 0.15 and found["mixture: filled in"] >= max(0.4, 5 * found["causal: filled in"])
    return Evidence(holds, found | {"price in nats": price}, control=alone < found["mixture: filled in"] / 2)
