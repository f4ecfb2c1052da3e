"""Supervised fine-tuning on a file of conversations: a base model learns a chat format, whole or with LoRA.

``python examples/sft.py [--steps 100]``   (2 CPU cores: under a minute)

The base has read sentences about people, but no conversation: how turns begin and end, how a reply opens and closes,
and that one topic is refused is all in the file. It is tested on people of whom the file says nothing; a reply counts
if it is right to the letter and ends by itself.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from common import QUIET

from plumbline.kernels.seeds import rng
from plumbline.models import LM, load
from plumbline.objectives.sft import nll
from plumbline.train import Engine, fit, graded, read
from plumbline.worlds import chat, corpus

WELL_KNOWN = [fact for fact in corpus.FACTS if fact.exposures >= 20]
TAUGHT = corpus.taught(WELL_KNOWN)  # of every other person
WANTED = 0.5  # by how much the share of right replies must rise


def write(path: Path, seed: int, n: int, *, evaluation: bool = False) -> None:
    """Conversations as lines of JSON: two in three ask for a fact, the rest for what is refused."""
    random, known = rng(seed, "sft"), [f for f in WELL_KNOWN if f not in TAUGHT] if evaluation else TAUGHT
    with open(path, "w", encoding="utf-8") as file:
        for _ in range(n):
            kind = "fact" if random.random() < 2 / 3 else "restricted"
            asked, reply, *_ = chat.turn(random, kind, known, evaluation=evaluation)
            messages = [{"role": "user", "content": asked}, {"role": "assistant", "content": reply}]
            file.write(json.dumps({"messages": messages}) + "\n")


def base() -> LM:
    """zoo:base with the template that its tokenizer lacks."""
    lm = load("zoo:base")
    lm.tokenizer.chat_template = chat.TEMPLATE
    return lm


def right_reply(text: str, row: Mapping[str, Any], ended: bool) -> float:
    """1 where the reply is that of the file, and ended by itself."""
    return float(ended and text == row["messages"][-1]["content"])


def accuracy(lm: LM, model: Any, path: Path) -> float:
    """Share of right replies to the questions of a file, sampled at a temperature near 0."""
    asked = read(path, lm.tokenizer, form="prompts")["prompts"]
    ends = [*lm.ends, lm.tokenizer.convert_tokens_to_ids(chat.END)]
    engine = Engine(ends, pad_id=lm.tokenizer.pad_token_id, max_new_tokens=48, temperature=0.1)
    return sum(graded(model, lm.tokenizer, asked, engine=engine, reward=right_reply)) / len(asked)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=100)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        train, held_out = Path(folder, "train.jsonl"), Path(folder, "held_out.jsonl")
        write(train, 1, 1000)
        write(held_out, 2, 160, evaluation=True)
        print(train.read_text().partition("\n")[0])
        lm = base()
        rows, unseen = read(train, lm.tokenizer), read(held_out, lm.tokenizer)
        print(f"{rows.count} rows of the form {rows.form}: {lm.tokenizer.decode(rows['x'][0]['input_ids'])}")
        before = accuracy(lm, lm.model, held_out)
        # The base has never seen the turns' tokens, nor "Sure" and "Sorry": their embeddings are learnt beside the
        # low-rank matrices. Without them half of the replies are right after as many steps.
        used = sorted({token for row in rows["x"] for token in row["input_ids"]})
        lora = {"r": 16, "lora_alpha": 32, "trainable_token_indices": used}
        rises = []
        for name, told in (("full", {"learning_rate": 1e-3}), ("LoRA", {"learning_rate": 3e-3, "lora": lora})):
            lm = base()
            done = fit(
                lm, rows, loss=nll, held_out=unseen, max_steps=args.steps, per_device_train_batch_size=16,
                eval_strategy="steps", eval_steps=args.steps, eval_on_start=True, **QUIET, **told,
            )  # fmt: skip
            loss = [entry["eval_loss"] for entry in done.history if "eval_loss" in entry]
            after = accuracy(lm, done.model, held_out)
            trained = sum(p.numel() for p in done.model.parameters() if p.requires_grad)
            print(
                f"{name}: {trained:9,} weights trained   held-out loss {loss[0]:.3f} > {loss[-1]:.3f}   "
                f"right replies {before:.0%} > {after:.0%}"
            )
            rises.append(after - before)
    print(f"right replies rose by at least {100 * min(rises):.0f} points ({100 * WANTED:.0f} are wanted)")
    raise SystemExit(0 if min(rises) >= WANTED else 1)


if __name__ == "__main__":
    main()
