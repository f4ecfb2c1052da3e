"""What a head gives each key: importance per key, sinks per layer and head, and the texts they are measured on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from plumbline.kernels.hooks import attention_maps
from plumbline.kernels.records import Records
from plumbline.models.sites import attention_layers, attention_out

BATCH = 8  # sequences per pass: one layer's [8, H, T, T] is alive at a time


@dataclass(frozen=True)
class Sinks:
    """One model's sinks on N texts of T tokens.

    Attributes:
        first: [N, L, H] bool, where the first token is a sink of a head.
        rates: [L, T], the share of texts and heads for which each key is a sink, by layer.
        row_sum: the mean sum of an attention row; 1 under softmax without an extra sink logit.
    """

    first: np.ndarray
    rates: np.ndarray
    row_sum: float


def importance(attention: Tensor) -> Tensor:
    r"""Mean attention that each key gets from the queries that can see it.

    .. math:: \alpha_k = \frac{1}{T-k+1}\sum_{i=k}^{T} A_{i,k}

    Args:
        attention: [..., T, T], rows are queries, causal.

    Returns:
        [..., T] float32.
    """
    n_queries = torch.arange(attention.shape[-1], 0, -1, device=attention.device)
    return attention.float().sum(-2) / n_queries


def sinks(lm: Any, ids: Sequence[Sequence[int]], *, eps: float) -> Sinks:
    """Run a model on texts of one length and keep only where its sinks are: alpha above ``eps``."""

    def reduce(attention: Tensor) -> tuple[Tensor, float]:
        return (importance(attention) > eps).cpu(), float(attention.float().sum(-1).mean())

    first, hits, sums = [], [], []
    with torch.no_grad(), lm.use() as model:
        sites = {attention_out(layer): reduce for layer in attention_layers(model)}
        with attention_maps(model, sites) as maps:
            for start in range(0, len(ids), BATCH):
                model(torch.tensor(ids[start : start + BATCH], device=lm.device), use_cache=False)
                found = torch.stack([maps[site][0] for site in sites], 1)  # [b, L, H, T]
                first.append(found[..., 0])
                hits.append(found.float().mean(2).sum(0))
                sums += [maps[site][1] for site in sites]
    rates = torch.stack(hits).sum(0) / len(ids)
    return Sinks(torch.cat(first).numpy(), rates.numpy(), float(np.mean(sums)))


def same_texts(comparison: Records, length: int, most: int) -> tuple[dict[str, list[list[int]]], int]:
    """The run's prompts with the tuned model's answers as ids of each arm, ``length`` tokens each.

    Returns:
        {"base": ids, "tuned": ids} of the same texts in the same order, and the number of texts too short for it.
    """
    items = comparison.table("items", columns=["item", "kind", "prompt"]).set_index("item")
    texts = items["prompt"].to_dict()
    if comparison.has("outputs"):
        outputs = comparison.table("outputs", columns=["item", "arm", "text"])
        answered = outputs[(outputs["arm"] == "b") & outputs["item"].isin(items.index[items["kind"] != "text"])]
        for row in answered.drop_duplicates("item").itertuples():
            texts[row.item] += row.text or ""
    found: dict[str, list[list[int]]] = {"base": [], "tuned": []}
    rejected = 0
    for text in texts.values():
        if len(found["base"]) == most:
            break
        encoded = {arm: _encode(getattr(comparison, arm).tokenizer, text)[:length] for arm in found}
        if min(map(len, encoded.values())) < length:
            rejected += 1
            continue
        for arm, ids in encoded.items():
            found[arm].append(ids)
    return found, rejected


def _encode(tokenizer: Any, text: str) -> list[int]:
    bos = getattr(tokenizer, "bos_token", None)
    return list(tokenizer(text, add_special_tokens=not (bos and text.startswith(bos)))["input_ids"])


def sink_rows(arms: Mapping[str, Sinks]) -> tuple[dict[str, Any], ...]:
    """One row per layer: each arm's rate at the first token, and the key that most heads have for a sink, from 1."""
    rows = []
    for layer in range(max(len(s.rates) for s in arms.values())):
        row: dict[str, Any] = {"layer": layer}
        for arm, s in arms.items():
            known = layer < len(s.rates)
            row[arm] = float(s.rates[layer, 0]) if known else None
            row[f"{arm}_strongest_key"] = int(s.rates[layer].argmax()) + 1 if known else None
            row[f"{arm}_strongest_rate"] = float(s.rates[layer].max()) if known else None
        rows.append(row)
    return tuple(rows)


def sink_figure(arms: Mapping[str, Sinks]) -> dict[str, Any]:
    """A heat map [L, H] per arm, side by side on one colour scale."""
    data: list[dict[str, Any]] = []
    layout: dict[str, Any] = {"paper_bgcolor": "rgba(0,0,0,0)", "plot_bgcolor": "rgba(0,0,0,0)"}
    for i, (arm, s) in enumerate(arms.items()):
        rates, axis = s.first.mean(0), str(i + 1) if i else ""
        hover = f"{arm}, layer %{{y}}, head %{{x}}: %{{z:.1%}}<extra></extra>"
        trace = {"type": "heatmap", "name": arm, "z": rates.tolist(), "hovertemplate": hover}
        data.append(trace | {"xaxis": f"x{axis}", "yaxis": f"y{axis}", "coloraxis": "coloraxis"})
        domain = [i / len(arms), (i + 0.92) / len(arms)]
        layout |= {f"xaxis{axis}": {"title": {"text": f"head, {arm}"}, "domain": domain, "anchor": f"y{axis}"}}
        layout |= {f"yaxis{axis}": {"title": {"text": "" if i else "layer"}, "anchor": f"x{axis}"}}
    return {"data": data, "layout": layout | {"coloraxis": {"cmin": 0, "cmax": 1, "colorscale": "Blues"}}}
