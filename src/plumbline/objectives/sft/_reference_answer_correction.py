"""Reference-answer-based correction: the model's own answer in the context, the reference after it as the target."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch

from plumbline.core.declare import Evidence, Paper, Probability, claim, function
from plumbline.core.errors import refuse
from plumbline.kernels.notes import note
from plumbline.kernels.seeds import generator as stream
from plumbline.lab.correction import question_rows, repeater, tuned

Row = Mapping[str, Any]
Prompt = str | list[dict[str, str]]
SEPARATOR = "\n\nThe answer above may be wrong. Write the correct answer.\n\n"


@function(
    paper=Paper(
        "Bridging the Training-Inference Gap in LLMs by Leveraging Self-Generated Tokens",
        "Cen et al.",
        2024,
        arxiv="2410.14655",
    ),
    says="Turn (question, answer) rows into (question, the model's own answer, correct it) rows with the same target.",
    differs=(
        "The separator's words and the share of plain rows are judgement: the paper's were not recovered.",
        "A row that the model already answers with the reference is left out of the corrected rows: nothing to mend.",
    ),
)
def reference_answer_correction(
    rows: Sequence[Row], generate: Callable[[list[Any]], list[str]], *, separator: str = SEPARATOR,
    plain: Probability = 0.5, same: Callable[[str, str], bool] | None = None, generator: torch.Generator | None = None,
) -> list[dict[str, Any]]:  # fmt: skip
    r"""Rows to fine-tune on with the loss on the completion alone.

    .. math:: x \to y \quad\text{becomes}\quad [x;\ \hat y;\ separator] \to y, \qquad \hat y \sim \pi(\cdot \mid x)

    In use, ask once, or a second time with the first answer and the separator behind the question.

    Args:
        rows: [N] rows with ``prompt``, a text or a conversation (a list of messages), and ``completion``, the
            reference; whatever else they hold is kept.
        generate: prompts -> as many answers of the **frozen** model, in order; full generations.
        separator: the instruction between the two answers; in a conversation it is a user's turn.
        plain: share of rows kept as they are, so that answering at once survives.
        same: (generated, reference) -> whether they are the same answer; default: equal but for outer white space.
        generator: which rows are plain; on the CPU.

    Returns:
        Rows [at most N] in the order given, each with ``corrected`` (bool) and, if True, ``self_generated`` (the
        model's own answer, which is in the prompt and so gets no loss).

    Raises:
        InputError: a row without prompt or completion, another number of answers than prompts.
    """
    lacking = next((sorted(row) for row in rows if not {"prompt", "completion"} <= set(row)), None)
    if not rows or lacking is not None:
        got = "no rows" if lacking is None else f"a row with {', '.join(lacking)}"
        raise refuse("reference_answer_correction", "rows", "rows with prompt and completion", got, "rename the fields")
    order = torch.randperm(len(rows), generator=generator).tolist()
    untouched = set(order[: round(plain * len(rows))])
    asked = [i for i in range(len(rows)) if i not in untouched]
    told = list(generate([rows[i]["prompt"] for i in asked])) if asked else []
    if len(told) != len(asked):
        raise refuse("reference_answer_correction", "generate", f"{len(asked)} answers", len(told), "one a prompt")
    own, equal, made = dict(zip(asked, told)), same or _equal, list[dict[str, Any]]()
    for i, row in enumerate(rows):
        if i in untouched:
            made.append({**row, "corrected": False})
        elif not equal(own[i], row["completion"]):
            prompt = _continued(row["prompt"], own[i], separator)
            made.append({**row, "prompt": prompt, "corrected": True, "self_generated": own[i]})
    note(corrected_rows=sum(row["corrected"] for row in made), already_right=len(rows) - len(made))
    return made


def _equal(one: str, other: str) -> bool:
    return one.strip() == other.strip()


def _continued(prompt: Prompt, answer: str, separator: str) -> Prompt:
    if isinstance(prompt, str):
        return prompt + answer + separator
    return [*prompt, {"role": "assistant", "content": answer}, {"role": "user", "content": separator.strip()}]


@claim(
    reference_answer_correction,
    "A model that repeats the answer before it learns from its own wrong answers to mend any wrong answer, and still "
    "answers directly; tuned on the same rows as they are it goes on repeating.",
    cost="cpu:4s",
)
def learns_to_mend() -> Evidence:
    found: dict[str, list[float]] = {}
    for seed in range(3):
        base = repeater(seed)
        for name, share in (("SFT", 1.0), ("half corrected", 0.5)):
            told = {"plain": share, "generator": stream(seed, "reference_answer_correction")}
            rows = reference_answer_correction(question_rows(), base.says, **told)
            net = tuned(copy.deepcopy(base), rows)
            found.setdefault(f"{name}: right after a wrong answer", []).append(net.accuracy(after_wrong=True))
            found.setdefault(f"{name}: right directly", []).append(net.accuracy(after_wrong=False))
    mends = min(found["half corrected: right after a wrong answer"]) > 0.4
    direct = min(found["half corrected: right directly"]) > 0.95
    return Evidence(mends and direct, found, control=max(found["SFT: right after a wrong answer"]) < 0.1)
