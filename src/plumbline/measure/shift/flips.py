"""Rates, rows and plots of flips between two models' verdicts on the same questions."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from plumbline.core.finding import Finding
from plumbline.kernels.stats import Estimate, cluster_bootstrap, mcnemar
from plumbline.measure import figures
from plumbline.measure.shift.declining import tag_list
from plumbline.measure.text import clip, share, tags_of
from plumbline.measure.totals import Floats

if TYPE_CHECKING:
    import pandas as pd

ORDER = ("negative", "positive", "inconsistent")


def proportion(sums: Floats, top: int, bottom: int, seed: int) -> Estimate:
    """The ratio of two columns of ``sums`` [N, 6]."""
    return cluster_bootstrap(sums[:, [top, bottom]], proportion=True, seed=seed)


def rates(sums: Floats, seed: int) -> tuple[Finding, ...]:
    """Every rate beside the headline; sums [N, 6]: right before, right after, broken, repaired, inconsistent, 1."""

    def relative(s: Floats) -> Floats:
        n = s[..., 5]
        return (s[..., 2] / n) / ((s[..., 0] / n) * (1 - s[..., 1] / n))

    change = cluster_bootstrap(sums, lambda s: (s[..., 1] - s[..., 0]) / s[..., 5], seed=seed)
    total = cluster_bootstrap(sums[:, 2:], lambda s: s[..., :3].sum(-1) / s[..., 3], proportion=True, seed=seed)
    told = (
        ("positive_flips", proportion(sums, 3, 5, seed), 1, "of questions are wrong in BASE and right in TUNED"),
        ("accuracy_change", change, 1, "change of accuracy, the positive less the negative flips"),
        ("accuracy_base", proportion(sums, 0, 5, seed), 1, "of questions BASE answers right"),
        ("accuracy_tuned", proportion(sums, 1, 5, seed), 1, "of questions TUNED answers right"),
        ("negative_flips_conditional", proportion(sums, 2, 0, seed), -1, "of BASE's right answers are lost"),
        ("negative_flips_relative", cluster_bootstrap(sums, relative, seed=seed), -1,
         "of the negative flips that two independent models of these accuracies would have"),
        ("inconsistency_flips", proportion(sums, 4, 5, seed), -1, "of questions are wrong in both, differently"),
        ("inconsistency_total", total, -1, "of questions change in verdict or in wrong answer"),
    )  # fmt: skip
    return tuple(
        Finding.of(name, e, direction=direction, unit="share of questions", sentence=f"{share(e.value)} {words}.")
        for name, e, direction, words in told
    )


def flip_rows(pairs: pd.DataFrame, kind: Any, shown: int) -> tuple[dict[str, Any], ...]:
    """The flips with both outputs, negative ones first."""
    flips = pairs.assign(kind=kind)[kind != "same"]
    flips = flips.sort_values("kind", key=lambda k: k.map(ORDER.index), kind="stable").head(shown)
    return tuple(
        {"id": r.id, "kind": r.kind, "prompt": clip(r.prompt), "answer": clip(r.answer, 80), "base": clip(r.text_a),
         "tuned": clip(r.text_b), "tags": ", ".join(tag_list(r.tags))}
        for r in flips.itertuples()
    )  # fmt: skip


def by_tag(pairs: pd.DataFrame, sums: Floats, seed: int) -> tuple[dict[str, Any], ...]:
    """Rates per tag, worst first."""
    rows = []
    for tag, members in tags_of(pairs.set_index("item")).items():
        s = sums[np.isin(pairs["item"], members)]
        negative = proportion(s, 2, 5, seed)
        row = {"tag": tag, "questions": len(s), "accuracy_base": s[:, 0].mean(), "accuracy_tuned": s[:, 1].mean()}
        row |= {"negative_flips": negative.value, "low": negative.low, "high": negative.high}
        rows.append({**row, "positive_flips": s[:, 3].mean(), "p": mcnemar(int(s[:, 2].sum()), int(s[:, 3].sum())).p})
    return tuple(sorted(rows, key=lambda r: -r["negative_flips"]))


def bars(pairs: pd.DataFrame, sums: Floats) -> dict[str, Any]:
    """Negative and positive flips, over all and per tag."""
    groups = {"all": np.ones(len(sums), bool)}
    groups |= {tag: np.isin(pairs["item"], members) for tag, members in tags_of(pairs.set_index("item")).items()}
    series = {
        name: {"y": [sums[rows, column].mean() for rows in groups.values()], "color": color}
        for name, column, color in (("negative flips", 2, figures.BAD), ("positive flips", 3, figures.GOOD))
    }
    return figures.bars(list(groups), series, "", "share of questions")
