"""Update flips: the questions that the new model breaks, repairs, or answers differently, item by item."""

from __future__ import annotations

import tempfile
from typing import Any

import numpy as np

from plumbline.core.declare import Count, Evidence, Paper, claim, probe
from plumbline.core.finding import Finding
from plumbline.kernels.records import Records
from plumbline.kernels.seeds import rng
from plumbline.kernels.stats import mcnemar, two_proportion_z
from plumbline.lab.tables import item_table, output_table
from plumbline.measure.paired import paired_outputs
from plumbline.measure.shift.flips import ORDER, bars, by_tag, flip_rows, proportion, rates
from plumbline.measure.text import range_of, share, undefined

NEEDS = (
    "Questions with a known answer, answered by both models without sampling: with sampling, flips of the old model"
    " against itself would have to be taken off."
)
MINIMUM = 10


@probe(
    paper=Paper(
        "MUSCLE: A Model Update Strategy for Compatible LLM Evolution", "Echterhoff et al.", 2024, arxiv="2407.09435"
    ),
    says="Counts the questions that TUNED gets wrong and BASE got right, and the reverse, with a paired test.",
    differs=(
        "The measurement only: the paper's compatibility adapter is a training method.",
        "Intervals by paired bootstrap and McNemar's test are added; the paper reports counts.",
    ),
    needs=("outputs",),
    gives=("negative_flips", "positive_flips", "accuracy_change", "accuracy_base", "accuracy_tuned",
           "negative_flips_conditional", "negative_flips_relative", "inconsistency_flips", "inconsistency_total",
           "flips_mcnemar_p"),
)  # fmt: skip
def update_flips(comparison: Records, *, shown: Count = 1000, seed: int = 0) -> Finding:
    r"""Negative flip rate and what belongs to it, over items [N] with a verdict a (BASE) and b (TUNED) in {0, 1}.

    .. math:: NFR = \overline{a(1-b)}, \quad PFR = \overline{(1-a)b}, \quad acc_B - acc_A = PFR - NFR

    Conditional NFR = sum a(1-b) / sum a; relative NFR = NFR / (acc_A (1 - acc_B)), 1 if the two were independent;
    inconsistency flips: both wrong with different answers (an answer that could not be read is never different from
    another such). Intervals resample items, both arms together.

    Args:
        comparison: records with ``outputs`` whose rows have ``correct``.
        shown: rows of the table of flips, negative ones first.
        seed: of the intervals.
    """
    pairs = paired_outputs(comparison)
    pairs = pairs[pairs["correct_a"].notna() & pairs["correct_b"].notna()].reset_index(drop=True)
    n = len(pairs)
    if n < MINIMUM:
        why = "too few questions with a known answer"
        return undefined("negative_flips", why, have=n, need=MINIMUM, what="answered questions", needs=NEEDS)
    a, b = (pairs[f"correct_{arm}"].to_numpy(bool) for arm in "ab")
    said_a, said_b = (pairs[f"said_{arm}"].fillna("").astype(str).to_numpy() for arm in "ab")
    kind = np.select([a & ~b, ~a & b, ~a & ~b & (said_a != said_b)], ORDER, "same")
    sums = np.stack([a, b, a & ~b, ~a & b, kind == "inconsistent", np.ones(n)], 1).astype(np.float64)
    parts, test = rates(sums, seed), mcnemar(int(sums[:, 2].sum()), int(sums[:, 3].sum()))
    by_name = {p.name: p for p in parts}
    broken, repaired = int(sums[:, 2].sum()), int(sums[:, 3].sum())
    verdict = "more than chance would" if test.p < 0.05 else "no more than chance could"
    told = f"McNemar's test: p = {test.p:.3g}, the two counts differ by {verdict}."
    mcnemar_p = Finding(name="flips_mcnemar_p", title=f"p-value, {test.method}", value=test.p, sentence=told, n_items=n,
                        n_clusters=n, warnings=("a p-value has no interval",))  # fmt: skip
    more: dict[str, Any] = {"table": by_tag(pairs, sums, seed), "figure": bars(pairs, sums)}
    change = Finding(**{**vars(by_name["accuracy_change"]), **more})
    head = Finding.of("negative_flips", proportion(sums, 2, 5, seed), sentence="")
    sentence = (
        f"Of {n} questions TUNED breaks {broken} that BASE had right ({share(head.value)}{range_of(head, '{:.1%}')}) "
        f"and repairs {repaired} ({share(repaired / n)}): accuracy goes from {share(sums[:, 0].mean())} to "
        f"{share(sums[:, 1].mean())} (McNemar p = {test.p:.2g})."
    )
    told_more: dict[str, Any] = {
        "title": "Negative flips", "sentence": sentence, "unit": "share of questions", "direction": -1, "needs": NEEDS,
        "parts": (by_name["positive_flips"], change, *parts[2:], mcnemar_p), "table": flip_rows(pairs, kind, shown),
    }  # fmt: skip
    return Finding(**{**vars(head), **told_more})


def _verdicts(before: Any, after: Any, truth: Any) -> Finding:
    said = {"a": before, "b": after}
    arms = {arm: {"answer": [str(x) for x in y], "correct": y == truth} for arm, y in said.items()}
    with tempfile.TemporaryDirectory() as folder:
        items = item_table(len(truth), answer="x")
        return update_flips(Records.of(folder, items=items, outputs=output_table(arms)))


@claim(
    update_flips,
    "Two models of equal accuracy still disagree on single items: an update flips answers that were right, and leaning"
    " on the old model's outputs lowers the negative flips without losing accuracy.",
    cost="cpu:2s",
)
def updates_break_items() -> Evidence:
    from sklearn.datasets import load_digits
    from sklearn.ensemble import RandomForestClassifier

    x, y = load_digits(return_X_y=True)
    train, test = slice(0, 600), slice(600, None)
    forests = [RandomForestClassifier(6, random_state=seed).fit(x[train], y[train]) for seed in (0, 1)]
    p = [forest.predict_proba(x[test]) for forest in forests]
    old, new, both = (q.argmax(1) for q in (*p, p[0] + p[1]))
    plain, leaning, same = (_verdicts(old, other, y[test]).flat() for other in (new, both, old))
    measured = {"negative_flips": plain["negative_flips"].value, "leaning": leaning["negative_flips"].value}
    measured |= {f"accuracy_{k}": f["accuracy_tuned"].value for k, f in (("new", plain), ("leaning", leaning))}
    measured |= {"accuracy_old": plain["accuracy_base"].value, "same_model": same["negative_flips"].value}
    kept = measured["accuracy_leaning"] >= measured["accuracy_old"]
    holds = measured["negative_flips"] > 0.01 and measured["leaning"] < measured["negative_flips"] and kept
    return Evidence(holds=holds, measured=measured, control=measured["same_model"] == 0)


@claim(update_flips, "An unpaired test on paired answers misses a change that the paired one sees.", cost="cpu:1s")
def pairing_matters() -> Evidence:
    truth = np.zeros(1000, int)
    before, after = np.repeat([0, 1], [800, 200]), np.repeat([0, 1, 0, 1], [755, 45, 20, 180])
    order = rng(0, "pairs").permutation(1000)
    found = _verdicts(before[order], after[order], truth).flat()
    unpaired = two_proportion_z(800, 1000, 775, 1000).p
    measured = {"mcnemar_p": found["flips_mcnemar_p"].value, "unpaired_p": unpaired, "interval_high": 0.0}
    measured["interval_high"] = found["accuracy_change"].interval[1]
    return Evidence(holds=measured["mcnemar_p"] < 0.05, measured=measured, control=unpaired > 0.05)
