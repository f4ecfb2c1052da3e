"""The trainer's side against one plain forward a row, over temperatures, kept sets, masks and batch sizes."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from plumbline.core.errors import PlumblineError
from plumbline.lab.rollouts import engine
from plumbline.measure.shift.mismatch import scoring
from plumbline.measure.shift.mismatch.rows import Rollout
from plumbline.measure.shift.mismatch.scoring import trainer_logps


@pytest.fixture(scope="module")
def lm():
    return engine()


def rollouts():
    rng = np.random.default_rng(0)
    rows = []
    for i in range(12):
        prompt, completion = (
            rng.integers(3, 300, n).astype(np.int32) for n in (rng.integers(1, 9), rng.integers(1, 20))
        )
        counted = rng.random(len(completion)) < 0.8
        counted[0] = True
        sets = tuple(np.unique([y, *rng.integers(3, 300, 5)]).astype(np.int32) for y in completion)
        rows.append(Rollout(f"r{i}", f"r:{i}", prompt, completion, np.zeros(len(completion), np.float32), counted,
                            0.7 if i % 3 else 1.0, sets if i % 2 else None))  # fmt: skip
    return rows


@torch.no_grad()
def slow(lm, row):
    ids = torch.from_numpy(np.concatenate([row.prompt, row.completion])).long()
    z = lm.model(ids[None]).logits[0].double() / row.temperature
    found = []
    for at, y in enumerate(row.completion.tolist()):
        scores = z[len(row.prompt) + at - 1]
        pool = scores if row.support is None else scores[torch.from_numpy(row.support[at]).long()]
        found.append(float(scores[y] - pool.logsumexp(0)) if row.counted[at] else 0.0)
    return found


@pytest.mark.parametrize("budget", [1, 60, 10_000])
def test_as_one_forward_a_row(lm, budget):
    rows, done = rollouts(), []
    found = trainer_logps(lm, rows, batch_tokens=budget, progress=done.append)
    for row, logps in zip(rows, found, strict=True):
        assert np.allclose(logps, slow(lm, row), atol=1e-4)
    assert sum(done) == len(rows)


def test_a_batch_that_does_not_fit_is_halved(lm, monkeypatch):
    rows, real, sizes = rollouts(), scoring._score, []

    def small(lm, part):
        sizes.append(len(part))
        if len(part) > 1:
            raise torch.OutOfMemoryError("out of memory")
        return real(lm, part)

    monkeypatch.setattr(scoring, "_score", small)
    found = trainer_logps(lm, rows, batch_tokens=10_000)
    assert max(sizes) > 1 and np.allclose(found[0], slow(lm, rows[0]), atol=1e-4)
    monkeypatch.setattr(
        scoring, "_score", lambda lm, part: (_ for _ in ()).throw(torch.OutOfMemoryError("out of memory"))
    )
    with pytest.raises(PlumblineError, match="small enough for the device"):
        trainer_logps(lm, rows, batch_tokens=10_000)
