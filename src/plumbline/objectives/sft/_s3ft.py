"""S3FT: train on the model's own answer where it is right, on its paraphrase or the gold answer where it is not."""

from __future__ import annotations

import copy
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from plumbline.core.declare import Evidence, Paper, Probability, claim, function
from plumbline.core.errors import refuse
from plumbline.kernels.notes import note
from plumbline.lab.surface_forms import accuracy, gold_rows, judged, nll, pretrained, says, tuned

Row = Mapping[str, Any]
Ask = Callable[[list[Any]], list[str]]


@function(
    paper=Paper(
        "Selective Self-to-Supervised Fine-Tuning for Generalization in Large Language Models",
        "Gupta et al.",
        2025,
        arxiv="2502.08130",
    ),
    says="Choose each row's target: the model's own answer if a judge accepts it, else its paraphrase, else the gold.",
    differs=(
        "Decoding (greedy, or one sample at 0.7) is the caller's, and judgement: the paper's was not recovered.",
        "A paraphrase has to pass the judge as well, and a judge that raises has refused.",
        "A judge that accepts nearly everything is refused: it is more likely broken than the model perfect.",
    ),
)
def s3ft(
    rows: Sequence[Row], generate: Ask, judge: Callable[[Row, str], bool], *,
    paraphrase: Callable[[list[Row]], list[str]] | None = None, most_accepted: Probability = 0.995,
) -> tuple[list[dict[str, Any]], dict[str, float]]:  # fmt: skip
    r"""Rows with a target to be trained on by plain cross-entropy.

    .. math:: target = \begin{cases} \hat y & judge(x, y, \hat y) \\ y' & judge(x, y, y') \\ y & \text{else} \end{cases}
              \qquad \hat y \sim \pi(x),\ y' \sim \pi(\text{paraphrase}, x, y)

    Args:
        rows: [N] rows with ``prompt`` (text or messages) and ``completion``, the gold answer; the rest is kept.
        generate: prompts -> as many answers of the base model, in order.
        judge: (row, answer) -> whether the answer is right: a match of extracted answers, unit tests, an LLM.
            Blank answers never reach it; an exception counts as no.
        paraphrase: rows -> as many gold answers in the base model's own words; asked only for the rows whose own
            answer failed. None: the gold answer at once.
        most_accepted: the largest believable share of accepted own answers; 1 believes everything.

    Returns:
        (rows [N] in order, each with ``target`` and ``source``: ``"self"``, ``"paraphrase"`` or ``"gold"``; the shares
        of the three sources, a dict).

    Raises:
        InputError: a row without prompt or completion, another number of answers than asked for, a judge that accepts
            more than ``most_accepted``.
    """
    lacking = next((sorted(row) for row in rows if not {"prompt", "completion"} <= set(row)), None)
    if not rows or lacking is not None:
        got = "no rows" if lacking is None else f"a row with {', '.join(lacking)}"
        raise refuse("s3ft", "rows", "rows with prompt and completion", got, "rename the fields")
    own = _asked("generate", generate, [row["prompt"] for row in rows])
    made = [_row(row, text, "self") if _right(judge, row, text) else None for row, text in zip(rows, own)]
    share = sum(row is not None for row in made) / len(rows)
    if share > most_accepted:
        raise refuse("s3ft", "judge", f"to accept at most {most_accepted:.1%} of the answers", f"{share:.1%}",
                     "look at the judge; pass most_accepted=1 if the model is that good")  # fmt: skip
    left = [i for i, row in enumerate(made) if row is None]
    said = _asked("paraphrase", paraphrase, [rows[i] for i in left]) if paraphrase is not None and left else []
    for i, text in zip(left, said):
        made[i] = _row(rows[i], text, "paraphrase") if _right(judge, rows[i], text) else None
    chosen = [found or _row(row, row["completion"], "gold") for found, row in zip(made, rows)]
    count = Counter(row["source"] for row in chosen)
    shares = {source: count[source] / len(rows) for source in ("self", "paraphrase", "gold")}
    note(**{f"s3ft_{source}": value for source, value in shares.items()})
    return chosen, shares


def _row(row: Row, target: str, source: str) -> dict[str, Any]:
    return {**row, "target": target, "source": source}


def _asked(name: str, ask: Callable[[list[Any]], list[str]], what: list[Any]) -> list[str]:
    told = list(ask(what))
    if len(told) != len(what):
        raise refuse("s3ft", name, f"{len(what)} answers", len(told), "one for each, in order")
    return told


def _right(judge: Callable[[Row, str], bool], row: Row, answer: str) -> bool:
    if not answer.strip():
        return False
    try:
        return bool(judge(row, answer))
    except Exception:  # a judge runs code and models: whatever stops it, the answer was not accepted
        return False


@claim(
    s3ft,
    "Where the model already answers rightly in words of its own, training on those words costs less of what it could "
    "do than training on the gold answers, learns the new task as well, and its targets are likelier under the base.",
    cost="cpu:15s",
)
def own_words_forget_less() -> Evidence:
    """A tiny LM says facts in one form; the gold answers use another; a third of them are new."""
    found: dict[str, list[float]] = {}
    for seed in range(3):
        base = pretrained(seed)
        chosen, shares = s3ft(gold_rows(), lambda prompts, base=base: says(base, prompts), judged)
        gold = [{**row, "target": row["completion"]} for row in gold_rows()]
        numbers = {"share of own answers": shares["self"]}
        numbers |= {"nats of the S3FT targets": nll(base, chosen, "target"), "of the gold": nll(base, gold, "target")}
        before = accuracy(base)["old"]
        for name, rows in (("S3FT", chosen), ("SFT", gold)):
            after = accuracy(tuned(copy.deepcopy(base), rows))
            numbers |= {f"{name}: old form lost": before - after["old"], f"{name}: new task": after["new"]}
        for name, number in numbers.items():
            found.setdefault(name, []).append(number)
    kept = all(s <= 0.6 * g for s, g in zip(found["S3FT: old form lost"], found["SFT: old form lost"]))
    learnt = all(s >= g - 0.02 for s, g in zip(found["S3FT: new task"], found["SFT: new task"]))
    likelier = all(s <= g for s, g in zip(found["nats of the S3FT targets"], found["of the gold"]))
    return Evidence(kept and learnt and likelier, found, control=min(found["SFT: old form lost"]) > 0.2)
