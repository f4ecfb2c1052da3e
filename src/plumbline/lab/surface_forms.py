"""Facts that can be said in two ways, and a tiny LM that mostly says them in the first: what fine-tuning on the second
costs. Texts are words in a row: ``"e5"`` asks, ``" is v7"`` or ``" equals v7 ."`` answers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel

from plumbline.core.scored import IGNORED, Scored
from plumbline.kernels.cached_lm import CachedLM
from plumbline.kernels.seeds import generator
from plumbline.lab.tiny import tiny

KNOWN, HELD_OUT, UNKNOWN, VALUES = 16, 8, 8, 16  # entities: 16 known, 8 known but not tuned on, 8 never seen before
_WORDS = ["<pad>", "<bos>", "<eos>", "is", "equals", "."]
_WORDS += [f"e{i}" for i in range(KNOWN + HELD_OUT + UNKNOWN)] + [f"v{i}" for i in range(VALUES)]
_IDS = {word: i for i, word in enumerate(_WORDS)}
FIRST = 0.75  # how often the base model's text uses the first form


def value(entity: int) -> str:
    """The fact about an entity."""
    return f"v{(5 * entity + entity // VALUES) % VALUES}"


def first_form(entity: int) -> dict[str, str]:
    return {"prompt": f"e{entity}", "completion": f" is {value(entity)}"}


def second_form(entity: int) -> dict[str, str]:
    return {"prompt": f"e{entity}", "completion": f" equals {value(entity)} ."}


def gold_rows() -> list[dict[str, str]]:
    """What to fine-tune on: 16 known and 8 new facts, in the second form."""
    return [second_form(e) for e in (*range(KNOWN), *range(KNOWN + HELD_OUT, KNOWN + HELD_OUT + UNKNOWN))]


def judged(row: Mapping[str, Any], answer: str) -> bool:
    """Whether an answer states the row's fact, in either form."""
    facts = [[word for word in text.split() if word.startswith("v")] for text in (answer, row["completion"])]
    return facts[0] == facts[1]


def pretrained(seed: int, steps: int = 250) -> PreTrainedModel:
    """The base model: facts 0 to 23 in both forms."""
    model = tiny("llama", len(_WORDS), seed)
    g = generator(seed, "surface_forms")
    known = range(KNOWN + HELD_OUT)

    def batch() -> list[dict[str, str]]:
        forms = (torch.rand(len(known), generator=g) < FIRST).tolist()
        return [first_form(e) if first else second_form(e) for e, first in zip(known, forms)]

    return _fit(model, [_encoded(batch()) for _ in range(steps)], lr=3e-3)


def tuned(model: PreTrainedModel, rows: Sequence[Mapping[str, Any]], steps: int = 60) -> PreTrainedModel:
    """``model``, trained further on the ``target`` of rows, all of them at each step."""
    encoded = _encoded([{"prompt": row["prompt"], "completion": row["target"]} for row in rows])
    return _fit(model, [encoded] * steps, lr=1e-3)


def says(model: PreTrainedModel, prompts: Sequence[str], length: int = 4) -> list[str]:
    """Greedy answers."""
    lm, text = CachedLM(model, -1), torch.tensor([[_IDS["<bos>"], _IDS[p]] for p in prompts])
    for _ in range(length):
        text = torch.cat([text, lm(text).argmax(-1, keepdim=True)], 1)
    words = [[_WORDS[i] for i in row] for row in text[:, 2:].tolist()]
    return ["".join(f" {w}" for w in row[: row.index("<eos>") if "<eos>" in row else None]) for row in words]


def nll(model: PreTrainedModel, rows: Sequence[Mapping[str, Any]], what: str) -> float:
    """Mean nats of the answers ``row[what]`` under a model."""
    ids, labels = _encoded([{"prompt": row["prompt"], "completion": row[what]} for row in rows])
    with torch.no_grad():
        return float(-Scored.of(model, ids, labels=labels).total().mean())


def accuracy(model: PreTrainedModel) -> dict[str, float]:
    """Share of right greedy answers: new task (in either form), and held-out facts in the first form to the letter."""
    rows, old = gold_rows(), [first_form(e) for e in range(KNOWN, KNOWN + HELD_OUT)]
    new = [judged(row, said) for row, said in zip(rows, says(model, [row["prompt"] for row in rows]))]
    kept = [row["completion"] == said for row, said in zip(old, says(model, [row["prompt"] for row in old]))]
    return {"new": sum(new) / len(new), "old": sum(kept) / len(kept)}


def _encoded(rows: Sequence[Mapping[str, str]]) -> tuple[Tensor, Tensor]:
    """Ids and labels [B, 6], padded on the right."""
    words = [["<bos>", row["prompt"], *row["completion"].split(), "<eos>"] for row in rows]
    ids = torch.tensor([[_IDS[w] for w in (*row, *["<pad>"] * (6 - len(row)))] for row in words])
    labels = torch.where(ids == _IDS["<pad>"], IGNORED, ids)
    labels[:, :2] = IGNORED
    return ids, labels


def _fit(model: PreTrainedModel, batches: Sequence[tuple[Tensor, Tensor]], lr: float) -> PreTrainedModel:
    adam = torch.optim.Adam(model.parameters(), lr=lr)
    for ids, labels in batches:
        x = Scored.from_logits(model(input_ids=ids, use_cache=False).logits, labels, labels != IGNORED)
        adam.zero_grad()
        (-x.logps.sum() / x.mask.sum()).backward()
        adam.step()
    return model
