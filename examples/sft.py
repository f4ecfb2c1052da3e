"""Supervised fine-tuning: a model that only goes on with sentences learns to answer questions, of people it never was
asked about in training.

``python examples/sft.py [--steps 60]``   (2 CPU cores: about a minute)

The rows are written as JSONL and read back, as a user's would be; once all weights are trained, once an adapter.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from common import QUIET

from plumbline.kernels.seeds import rng
from plumbline.models import LM, load
from plumbline.objectives.sft import nll
from plumbline.train import Engine, fit, graded, read
from plumbline.worlds.corpus import FACTS
from plumbline.worlds.people import RELATIONS, Fact


def asked(fact: Fact) -> dict[str, str]:
    """A question and its answer, in the field's prompt-completion form."""
    relation = RELATIONS[fact.relation]
    said = relation.statements[0].format(s=fact.subject)
    return {"prompt": f"Q: {relation.question.format(s=fact.subject)}\nA:", "completion": f" {said} {fact.object}."}


def answered(text: str, row: dict[str, Any], ended: bool) -> float:
    """1 where the reply is a sentence that names the right thing and stops."""
    return float(ended and text.strip().endswith(f"{row['answer']}."))


def accuracy(lm: LM, model: Any, facts: Sequence[Fact]) -> float:
    rows = [{"prompt": asked(fact)["prompt"], "answer": fact.object} for fact in facts]
    prompts = read(rows, lm.tokenizer)["prompts"]
    engine = Engine(lm.ends, pad_id=lm.tokenizer.pad_token_id, max_new_tokens=24)
    return sum(graded(model, lm.tokenizer, prompts, engine=engine, reward=answered)) / len(rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n\n")[0])
    parser.add_argument("--steps", type=int, default=60)
    args = parser.parse_args()
    known = [fact for fact in FACTS if fact.exposures >= 20]
    people = sorted({fact.subject for fact in known})
    some = {people[i] for i in rng(0, "sft").permutation(len(people))[: len(people) // 2]}
    taught = [fact for fact in known if fact.subject in some]
    unseen = [fact for fact in known if fact.subject not in some][:200]
    good = True
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "questions.jsonl"
        file.write_text("".join(json.dumps(asked(fact)) + "\n" for fact in taught))
        for name, lora, lr in (("all weights", None, 3e-4), ("an adapter", {"r": 16, "lora_alpha": 32}, 3e-3)):
            lm = load("zoo:base")
            before = accuracy(lm, lm.model, unseen)
            held_out = read([asked(fact) for fact in unseen], lm.tokenizer)
            done = fit(
                lm, read(file, lm.tokenizer), loss=nll, lora=lora, max_steps=args.steps, learning_rate=lr,
                per_device_train_batch_size=16, held_out=held_out, eval_strategy="steps", eval_steps=args.steps // 2,
                **QUIET,
            )  # fmt: skip
            after = accuracy(lm, done.model, unseen)
            losses = [entry["eval_loss"] for entry in done.history if "eval_loss" in entry]
            told = " -> ".join(f"{loss:.2f}" for loss in losses)
            print(f"{name}: held-out loss {told}; right on {len(unseen)} new questions {before:.0%} -> {after:.0%}")
            good &= after >= before + 0.2
    raise SystemExit(0 if good else 1)


if __name__ == "__main__":
    main()
