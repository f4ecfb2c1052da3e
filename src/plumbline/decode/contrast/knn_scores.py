"""What a model, its datastore and their mixture make of texts, token by token: the records of the kNN-LM study."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from plumbline.decode.contrast.datastore import Datastore
from plumbline.kernels.batching import by_length, pad
from plumbline.kernels.cached_lm import CachedLM
from plumbline.kernels.hooks import capture
from plumbline.kernels.vocab import entropy, log_probs

QUERIES = 1024  # that are searched at once


def token_scores(
    model: Any, texts: Sequence[Tensor], store: Datastore, *, lam: float, documents: Sequence[int] | None = None,
    token_budget: int = 4096, **how: Any,
) -> pd.DataFrame:  # fmt: skip
    """A row for each token but the first of each text.

    Args:
        model: a transformers causal LM, an ``LM`` or a ``CachedLM``; the store's. texts: n rows of ids, any lengths.
        lam: weight of the retrieved distribution. how: ``k``, ``temperature`` and ``probe`` of ``Datastore.retrieve``.
        documents: the store's document that each text is, from which nothing is retrieved; -1 for none.

    Returns:
        A table with text, position, token; lm, knn, mixed (log-probabilities, nats); entropy_lm, entropy_knn (nats).
    """
    lm = model if isinstance(model, CachedLM) else CachedLM(model)
    own = torch.full((len(texts),), -1) if documents is None else torch.as_tensor(documents)
    parts = []
    for batch in by_length([len(text) for text in texts], token_budget):
        ids, mask = pad([texts[i] for i in batch], 0)
        with capture(lm.model, [store.site]) as found:
            lm.reset()  # a prefix shared with the batch before would not be fed, nor its queries seen
            logits = lm.many(ids, ids.shape[1], mask).cpu()
        queries = found[store.site].reshape(*ids.shape, -1).detach()
        row, at = (mask[:, 1:] & mask[:, :-1]).nonzero(as_tuple=True)
        which = torch.tensor(batch)[row]
        told = {"text": which, "position": at + 1 - (~mask).sum(1)[row], "token": ids[row, at + 1]}
        for some in torch.arange(len(row)).split(QUERIES):
            r, t = row[some], at[some]
            apart = None if documents is None else own[which[some]]
            scored = _scored(logits[r, t], queries[r, t], ids[r, t + 1], store, lam, apart, how)
            parts.append(
                pd.DataFrame({k: v.numpy() for k, v in ({n: c[some] for n, c in told.items()} | scored).items()})
            )
    lm.reset()
    return pd.concat(parts, ignore_index=True).sort_values(["text", "position"], ignore_index=True)


def _scored(
    logits: Tensor, queries: Tensor, labels: Tensor, store: Datastore, lam: float, apart: Tensor | None,
    how: dict[str, Any],
) -> dict[str, Tensor]:  # fmt: skip
    own = log_probs(logits)
    found = store.retrieve(queries, exclude=apart, **how).cpu()
    lm, knn = (x.gather(1, labels[:, None])[:, 0].double() for x in (own, found))
    keep, weight = (math.log(x) if x > 0 else -math.inf for x in (1 - lam, lam))
    entropies = {"entropy_lm": entropy(own), "entropy_knn": entropy(found)}
    return {"lm": lm, "knn": knn, "mixed": torch.logaddexp(keep + lm, weight + knn)} | entropies


def by_frequency(scores: pd.DataFrame, counts: Any, bins: int) -> pd.DataFrame:
    """Who wins, by how often the token stands in the datastore; bins of about equal numbers of tokens, then all.

    Columns: least, most (occurrences), tokens, improved (share), gained, lost (nats in all, both >= 0).
    """
    seen = counts[scores["token"].to_numpy()]
    edges = np.unique(np.quantile(seen, np.linspace(0, 1, bins + 1), method="lower"))
    which = np.searchsorted(edges[1:-1], seen, side="right") if len(edges) > 2 else np.zeros(len(seen), int)
    rows = []
    for inside in [*(which == b for b in np.unique(which)), np.ones(len(seen), bool)]:
        gain = (scores["mixed"] - scores["lm"]).to_numpy()[inside]
        row = {"least": seen[inside].min(), "most": seen[inside].max(), "tokens": len(gain)}
        row |= {"improved": (gain > 0).mean(), "gained": gain.clip(0).sum(), "lost": -gain.clip(max=0).sum()}
        rows.append(row)
    return pd.DataFrame(rows)


def by_position(scores: pd.DataFrame) -> pd.DataFrame:
    """Mean entropies at each position: columns position, entropy_lm, entropy_knn."""
    return scores.groupby("position", as_index=False)[["entropy_lm", "entropy_knn"]].mean()


def slopes(curves: pd.DataFrame) -> dict[str, float]:
    """Nats a token by which each entropy rises, by least squares over positions."""
    x = curves["position"].to_numpy(float)
    return {name: float(np.polyfit(x, curves[name].to_numpy(), 1)[0]) for name in ("entropy_lm", "entropy_knn")}


def diversity(ids: Tensor, orders: Sequence[int] = (2, 3, 4)) -> dict[str, float]:
    r"""Mean share of distinct n-grams of rows [N, L], and their product :math:`\prod_n (1 - \text{rep-}n)`."""
    shares = {}
    for n in orders:
        grams = [[tuple(g) for g in row.unfold(0, n, 1).tolist()] for row in ids.cpu()]
        shares[f"distinct_{n}"] = float(np.mean([len(set(g)) / len(g) for g in grams]))
    return shares | {"diversity": math.prod(shares.values())}
