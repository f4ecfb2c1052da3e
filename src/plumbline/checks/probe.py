"""Properties of every probe, on 24 items: declared, JSON, steady, modest.

A probe of a comparison gets a stub of one. Any other's file makes its positional arguments, over so many items, in a
private ``_example(items)``; a probe without either cannot be checked and fails.
"""

from __future__ import annotations

import json
import math
import re
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np

from plumbline.checks.common import expect
from plumbline.core.declare import Card
from plumbline.core.finding import Finding
from plumbline.kernels.records import Records
from plumbline.lab.tables import TableLM, item_table, output_table, sample_table, token_table, vocab_table

ITEMS, LENGTH, VOCAB = 24, 30, 31


@contextmanager
def stub(items: int = ITEMS) -> Iterator[Records]:
    """Records of two table models over ``items`` prompts, every table filled, tiny models on disk behind them."""
    base = TableLM.random(VOCAB, scale=1.5, seed=0)
    tuned = base.at_temperature(0.7)
    ids = tuned.sample(np.arange(items) % VOCAB, LENGTH, seed=1)
    arms: dict[str, dict[str, Any]] = {}
    for arm, every in (("a", 3), ("b", 4)):
        right = np.arange(items) % every > 0
        arms[arm] = {
            "text": [f"answer {i % 5} of {arm} " * 3 for i in range(items)], "ids": [row.tolist() for row in ids],
            "answer": [str(i % 5 if ok else -1) for i, ok in enumerate(right)], "correct": right.tolist(),
            "confidence": [0.5 + 0.4 * math.sin(i) for i in range(items)], "finish": ["eos"] * items,
            "n_tokens": [LENGTH] * items,
        }  # fmt: skip
    with tempfile.TemporaryDirectory() as folder:
        left, right_ = _models()
        yield Records.of(
            folder, {"base": "A", "tuned": "B", "same_tokenizer": True, "seed": 0}, base=left, tuned=right_,
            items=item_table(items, tags=[["benign"]] * items, answer="x"), vocab=vocab_table(VOCAB),
            tokens=token_table(ids, base.along(ids), tuned.along(ids), source="text"), outputs=output_table(arms),
            samples=_samples(base, tuned, items), spans=_spans(items),
        )  # fmt: skip


@cache
def _models() -> tuple[Any, Any]:
    from plumbline.lab.tiny import tiny
    from plumbline.lab.tiny_tokenizer import tiny_tokenizer
    from plumbline.models import load

    folder, tokenizer = Path(tempfile.mkdtemp(prefix="plumbline-checks-")), tiny_tokenizer()
    for name, seed in (("a", 0), ("b", 1)):
        tiny("llama", vocab=len(tokenizer), seed=seed).save_pretrained(folder / name)
        tokenizer.save_pretrained(folder / name)
    return load(folder / "a"), load(folder / "b")


def _samples(base: TableLM, tuned: TableLM, items: int) -> Any:
    import pandas as pd

    starts = np.arange(items) % VOCAB
    each = [sample_table(lm, arm, starts, samples=6, length=LENGTH) for arm, lm in (("a", base), ("b", tuned))]
    return pd.concat(each, ignore_index=True)


def _spans(items: int) -> Any:
    import pandas as pd

    n = items * LENGTH
    wave = np.sin(np.arange(n)) ** 2 + 0.01
    starts = np.tile(np.arange(LENGTH) * 4, items)
    return pd.DataFrame({
        "item": np.repeat(np.arange(items), LENGTH), "byte_start": starts, "byte_end": starts + 4,
        "text": [" abc"] * n, "n_tok_a": 1, "n_tok_b": 1 + (np.arange(n) % 2), "logp_a": -wave, "logp_b": -1.5 * wave,
        "one_to_one": np.arange(n) % 2 == 0, "byte_kl_ab": wave / 9, "byte_kl_ba": wave / 8, "byte_js": wave / 40,
        "byte_tv": wave / 10, "byte_agree": wave > 0.3,
    })  # fmt: skip


def _run(card: Card, items: int = ITEMS) -> Finding:
    if _compares(card):
        with stub(items) as records:
            return card.fn(records)
    example: Any = getattr(import_module(card.module), "_example", None)
    expect(example is not None, card, "needs a comparison as its first role, or an _example(items) in its file")
    return card.fn(*example(items))


def _compares(card: Card) -> bool:
    return card.roles[:1] == ("comparison",)


def declared(card: Card) -> None:
    """It returns a Finding, and every number it reports was announced in ``gives``."""
    finding = _run(card)
    expect(isinstance(finding, Finding), card, f"must return a Finding, got {type(finding).__name__}")
    more = set(finding.flat()) - {card.name, *card.gives}
    expect(not more, card, f"reports {sorted(more)}, which gives= does not name")
    expect(bool(finding.sentence.strip()) and bool(finding.needs.strip()), card, "needs a sentence and what it needs")


def whole(card: Card) -> None:
    """It survives JSON; numbers are finite; an interval holds its value or is missing with a reason."""
    finding = _run(card)
    expect(Finding.from_json(json.loads(json.dumps(finding.to_json()))).name == finding.name, card, "JSON lost it")
    for name, part in finding.flat().items():
        expect(part.value is None or math.isfinite(part.value), card, f"{name} is {part.value}")
        if part.interval is not None and part.value is not None:
            low, high = part.interval
            expect(low - 1e-9 <= part.value <= high + 1e-9, card, f"{name} {part.value} is outside {part.interval}")


def steady(card: Card) -> None:
    """Twice the same data, twice the same finding."""
    told = [json.dumps(_run(card).to_json()) for _ in range(2)]
    expect(told[0] == told[1], card, "two runs on the same data differ")


def modest(card: Card) -> None:
    """A single item is too few for a number about a model: no value, and the sentence says what it takes."""
    if not _compares(card):
        finding = _run(card, items=1)
        expect(finding.value is None, card, f"one item gave the number {finding.value}")
        expect(
            bool(re.search(r"needs .*\d", finding.sentence)), card, f"does not say what it needs: {finding.sentence}"
        )
    elif not {"models", "weights"} & set(card.needs):
        finding = _run(card, items=1)
        bare = finding.value is None or finding.interval is None
        expect(
            bare and bool(finding.warnings or finding.value is None), card, "one item gave a number with an interval"
        )


CHECKS = (declared, whole, steady, modest)
