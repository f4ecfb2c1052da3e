"""The training script: packing, and a run that is stopped and goes on like one that was not."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from plumbline.models.zoo import train as zoo_train
from plumbline.models.zoo.tokenizer import CONTEXT, learn

TEXTS = [f"Add {a} and {b}. The old fox sees house {a}{b}." for a in range(10, 30) for b in range(10, 20)]


def test_packing_cuts_no_text_and_loses_none() -> None:
    tokenizer = learn(TEXTS, vocab_size=300)
    rows = zoo_train.pack(tokenizer, TEXTS)
    assert rows.shape[1] == CONTEXT
    decoded = "".join(tokenizer.decode(row[row != tokenizer.pad_token_id]) for row in rows)
    assert decoded == "".join(tokenizer.bos_token + text + tokenizer.eos_token for text in TEXTS)


def test_a_resumed_run_ends_where_an_uninterrupted_one_does(tmp_path: Path, monkeypatch) -> None:
    tokenizer = learn(TEXTS, vocab_size=300)
    recipe = zoo_train.Recipe(
        "test", lambda t, p: zoo_train.pack(t, TEXTS), parts=2, lr=1e-3, batch=2, width=32, layers=1
    )
    monkeypatch.setattr(zoo_train, "EVERY", 3)
    monkeypatch.setattr(zoo_train, "skills", lambda *_: {})

    def weights(folder: Path, stop: int | None = None) -> np.ndarray:
        run = zoo_train.Run("test", recipe, zoo_train.build(recipe, tokenizer).train(), folder)
        run.restore()
        plain, calls = zoo_train.next_token_loss(run.model, None, torch.float32), []

        def loss(ids: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
            calls.append(1)
            if len(calls) == stop:
                raise KeyboardInterrupt
            return plain(ids, labels)

        try:
            zoo_train.train(run, tokenizer, loss, "test")
        except KeyboardInterrupt:
            return np.empty(0)
        return torch.cat([p.detach().flatten() for p in run.model.parameters()]).numpy()

    (tmp_path / "whole").mkdir()
    (tmp_path / "cut").mkdir()
    whole = weights(tmp_path / "whole")
    start = weights(tmp_path / "cut", stop=5)
    assert start.size == 0
    assert (tmp_path / "cut" / ".test.checkpoint.npz").is_file()
    np.testing.assert_array_equal(weights(tmp_path / "cut"), whole)
    assert not np.array_equal(whole, _fresh(recipe, tokenizer))


def _fresh(recipe: zoo_train.Recipe, tokenizer: object) -> np.ndarray:
    model = zoo_train.build(replace(recipe), tokenizer)
    return torch.cat([p.detach().flatten() for p in model.parameters()]).numpy()
