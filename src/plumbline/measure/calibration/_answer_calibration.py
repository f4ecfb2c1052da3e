"""Calibration of answers: the probability a model gives its answer, against how often the answer is right."""

from __future__ import annotations

import tempfile

import numpy as np

from plumbline.core.declare import Count, Evidence, claim, probe
from plumbline.core.finding import Finding
from plumbline.kernels.records import Records
from plumbline.kernels.seeds import rng
from plumbline.lab.tables import item_table, output_table
from plumbline.measure.confidence import ConfidenceSums, calibration_finding, names
from plumbline.measure.paired import paired_outputs
from plumbline.measure.text import clip, undefined

NEEDS = (
    "Questions with a known answer. The confidence is the softmax over choices, or the probability of the generated"
    " answer, which falls with its length: read the two kinds apart, and ECE never across different numbers of items."
)
MINIMUM, EXACT = 30, 512


@probe(
    paper=None,
    says="Whether each model's probability of its own answer is how often that answer is right.",
    differs=("Standard scores (ECE, Brier, AUROC) over items that both models answered.",),
    needs=("outputs",),
    gives=names("answer"),
)
def answer_calibration(comparison: Records, *, bins: Count = 15, seed: int = 0) -> Finding:
    r"""Calibration of c = p(answer), y = 1[answer right], over items [N] answered by both models.

    .. math:: ECE = \sum_b m_b |C_b - A_b|, \quad Brier = \tfrac1N \sum_i (c_i - y_i)^2

    with m_b, C_b, A_b the mass, mean confidence and accuracy of bin b; AUROC is the probability that a right answer has
    the higher confidence. The intervals of changes resample items, both arms with the same weights.

    Args:
        comparison: records with ``outputs`` whose rows have ``correct`` and ``confidence``.
        bins: bins of equal mass.
        seed: of the intervals and of the null.
    """
    pairs = paired_outputs(comparison)
    known = ["correct_a", "correct_b", "confidence_a", "confidence_b"]
    rows = pairs[pairs[known].notna().all(axis=1)]
    if len(rows) < MINIMUM:
        why = "too few questions with a known answer and a confidence from both models"
        return undefined("answer_ece_change", why, have=len(rows), need=MINIMUM, what="answered questions", needs=NEEDS)
    arms = {}
    for arm in "ab":
        conf = np.clip(rows[f"confidence_{arm}"].to_numpy(np.float64), 0, 1)
        values = np.unique(conf)
        cuts = (
            np.arange(1, len(values)) if len(values) <= EXACT else np.linspace(0, len(values), EXACT)[1:-1].astype(int)
        )
        arms[arm] = ConfidenceSums((values[cuts - 1] + values[cuts]) / 2)
        arms[arm].add(rows["item"], conf, rows[f"correct_{arm}"].to_numpy(bool))
    sure = rows.assign(wrong=~rows["correct_b"].to_numpy(bool)).sort_values("confidence_b", ascending=False)
    table = [
        {"id": r.id, "prompt": clip(r.prompt), "answer": clip(r.answer, 80), "tuned_output": clip(r.text_b, 160),
         "tuned_confidence": float(r.confidence_b), "base_output": clip(r.text_a, 160),
         "base_confidence": float(r.confidence_a), "base_correct": bool(r.correct_a)}
        for r in sure[sure["wrong"]].head(50).itertuples()
    ]  # fmt: skip
    return calibration_finding("answer", "Answers", arms, bins=bins, seed=seed, needs=NEEDS, table=table)


@claim(
    answer_calibration,
    "Answers right as often as the model says have no calibration error beyond noise; overstated confidence has.",
    cost="cpu:1s",
)
def noise_is_told_from_miscalibration() -> Evidence:
    stream, n = rng(0, "answers"), 500
    conf = stream.random(n)
    honest = stream.random(n) < conf
    arms = {"a": {"confidence": conf, "correct": honest, "answer": ["x"] * n},
            "b": {"confidence": conf**0.3, "correct": honest, "answer": ["x"] * n}}  # fmt: skip
    with tempfile.TemporaryDirectory() as folder:
        records = Records.of(folder, items=item_table(n, answer="x"), outputs=output_table(arms))
        found = answer_calibration(records).flat()
    keys = ("ece_base", "ece_null_base", "ece_debiased_base", "ece_tuned", "ece_debiased_tuned")
    measured = {key: found[f"answer_{key}"].value for key in keys}
    holds = (
        measured["ece_base"] > 0.02 and abs(measured["ece_debiased_base"]) < 0.003
    )  # raw ECE is noise, debiased sees 0
    return Evidence(holds=holds, measured=measured, control=measured["ece_debiased_tuned"] > 0.02)
