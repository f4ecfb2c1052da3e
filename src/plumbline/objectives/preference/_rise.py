"""RISE: preference pairs that differ by one small error, which the model puts into its own right solution."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch

from plumbline.core.declare import Count, Evidence, Paper, claim, function
from plumbline.core.errors import refuse
from plumbline.kernels.notes import note
from plumbline.kernels.seeds import generator as stream
from plumbline.lab.carries import Writer, share_on_errors, untrained
from plumbline.lab.carries import problems as addition
from plumbline.objectives.preference._dpo import dpo
from plumbline.objectives.preference.edits import Edit, Generate, admits, draw, step_spans, tail, without_boxes

Judge = Callable[[str, Mapping[str, Any]], bool]
Spans = Callable[[str], list[tuple[int, int]]]


@function(
    paper=Paper(
        "Subtle Errors Matter: Preference Learning via Error-injected Self-editing",
        "Xu et al.",
        2024,
        arxiv="2410.06638",
    ),
    says="Build hard pairs by putting one small error into a step of a right solution, beside pairs of samples.",
    differs=(
        "Steps are tried in random order until one edit is fit for use, not all edited and one drawn: the same law.",
        "The loss is not here: any pair loss fits (dpo with beta 0.4 in the authors' script); its likelihood term of "
        "the chosen side, whose weight the paper gives and the code leaves at 0, is (alpha, nll) beside it.",
    ),
)
def rise(
    problems: Sequence[Mapping[str, Any]], generate: Generate, judge: Judge, edit: Edit, *, samples: Count = 5,
    split: Spans = step_spans, generator: torch.Generator | None = None,
) -> list[dict[str, str]]:  # fmt: skip
    r"""A table of pair rows, at most two for a problem: one of samples, one edited.

    .. math:: (x,\ y^+,\ y^-) \quad\text{and}\quad (x \oplus s_{<i},\ s_i,\ \tilde s_i), \qquad
              y^+ = s_1 \dots s_n,\quad \tilde s_i = s_i \text{ with one error}

    A problem counts if, of its samples, one is judged right without talking of mistakes and one is judged wrong. An
    edit is fit for use if it changes the step and does not give itself away; answer boxes are taken out of it. Only
    the last four sentences of a step are edited. In DPO the words that both sides share add nothing, so an edited
    pair trains its one error alone. ``pair_tokens.encode_pair`` makes token rows of what is returned.

    Args:
        problems: rows with a ``prompt`` and whatever the judge reads.
        generate: ``(prompt, n) -> n`` completions. judge: ``(completion, problem) -> whether it is right``.
        edit: ``(text, problem, what precedes it, generator) -> the text with an error, or None``:
            ``edits.self_edit(generate)`` as in the paper, or ``edits.rule_edit``, which needs no model.
        samples: solutions drawn per problem. split: solution -> spans of its steps; by "Step 3:" headers.
        generator: where the choices come from.

    Returns:
        Rows of texts: prompt, initial_reason_steps (what of the solution comes before), chosen, rejected, and kind,
        "sampled" or "edited".

    Raises:
        InputError: a problem without a prompt.
    """
    rows: list[dict[str, str]] = []
    for number, problem in enumerate(problems):
        if not isinstance(problem.get("prompt"), str):
            raise refuse("rise", f"problem {number + 1}", "a row with a text prompt", sorted(problem), "add the prompt")
        question = problem["prompt"]
        verdicts = [(text, bool(judge(text, problem))) for text in generate(question, samples)]
        right = [text for text, good in verdicts if good and not admits(text, question)]
        wrong = [text for text, good in verdicts if not good]
        if not right or not wrong:
            continue
        solution = draw(right, generator)
        pair = {"chosen": solution, "rejected": draw(wrong, generator), "kind": "sampled"}
        rows.append({"prompt": question, "initial_reason_steps": "", **pair})
        spans = split(solution)
        for i in torch.randperm(len(spans), generator=generator).tolist():
            start, end = spans[i]
            broken = _broken(solution[:start], solution[start:end], problem, edit, generator)
            if broken is not None:
                pair = {"chosen": solution[start:end], "rejected": broken, "kind": "edited"}
                rows.append({"prompt": question, "initial_reason_steps": solution[:start], **pair})
                break
    note(edited_pairs=sum(row["kind"] == "edited" for row in rows), problems_used=len({r["prompt"] for r in rows}))
    return rows


def _broken(
    before: str, step: str, problem: Mapping[str, Any], edit: Edit, generator: torch.Generator | None
) -> str | None:
    """The step with an error in its last sentences, or None where the edit is not fit for use."""
    start, end = tail(step)
    edited = edit(step[start:end], problem, before + step[:start], generator)
    if edited is None or admits(edited, problem["prompt"]):
        return None
    whole = step[:start] + edited + step[end:]
    return None if without_boxes(whole) == without_boxes(step) else without_boxes(whole)


@claim(
    rise,
    "The gradient of an edited pair falls on its error; that of two samples is spread over what they also differ in.",
    cost="cpu:4s",
)
def trains_the_error_alone() -> Evidence:
    kinds = ("edited", "sampled")
    on_errors, contexts = ({kind: list[float]() for kind in kinds} for _ in range(2))
    for seed in range(3):
        table = untrained(seed)
        policy = Writer(table, seed)  # it edits as it errs: where it is unsure
        pairs = rise(addition(seed, 60), policy.generate, policy.judge, policy.edit, generator=stream(seed, "rise"))
        for kind in kinds:
            found = torch.tensor([share_on_errors(dpo, table, row) for row in pairs if row["kind"] == kind])
            on_errors[kind].append(float(found[:, 0].mean()))
            contexts[kind].append(float(found[:, 1].mean()))
    measured = {f"{kind}, share of the gradient on errors": on_errors[kind] for kind in kinds}
    measured |= {f"{kind}, contexts it is spread over": contexts[kind] for kind in kinds}
    holds = min(on_errors["edited"]) > 0.9 and max(contexts["edited"]) < 2
    return Evidence(holds, measured, control=max(on_errors["sampled"]) < 0.88 and min(contexts["sampled"]) > 4)
