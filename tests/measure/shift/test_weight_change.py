"""weight_change: numbers by hand, against peft's own merge, sharded or not; the sketch against exact values."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from plumbline.core.errors import LoadError
from plumbline.core.finding import Finding
from plumbline.kernels.records import Records
from plumbline.kernels.seeds import forked, generator
from plumbline.kernels.shards import Shards, write
from plumbline.lab.tiny import tiny
from plumbline.measure.shift import weight_change
from plumbline.measure.shift._weight_change import merged_adapter_is_recognised
from plumbline.measure.shift.weight_deltas import adapter_deltas, layer_of, rounding_error, spectrum
from plumbline.models.lm import LM


def compare(folder: Path, base: dict[str, Tensor], tuned: dict[str, Tensor], **how: Any) -> Finding:
    sides = {"base": base, "tuned": tuned}
    lms = {k: LM(None, None, k, folder=write(folder / k, v, **how).folder) for k, v in sides.items()}
    return weight_change(Records.of(folder / "records", **lms))


def row(finding: Finding, name: str) -> dict[str, Any]:
    return next(r for r in finding.table if r["tensor"] == name)


def test_by_hand(tmp_path: Path) -> None:
    a = torch.eye(8)
    b = a + torch.diag(torch.tensor([1.0, 1, 1, 1, 0, 0, 0, 0]))
    same = torch.ones(8)
    found = compare(
        tmp_path, {"model.layers.3.w.weight": a, "norm": same}, {"model.layers.3.w.weight": b, "norm": same}
    )
    r = row(found, "model.layers.3.w.weight")
    assert r["relative_change"] == pytest.approx(np.sqrt(4 / 8)) and r["layer"] == 3
    assert r["cosine"] == pytest.approx(12 / np.sqrt(8 * 20))
    assert r["effective_rank"] == pytest.approx(4) and r["stable_rank"] == pytest.approx(4) and r["rank"] == 4
    assert r["rank_fraction"] == pytest.approx(0.5) and r["energy_top_8"] == pytest.approx(1)
    assert not r["low_rank"]  # 4 of 8 directions are not few
    assert found.value == pytest.approx(np.sqrt(4 / 16))
    parts = found.flat()
    assert parts["weights_frozen"].value == pytest.approx(8 / 72) and row(found, "norm")["frozen"]
    assert parts["weights_top_layer"].value == r["relative_change"] and "Layer 3" in parts["weights_top_layer"].sentence
    assert found.figure["data"][0]["x"] == ["3", "other"]
    json.dumps(found.to_json())


def test_effective_rank_is_the_entropy_of_the_energies() -> None:
    s = spectrum(torch.diag(torch.tensor([2.0, 1.0] + [0.0] * 8)))
    p = np.array([0.8, 0.2])
    assert s.effective_rank == pytest.approx(np.exp(-(p * np.log(p)).sum())) and s.stable_rank == pytest.approx(1.25)
    assert (s.rank, s.low_rank, s.exact) == (2, True, True)


def test_nothing_changed(tmp_path: Path) -> None:
    weights = {"w": torch.randn(9, 9)}
    found = compare(tmp_path, weights, weights)
    assert found.value == 0 and found.flat()["weights_frozen"].value == 1 and found.sentence.startswith("No weight")
    assert found.flat()["weights_low_rank"].value is None and found.flat()["weights_rank_fraction"].value is None


def test_what_cannot_be_compared_is_named(tmp_path: Path) -> None:
    base = {
        "embed_tokens.weight": torch.ones(10, 4),
        "gone": torch.ones(2),
        "x": torch.ones(2, 3),
        "bad": torch.ones(2),
    }
    tuned = {"embed_tokens.weight": torch.full((12, 4), 1.5), "new": torch.ones(2), "x": torch.ones(3, 2),
             "bad": torch.tensor([1.0, float("nan")])}  # fmt: skip
    found = compare(tmp_path, base, tuned)
    assert row(found, "embed_tokens.weight")["relative_change"] == pytest.approx(0.5)
    assert "10 rows in BASE, 12 in TUNED" in row(found, "embed_tokens.weight")["note"]
    notes = {r["tensor"]: r["note"] for r in found.table}
    assert notes["gone"] == "only in BASE" and notes["new"] == "only in TUNED" and "reshaped" in notes["x"]
    assert "NaN" in notes["bad"] and found.value == pytest.approx(0.5) and "4 tensors" in found.warnings[0]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_sharding_changes_nothing(tmp_path: Path, dtype: torch.dtype) -> None:
    g = generator(0)
    base = {f"h.{i}.w": torch.randn(16, 24, generator=g).to(dtype) for i in range(5)}
    tuned = {k: v + torch.randn(v.shape, generator=g).to(dtype) / 50 for k, v in base.items()}
    one = compare(tmp_path / "one", base, tuned)
    many = compare(tmp_path / "many", base, tuned, max_shard_bytes=1000)
    assert one == many and len(list((tmp_path / "many/base").glob("*.safetensors"))) > 1
    assert one.flat()["weights_low_rank"].value == 0


def test_the_sketch_finds_the_leading_values() -> None:
    g = generator(0)
    low = torch.randn(700, 12, generator=g) @ torch.randn(12, 600, generator=g)
    change = low + 0.02 * torch.randn(700, 600, generator=g)
    found, sigma = spectrum(change, rounding=0.02), torch.linalg.svdvals(change).double()
    p = (sigma**2 / (sigma**2).sum()).numpy()
    assert not found.exact and found.rank == 12 and found.low_rank
    assert found.effective_rank == pytest.approx(np.exp(-(p * np.log(p)).sum()), rel=1e-3)
    assert found.stable_rank == pytest.approx(1 / p[0], rel=1e-5)
    assert found.top == pytest.approx({k: p[:k].sum() for k in (8, 16, 64)}, rel=1e-5)
    full = spectrum(torch.randn(700, 600, generator=g))
    assert not full.low_rank and full.fraction > 0.5
    assert spectrum(change, rounding=0.02) == found


def test_rounding_error_is_that_of_bf16() -> None:
    w = torch.randn(400, 400, generator=generator(1))
    seen = float((w.bfloat16().float() - w).pow(2).mean().sqrt())
    assert rounding_error(w.bfloat16().float(), torch.finfo(torch.bfloat16).eps) == pytest.approx(seen, rel=0.02)


@pytest.mark.parametrize("name", ["model.layers.7.mlp.w", "transformer.h.7.attn.w", "gpt_neox.layers.7.w", "h.7.w"])
def test_layers(name: str) -> None:
    assert layer_of(name) == 7 and layer_of("model.embed_tokens.weight") is None


@pytest.mark.parametrize("architecture", ["llama", "gpt2"])
@pytest.mark.parametrize("rslora", [False, True])
def test_an_adapter_file_gives_what_merging_it_gives(tmp_path: Path, architecture: str, rslora: bool) -> None:
    peft = pytest.importorskip("peft")
    model = tiny(architecture)
    before = {k: v.clone() for k, v in model.state_dict().items()}
    write(tmp_path / "base", before)
    targets = ["q_proj", "down_proj"] if architecture == "llama" else ["c_attn"]
    config = peft.LoraConfig(r=3, lora_alpha=12, target_modules=targets, use_rslora=rslora, init_lora_weights=False,
                             fan_in_fan_out=architecture == "gpt2", task_type="CAUSAL_LM")  # fmt: skip
    with forked(0):
        wrapped = peft.get_peft_model(model, config)
    wrapped.save_pretrained(tmp_path / "adapter")
    merged = wrapped.merge_and_unload().state_dict()
    seen = {d.name: d for d in adapter_deltas(Shards(tmp_path / "base"), tmp_path / "adapter")}
    assert set(seen) == set(before)
    for name, tensor in merged.items():
        torch.testing.assert_close(seen[name].change, tensor - before[name], atol=1e-5, rtol=1e-4)
    lms = {k: LM(None, None, k, folder=tmp_path / v) for k, v in (("base", "base"), ("tuned", "adapter"))}
    found = weight_change(Records.of(tmp_path / "records", **lms))
    assert {r["rank"] for r in found.table if r.get("rank")} == {3} and "LoRA adapter (rank 3)" in found.sentence
    assert found.flat()["weights_low_rank"].value == pytest.approx(1)
    swapped = weight_change(Records.of(tmp_path / "records", base=lms["tuned"], tuned=lms["base"]))
    assert swapped.value is None and "adapter" in swapped.sentence


def test_other_adapters_are_refused(tmp_path: Path) -> None:
    write(tmp_path / "base", {"w": torch.ones(2)})
    (tmp_path / "adapter_config.json").write_text('{"peft_type": "IA3"}')
    with pytest.raises(LoadError, match="weight_change: tuned must be a LoRA adapter or full weights, got IA3; merge"):
        list(adapter_deltas(Shards(tmp_path / "base"), tmp_path))
    lms = {k: LM(None, None, k, folder=v) for k, v in (("base", tmp_path / "base"), ("tuned", tmp_path))}
    found = weight_change(Records.of(tmp_path / "records", **lms))
    assert found.value is None and "IA3" in found.sentence


def test_models_without_files_are_undefined(tmp_path: Path) -> None:
    for records in (Records.of(tmp_path), Records.of(tmp_path, base=LM(None, None, "a"), tuned=LM(None, None, "b"))):
        assert weight_change(records).value is None


def test_the_claim_holds() -> None:
    evidence = merged_adapter_is_recognised()
    assert evidence.holds and evidence.control and evidence.measured["adapter_rank"] == 4
