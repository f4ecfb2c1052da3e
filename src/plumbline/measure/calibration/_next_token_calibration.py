"""Calibration of the next token on reference text: how sure of its first choice, against how often right."""

from __future__ import annotations

import tempfile

import numpy as np

from plumbline.core.declare import Count, Evidence, claim, probe
from plumbline.core.finding import Finding
from plumbline.kernels.records import Records
from plumbline.lab.tables import TableLM, pair_records
from plumbline.measure.confidence import ConfidenceSums, calibration_finding, names
from plumbline.measure.text import undefined
from plumbline.measure.totals import Distribution

NEEDS = (
    "Reference text that neither model wrote (--text, or prompts with completions): on a model's own greedy response"
    " its first choice is right by construction and the measure means nothing."
)
SOURCES = ("text", "completion")
MINIMUM, BLOCKS = 100, 120


@probe(
    paper=None,
    says="Whether a model's probability of its first choice is how often the next token of real text is that choice.",
    differs=(
        "Standard scores (ECE, Brier, AUROC); positions are clustered by text and confidences enter 120 equal blocks.",
    ),
    needs=("tokens",),
    gives=names("next_token"),
)
def next_token_calibration(comparison: Records, *, bins: Count = 15, seed: int = 0) -> Finding:
    r"""Calibration of c = max_v p(v), y = 1[argmax = actual token], over positions of reference text [N].

    .. math:: ECE = \sum_b m_b |C_b - A_b|, \quad Brier = \tfrac1N \sum_i (c_i - y_i)^2

    with m_b, C_b, A_b the mass, mean confidence and accuracy of bin b. Debiased ECE and the ECE that noise alone would
    give are parts; intervals resample texts, both arms with the same weights.

    Args:
        comparison: records with ``tokens`` of source "text" or "completion"; refuses without them.
        bins: bins of equal mass.
        seed: of the intervals and of the null.
    """
    spread = {arm: Distribution() for arm in "ab"}
    columns = ["item", "source", "token_id", "argmax_a", "argmax_b", "top1_p_a", "top1_p_b"]
    for frame in comparison.batches("tokens", columns=columns):
        rows = frame[frame["source"].astype(str).isin(SOURCES).to_numpy()]
        for arm, distribution in spread.items():
            distribution.add(rows[f"top1_p_{arm}"])
    n = spread["b"].n
    if n < MINIMUM:
        why = "next-token calibration is only meaningful on reference text; pass --text or prompts with completions"
        return undefined(
            "next_token_ece_change", why, have=n, need=MINIMUM, what="positions of reference text", needs=NEEDS
        )
    arms = {arm: ConfidenceSums(distribution.edges(BLOCKS)) for arm, distribution in spread.items()}
    for frame in comparison.batches("tokens", columns=columns):
        rows = frame[frame["source"].astype(str).isin(SOURCES).to_numpy()]
        for arm, sums in arms.items() if len(rows) else ():
            # a probability summed in float32 may pass 1 by a rounding
            sums.add(rows["item"], np.clip(rows[f"top1_p_{arm}"], 0, 1), rows[f"argmax_{arm}"] == rows["token_id"])
    return calibration_finding("next_token", "Next token", arms, bins=bins, seed=seed, needs=NEEDS)


@claim(
    next_token_calibration,
    "A model that is the source of the text is calibrated to within noise; sharpened, it is overconfident.",
    cost="cpu:2s",
)
def the_source_is_calibrated() -> Evidence:
    source = TableLM.random(20, scale=1.0, seed=7)
    ids = source.sample(np.arange(100) % 20, 200, seed=8)
    with tempfile.TemporaryDirectory() as folder:
        records = pair_records(folder, source, source.at_temperature(0.4), ids, source="text")
        found = next_token_calibration(records).flat()
    keys = ("ece_base", "ece_null_base", "ece_tuned", "overconfidence_tuned")
    measured = {key: found[f"next_token_{key}"].value for key in keys}
    holds = measured["ece_base"] < 2 * measured["ece_null_base"]
    return Evidence(holds=holds, measured=measured, control=measured["overconfidence_tuned"] > 0.2)
