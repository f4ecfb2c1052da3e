from __future__ import annotations

import json

import pytest
import torch

from plumbline.lab.rollouts import PROMPT, engine, engine_rollouts, exact_kl


def test_the_file_states_the_law_that_was_drawn_from(tmp_path):
    lm = engine()
    ids = engine_rollouts(
        lm, tmp_path / "r.jsonl", prompts=3, samples=1, length=4, temperature=0.5, top_k=5, support=True
    )
    row = json.loads((tmp_path / "r.jsonl").read_text().splitlines()[1])
    assert row["prompt_ids"] + row["completion_ids"] == ids[1].tolist() and row["temperature"] == 0.5
    with torch.no_grad():
        z = lm.model(ids[1:2]).logits[0, PROMPT - 1].double() / 0.5
    kept = z.topk(5).indices.tolist()
    assert sorted(row["support"][0]) == sorted(kept)
    wanted = z[row["completion_ids"][0]] - z[kept].logsumexp(0)
    assert row["sampler_logps"][0] == pytest.approx(float(wanted), abs=1e-4)
    assert exact_kl(lm, ids, 1.0) == pytest.approx(0, abs=1e-9) and exact_kl(lm, ids, 0.5) > 0.1
