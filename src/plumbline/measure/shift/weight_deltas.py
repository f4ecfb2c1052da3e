"""What changed between two checkpoints, tensor by tensor, and the spectrum of each change."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from plumbline.core.errors import LoadError, refuse
from plumbline.kernels.seeds import generator
from plumbline.kernels.shards import Shards

EXACT = 512  # up to this many singular values are computed; beyond it a sketch finds the leading ones
SKETCH = 128
TOLERANCE = 1e-3  # a singular value counts from this share of the largest, if it is above the rounding floor
_LAYER = re.compile(r"\.(?:layers|h|blocks|block|layer)\.(\d+)\.")
_LORA = re.compile(r"(.*)\.lora_(A|B|embedding_A|embedding_B)(?:\.\w+)??(?:\.weight)?")


@dataclass
class Delta:
    """One tensor of both models: float32 ``a`` and ``change`` (None where they cannot be subtracted, see ``note``)."""

    name: str
    a: Tensor | None = None
    change: Tensor | None = None
    rounding: float = 0.0  # rms error that storing the tuned tensor in its dtype makes
    note: str = ""
    rank: int | None = None  # where an adapter's own shape states it


def layer_of(name: str) -> int | None:
    """The number of the transformer block that a tensor belongs to; None for embeddings, head and final norm."""
    found = _LAYER.search(f".{name}")
    return int(found[1]) if found else None


def rounding_error(stored: Tensor, eps: float) -> float:
    r"""Rms error of rounding to a format of precision eps: :math:`ulp/\sqrt{12}`, ulp = eps 2^floor(log2 |w|)."""
    exponent = torch.frexp(stored).exponent - 1
    ulp = torch.where(stored == 0, 0.0, torch.ldexp(torch.full_like(stored, eps), exponent))
    return float(ulp.pow(2).mean(dtype=torch.float64).sqrt()) / math.sqrt(12)


def deltas(base: Shards, tuned: Shards, device: Any = "cpu") -> Iterator[Delta]:
    """Every tensor of both checkpoints, one in memory at a time. A grown vocabulary is compared on its shared rows."""
    for name in sorted({*base.names(), *tuned.names()}):
        if name not in base or name not in tuned:
            yield Delta(name, note="only in BASE" if name in base else "only in TUNED")
            continue
        shapes, note = (base.shape(name), tuned.shape(name)), ""
        rows = None
        if shapes[0] != shapes[1]:
            if len(shapes[0]) != 2 or len(shapes[1]) != 2 or shapes[0][1] != shapes[1][1]:
                yield Delta(name, note=f"reshaped from {shapes[0]} to {shapes[1]}")
                continue
            rows = slice(0, min(shapes[0][0], shapes[1][0]))
            note = f"{shapes[0][0]} rows in BASE, {shapes[1][0]} in TUNED: the shared ones are compared"
        kinds = [s.dtype(name) for s in (base, tuned)]
        a, b = (s.get(name, rows).to(device, torch.float32) for s in (base, tuned))
        eps = max((torch.finfo(k).eps for k in kinds if k.is_floating_point), default=0.0)
        change = b - a
        if not bool(torch.isfinite(change).all()):
            yield Delta(name, note="holds NaN or infinite values")
            continue
        moved = bool(change.any())
        yield Delta(name, a, change, rounding_error(b, eps) if eps and moved and b.dim() == 2 else 0.0, note)


def adapter_deltas(base: Shards, folder: Path, device: Any = "cpu") -> Iterator[Delta]:
    r"""What a LoRA adapter adds to each tensor of BASE, from its own file: :math:`\Delta W = s\,B A`."""
    config = json.loads((folder / "adapter_config.json").read_text(encoding="utf-8"))
    if str(config.get("peft_type", "LORA")).upper() != "LORA" or config.get("use_dora"):
        kind = "DORA" if config.get("use_dora") else config["peft_type"]
        do = "merge it into its base first (merge_and_unload, save_pretrained)"
        raise refuse("weight_change", "tuned", "a LoRA adapter or full weights", kind, do, error=LoadError)
    shards = Shards(folder)
    factors: dict[str, dict[str, str]] = {}
    whole: dict[str, str] = {}
    for stored in shards.names():
        if found := _LORA.fullmatch(stored):
            factors.setdefault(found[1].removeprefix("base_model.model."), {})[found[2][-1]] = stored
        else:
            name = stored.removeprefix("base_model.model.").replace(".modules_to_save", "").replace(".base_layer", "")
            whole[name] = stored
    for name in base.names():
        module = name.removesuffix(".weight")
        a = base.get(name).to(device, torch.float32)
        if module in factors and name.endswith(".weight"):
            low_a, low_b = (shards.get(factors[module][side]).to(device, torch.float32) for side in "AB")
            rank = low_a.shape[0]
            change = _scaling(config, module, rank) * (low_b @ low_a)
            if change.shape != a.shape:  # embeddings and GPT-2's Conv1D keep their weights transposed
                change = change.T
            yield Delta(name, a, change, rank=rank)
        elif name in whole and shards.shape(whole[name]) == tuple(a.shape):
            yield Delta(name, a, shards.get(whole[name]).to(device, torch.float32) - a, note="trained whole")
        else:
            yield Delta(name, a, torch.zeros_like(a))
    for module in sorted({f"{m}.weight" for m in factors} - set(base.names())):
        yield Delta(module, note="only in the adapter")


def _scaling(config: dict[str, Any], module: str, rank: int) -> float:
    """alpha / r, or alpha / sqrt(r) for rank-stabilised LoRA; a pattern's alpha wins where it names the module."""
    alpha = config.get("lora_alpha", rank)
    for pattern, value in (config.get("alpha_pattern") or {}).items():
        if re.fullmatch(rf"(.*\.)?({pattern})", module):
            alpha = value
    return float(alpha) / (math.sqrt(rank) if config.get("use_rslora") else rank)


@dataclass(frozen=True)
class Spectrum:
    """The singular values of a change [m, n], k = min(m, n), in numbers."""

    effective_rank: float  # exp of the entropy of the energies
    fraction: float  # effective_rank / k
    stable_rank: float  # total energy over the largest
    rank: int  # singular values above the tolerance and the rounding floor; at least this many where sketched
    top: dict[int, float]  # share of the energy in the largest 8, 16, 64
    low_rank: bool
    exact: bool


def spectrum(change: Tensor, *, rounding: float = 0.0, seed: int = 0, key: str = "") -> Spectrum:
    r"""Effective rank, stable rank, numerical rank and energy shares of a change [m, n].

    .. math:: p_i = \sigma_i^2 / \|\Delta\|_F^2,\quad \text{effective rank} = \exp(-\sum_i p_i \log p_i),\quad
              \text{stable rank} = \|\Delta\|_F^2 / \sigma_1^2

    The numerical rank counts :math:`\sigma_i > \max(10^{-3}\sigma_1,\; 1.1\, s(\sqrt m + \sqrt n))`, where s is the
    rms ``rounding`` error and the second term the largest singular value of pure rounding noise. ``low_rank`` says
    that at most k/4 values count and that rounding explains what they leave (1.5 s^2 m n, or 1% of the energy).
    Above 512 a Gaussian sketch with two power iterations (Halko et al., 2011) gives the 128 largest values, the
    Frobenius norm is exact, and the energy left over is spread evenly over the other values (an upper estimate).
    """
    m, n = change.shape
    k, total = min(m, n), float(change.pow(2).sum(dtype=torch.float64))
    if k <= EXACT:
        sigma = torch.linalg.svdvals(change).double().cpu()
    else:
        draw = torch.randn(n, SKETCH + 10, generator=generator(seed, "sketch", key, device=change.device),
                           device=change.device)  # fmt: skip
        q = torch.linalg.qr(change @ draw).Q
        for _ in range(2):
            q = torch.linalg.qr(change @ torch.linalg.qr(change.T @ q).Q).Q
        sigma = torch.linalg.svdvals(q.T @ change)[:SKETCH].double().cpu()
    share = sigma.pow(2) / total
    rest, others = max(0.0, 1.0 - float(share.sum())), k - len(sigma)
    entropy = float(-torch.special.xlogy(share, share).sum())
    if others and rest > 1e-12:
        entropy -= rest * math.log(rest / others)
    floor = max(TOLERANCE * float(sigma[0]), 1.1 * rounding * (math.sqrt(m) + math.sqrt(n)))
    rank = int((sigma > floor).sum())
    left = (1.0 - float(share[:rank].sum())) * total
    few = 0 < rank <= max(1, k // 4) and rank < max(len(sigma), 2)
    low = few and left <= max(1.5 * rounding**2 * m * n, 0.01 * total)
    top = {j: float(share[:j].sum()) for j in (8, 16, 64)}
    effective = math.exp(entropy)
    return Spectrum(effective, effective / k, float(1 / share[0]), rank, top, low, not others)


def row_of(delta: Delta, seed: int = 0) -> dict[str, Any]:
    """What the table shows of one tensor; ``relative_change`` is None where it could not be compared."""
    row: dict[str, Any] = {"tensor": delta.name, "layer": layer_of(delta.name), "note": delta.note}
    if delta.a is None or delta.change is None:
        return row | {"relative_change": None, "frozen": False, "low_rank": False}
    norm, moved, new = (float(torch.linalg.vector_norm(x)) for x in (delta.a, delta.change, delta.a + delta.change))
    row |= {"shape": "x".join(map(str, delta.a.shape)), "parameters": delta.a.numel(), "norm": norm, "moved": moved}
    row |= {"relative_change": moved / norm if norm else (0.0 if not moved else None), "frozen": not moved}
    row |= {"cosine": (norm**2 + new**2 - moved**2) / (2 * norm * new) if norm and new else None, "low_rank": False}
    if moved and delta.change.dim() == 2 and min(delta.change.shape) >= 8:
        s = spectrum(delta.change, rounding=delta.rounding, seed=seed, key=delta.name)
        row |= {
            "rank": delta.rank or s.rank,
            "low_rank": bool(delta.rank) or s.low_rank,
            "effective_rank": s.effective_rank,
        }
        row |= {"rank_fraction": s.fraction, "stable_rank": s.stable_rank, "exact": s.exact}
        row |= {f"energy_top_{k}": value for k, value in s.top.items()}
    return row


def relative_change(rows: list[dict[str, Any]]) -> float:
    """Norm of the change of several tensors over their norm."""
    norm = math.sqrt(sum(r["norm"] ** 2 for r in rows))
    return math.sqrt(sum(r["moved"] ** 2 for r in rows)) / norm if norm else 0.0
