"""Weight change: how far each tensor moved, which did not, and whether the change looks like a merged adapter."""

from __future__ import annotations

import statistics
import tempfile
from collections import defaultdict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from plumbline.core.declare import Evidence, claim, probe
from plumbline.core.errors import LoadError
from plumbline.core.finding import Finding
from plumbline.kernels.records import Records
from plumbline.kernels.seeds import generator
from plumbline.kernels.shards import Shards, write
from plumbline.lab.tiny import tiny
from plumbline.measure.figures import bars
from plumbline.measure.shift.weight_deltas import adapter_deltas, deltas, relative_change, row_of
from plumbline.models.lm import LM

NEEDS = (
    "The weight files of both models, with the same tensor names; meaningless where TUNED was not derived from BASE"
    " (its units may be permuted)."
)


@probe(
    paper=None,
    says="Says how far each tensor and layer moved, what is frozen, and whether the change is of low rank.",
    differs=("Standard measures; the effective rank is that of the energies, exp of the entropy of sigma_i^2 / sum.",),
    needs=("weights",),
    gives=("weight_change", "weights_frozen", "weights_low_rank", "weights_rank_fraction", "weights_top_layer"),
)
def weight_change(comparison: Records, *, seed: int = 0) -> Finding:
    r"""Relative change over all shared tensors, exact (every stored weight is read, one tensor [m, n] at a time).

    .. math:: \sqrt{\textstyle\sum_t \|B_t - A_t\|_F^2} \Big/ \sqrt{\textstyle\sum_t \|A_t\|_F^2}

    The cosine per tensor is <A, B> / (|A| |B|). For a LoRA adapter B - A is its scaling times B A from its own file.

    Args:
        comparison: its two models' folders hold the weights.
        seed: of the sketch that finds the leading singular values of large matrices.
    """
    a, b = (getattr(side, "folder", None) for side in (comparison.base, comparison.tuned))
    if a is None or b is None:
        return _undefined("the weight files of BASE or TUNED are not on disk")
    if (Path(a) / "adapter_config.json").exists():
        return _undefined("BASE is itself an adapter: compare merged models instead")
    device = (
        getattr(next(iter(comparison.tuned.model.parameters()), None), "device", "cpu")
        if comparison.tuned.model
        else "cpu"
    )
    adapter = (Path(b) / "adapter_config.json").exists()
    try:
        found = adapter_deltas(Shards(a), Path(b), device) if adapter else deltas(Shards(a), Shards(b), device)
        rows = [row_of(delta, seed) for delta in found]
    except LoadError as error:  # an adapter that is not LoRA, a file that was cut off since
        return _undefined(str(error))
    compared = [r for r in rows if r["relative_change"] is not None]
    if not compared:
        return _undefined("the two models share no tensor")
    return _report(rows, compared, adapter)


def _undefined(why: str) -> Finding:
    return Finding(name="weight_change", title="Weight change", value=None, sentence=f"Undefined: {why}.", needs=NEEDS)


def _report(rows: list[dict[str, Any]], compared: list[dict[str, Any]], adapter: bool) -> Finding:
    overall, size = relative_change(compared), sum(r["parameters"] for r in compared)
    frozen = sum(r["parameters"] for r in compared if r["frozen"]) / size
    layers: dict[Any, list[dict[str, Any]]] = defaultdict(list)
    for r in compared:
        layers[r["layer"]].append(r)
    order = sorted(layers, key=lambda k: (k is None, k or 0))
    names, height = ["other" if k is None else str(k) for k in order], [relative_change(layers[k]) for k in order]
    top = max(range(len(names)), key=lambda i: height[i])
    spectra = [r for r in compared if "rank_fraction" in r]
    low, energy = [r for r in spectra if r["low_rank"]], sum(r["moved"] ** 2 for r in compared)
    low_share = sum(r["moved"] ** 2 for r in low) / energy if energy else None
    fraction = statistics.median(r["rank_fraction"] for r in spectra) if spectra else None
    odd = [r for r in rows if r["note"].startswith(("only", "reshaped", "holds"))]
    said = f"TUNED's weights differ from BASE's by {overall:.3g} of their norm" if energy else "No weight differs"
    said += f"; {frozen:.1%} of the weights are bit-equal"
    if energy:
        said += f", and {'layer ' * (names[top] != 'other') + names[top]} moved most ({height[top]:.3g})"
    if low_share is not None and low_share > 0.9:
        ranks = sorted({r["rank"] for r in low})
        span = str(ranks[0]) if len(ranks) == 1 else f"{ranks[0]} to {ranks[-1]}"
        said += f"; the change is {'a LoRA adapter' if adapter else 'of low rank, like a merged adapter'} (rank {span})"
    parts = (
        Finding(name="weights_frozen", title="Frozen weights", value=frozen, unit="share of parameters",
                sentence=f"{sum(r['frozen'] for r in compared)} of {len(compared)} tensors are bit-equal."),
        Finding(name="weights_low_rank", title="Low-rank change", value=low_share, unit="share of the squared change",
                sentence=f"{len(low)} of {len(spectra)} changed matrices changed in few directions, rounding aside."),
        Finding(name="weights_rank_fraction", title="Effective rank of the change", value=fraction,
                unit="median share of the full rank", sentence="1 is a change in all directions, near 0 in a few."
                if spectra else "Undefined: no matrix changed."),
        Finding(name="weights_top_layer", title="Most changed layer", value=height[top], unit="relative change",
                sentence=f"{'Layer ' * (names[top] != 'other') + names[top]} has the largest relative change."),
    )  # fmt: skip
    warnings = (
        (f"{len(odd)} tensors could not be compared, such as {odd[0]['tensor']} ({odd[0]['note']})",) if odd else ()
    )
    shown = sorted(rows, key=lambda r: -(r["relative_change"] or 0.0))
    return Finding(
        name="weight_change", title="Weight change", value=overall, unit="relative Frobenius norm", sentence=said + ".",
        n_items=len(compared), needs=NEEDS, table=tuple(shown), parts=parts, warnings=warnings,
        figure=bars(names, {"relative change": {"y": height}}, "layer", "relative change"),
    )  # fmt: skip


@claim(
    weight_change,
    "A rank-4 update merged into one matrix is recognised through bf16 rounding; noise of the same norm is not.",
    cost="cpu:2s",
)
def merged_adapter_is_recognised() -> Evidence:
    before = {k: v.bfloat16() for k, v in tiny("llama", hidden_size=96, intermediate_size=160).state_dict().items()}
    name, stream = "model.layers.1.mlp.up_proj.weight", generator(0, "weight_change")
    w = before[name].float()
    low = torch.randn(w.shape[0], 4, generator=stream) @ torch.randn(4, w.shape[1], generator=stream)
    found = {}
    for kind, noise in (("adapter", low), ("noise", torch.randn(w.shape, generator=stream))):
        merged: dict[str, Tensor] = {**before, name: (w + 0.05 * w.norm() / noise.norm() * noise).bfloat16()}
        with tempfile.TemporaryDirectory() as folder:
            sides = {side: LM(None, None, side, folder=write(Path(folder) / side, tensors).folder)
                     for side, tensors in (("base", before), ("tuned", merged))}  # fmt: skip
            finding = weight_change(Records.of(Path(folder) / "records", **sides))
        found[kind] = next(r for r in finding.table if r["tensor"] == name) | {
            "others_frozen": all(r["frozen"] for r in finding.table if r["tensor"] != name)
        }
    adapter, noise = found["adapter"], found["noise"]
    measured = {
        f"{kind}_{key}": row[key]
        for kind, row in found.items()
        for key in ("rank", "relative_change", "effective_rank")
    }
    holds = adapter["low_rank"] and adapter["rank"] == 4 and adapter["others_frozen"]
    return Evidence(holds=holds, measured=measured, control=not noise["low_rank"])
