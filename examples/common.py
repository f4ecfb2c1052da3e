"""What the examples share: the arithmetic world as rows, and a model that has unlearned half of it."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from plumbline.kernels.seeds import rng
from plumbline.models import LM, load
from plumbline.models.prompts import encode
from plumbline.objectives.sft import nll
from plumbline.train import Engine, fit, graded
from plumbline.worlds import arithmetic
from plumbline.worlds.text import Task

QUIET = dict(disable_tqdm=True, logging_steps=5, lr_scheduler_type="constant")


def additions(seed: int, n: int, *, evaluation: bool = False) -> list[Task]:
    """Two-number additions of the arithmetic world."""
    return [t for t in arithmetic.tasks(seed, 2 * n, evaluation=evaluation) if t.kind == "addition"][:n]


def prompt_ids(lm: LM, task: Task) -> list[int]:
    return encode(task.prompt, lm.tokenizer, special=True)


def solved(lm: LM, task: Task, completion: str) -> dict[str, Any]:
    """A row: the working is trained on, the problem is not."""
    before, after = prompt_ids(lm, task), encode(completion, lm.tokenizer, special=False) + [lm.ends[0]]
    return {"input_ids": before + after, "labels": [-100] * len(before) + after}


def prompts(lm: LM, tasks: Sequence[Task]) -> list[dict[str, Any]]:
    """Rows for rollouts: the problem's ids, and its answer for the verifier."""
    return [{"input_ids": prompt_ids(lm, task), "row": {"answer": task.answer}} for task in tasks]


def right_answer(text: str, row: Mapping[str, Any], ended: bool) -> float:
    """1 where the number after the last "Answer" is the right one."""
    found = re.findall(r"Answer (\d+)", text)
    return float(bool(found) and found[-1] == row["answer"])


def accuracy(lm: LM, model: Any, n: int = 200, seed: int = 7) -> float:
    """Share of held-out additions whose sampled answer (temperature 1) is right."""
    rows = prompts(lm, additions(seed, n, evaluation=True))
    engine = Engine(lm.ends, pad_id=lm.tokenizer.pad_token_id, max_new_tokens=48)
    return sum(graded(model, lm.tokenizer, rows, engine=engine, reward=right_answer)) / len(rows)


def weakened(share: float = 0.6, steps: int = 60) -> LM:
    """zoo:base after a little training on additions of which a share forgets to carry: it now errs about as often."""
    lm, random = load("zoo:base"), rng(0, "weakened")
    rows = []
    for task in additions(1, 480):
        wrong = random.random() < share
        rows.append(solved(lm, task, forgetful(task) if wrong else task.completion))
    fit(lm, {"x": rows}, loss=nll, max_steps=steps, per_device_train_batch_size=8, learning_rate=3e-4, **QUIET)
    return lm


def forgetful(task: Task) -> str:
    """The working with a slip: the units' digit is one too high, and so is the answer."""
    answer = str(int(task.answer) + 1)
    return re.sub(r"Answer \d+", f"Answer {answer}", task.completion)
