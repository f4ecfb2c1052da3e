from __future__ import annotations

import json

import pytest

from plumbline.core.errors import InputError
from plumbline.lab.rollouts import engine, engine_rollouts, exact_kl
from plumbline.measure.shift import rollout_mismatch


@pytest.fixture(scope="module")
def lm():
    return engine()


def test_the_engine_that_is_the_trainer_has_no_mismatch(lm, tmp_path):
    engine_rollouts(lm, tmp_path / "r.jsonl", temperature=0.8)
    found = rollout_mismatch(lm, tmp_path / "r.jsonl")
    told = found.flat()
    assert found.value == pytest.approx(0, abs=1e-6) and found.n_items == 960 and found.n_clusters == 30
    for name, value in (("ess", 1), ("answer_ess", 1), ("mean_weight", 1), ("outside", 0), ("rejected", 0)):
        assert told[f"rollout_{name}"].value == pytest.approx(value, abs=1e-4), name
    assert told["rollout_length_correlation"].value is None and found.warnings == ()
    assert "within what numerics" in found.sentence
    assert set(told) == {"rollout_mismatch", *rollout_mismatch.card.gives}


def test_a_temperature_that_is_not_told_shows_as_the_exact_kl(lm, tmp_path):
    ids = engine_rollouts(lm, tmp_path / "r.jsonl", prompts=60, temperature=0.7, told=1.0)
    found = rollout_mismatch(lm, tmp_path / "r.jsonl", worst=3)
    assert found.value == pytest.approx(exact_kl(lm, ids, 0.7), rel=0.15)
    assert "check temperature" in found.sentence
    assert len(found.table) == 3 and abs(found.table[0]["log ratio"]) >= abs(found.table[1]["log ratio"])
    assert len(found.texts) == 3 or len({row["id"] for row in found.table}) == len(found.texts)


def test_numbers_shifted_by_one_are_named(lm, tmp_path):
    engine_rollouts(lm, tmp_path / "r.jsonl")
    rows = [json.loads(line) for line in (tmp_path / "r.jsonl").read_text().splitlines()]
    for row in rows:
        row["sampler_logps"] = [*row["sampler_logps"][1:], -1.0]
    (tmp_path / "s.jsonl").write_text("\n".join(map(json.dumps, rows)))
    warned = rollout_mismatch(lm, tmp_path / "s.jsonl").warnings
    assert any("next token better" in w and "shifted by one" in w for w in warned)


def test_long_answers_that_a_band_rejects_are_warned_of(lm, tmp_path):
    engine_rollouts(lm, tmp_path / "r.jsonl", prompts=40, length=40)
    rows = [json.loads(line) for line in (tmp_path / "r.jsonl").read_text().splitlines()]
    for i, row in enumerate(rows):
        row["completion_ids"] = row["completion_ids"][: 2 + i % 38]
        row["sampler_logps"] = [p - 0.06 for p in row["sampler_logps"][: 2 + i % 38]]
    (tmp_path / "s.jsonl").write_text("\n".join(map(json.dumps, rows)))
    part = rollout_mismatch(lm, tmp_path / "s.jsonl").flat()["rollout_length_correlation"]
    assert part.value > 0.8 and "rejects by length" in part.warnings[0] and part.figure is not None


def test_missing_numbers_and_few_tokens(lm, tmp_path):
    engine_rollouts(lm, tmp_path / "r.jsonl", prompts=2, samples=1, length=11)
    rows = [json.loads(line) for line in (tmp_path / "r.jsonl").read_text().splitlines()]
    rows[0]["sampler_logps"][3] = None
    (tmp_path / "r.jsonl").write_text("\n".join(map(json.dumps, rows)))
    assert any("no number for 1 tokens" in w for w in rollout_mismatch(lm, tmp_path / "r.jsonl").warnings)
    few = rollout_mismatch(lm, tmp_path / "r.jsonl", limit=1)
    assert few.value is None and "at least 20 tokens; there are 10" in few.sentence
    with pytest.raises(InputError, match="rollout_mismatch: batch_tokens must be a whole number >= 1, got 0"):
        rollout_mismatch(lm, tmp_path / "r.jsonl", batch_tokens=0)
