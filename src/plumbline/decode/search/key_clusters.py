"""Where right answers stand in the next-token ranking: among the likeliest tokens' own key clusters, or elsewhere."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from plumbline.core.errors import refuse
from plumbline.decode.search.navigation import asked, complete
from plumbline.models.prompts import encode


@dataclass(frozen=True)
class Group:
    """Ranked tokens of one group: how many, the share of right answers, their mean rank (from 1); None where empty."""

    count: int
    accuracy: float | None
    mean_rank: float | None


@dataclass(frozen=True)
class KeyClusters:
    """What ``key_cluster_report`` found.

    Attributes:
        main, other: the tokens after the first ``top`` that lie in the clusters of those first ones, and the rest.
        main_share: how many of them lie in the main clusters, in [0, 1].
        clusters: how many clusters the first ``top`` tokens lie in.
        top_accuracy: the share of right answers among the first ``top``.
        map_at: mean over i = 1..``top`` of the share of right answers among the first i.
        right: for every rank whether its answer is right [ranks].
        labels: the cluster of every token [V]; pass it on to spare the next call the clustering.
    """

    main: Group
    other: Group
    main_share: float
    clusters: int
    top_accuracy: float
    map_at: float
    right: np.ndarray
    labels: np.ndarray


def cluster_keys(keys: Tensor, clusters: int | None = None, *, cosine: bool = False, seed: int = 0) -> np.ndarray:
    """k-means on the rows of a head.

    Args:
        keys: [V, D]. clusters: default min(1024, V // 8), at least 1. cosine: scale rows to length 1 first.

    Returns:
        The cluster of every token [V]. Above 10,000 tokens k-means goes by mini-batches.
    """
    from sklearn.cluster import KMeans, MiniBatchKMeans

    rows = keys.detach().float().cpu()
    rows = torch.nn.functional.normalize(rows) if cosine else rows
    wanted = max(1, min(1024, len(rows) // 8)) if clusters is None else clusters
    if not 1 <= wanted <= len(rows):
        raise refuse("cluster_keys", "clusters", f"from 1 to the vocabulary's {len(rows)}", clusters, "ask for fewer")
    kmeans = KMeans if len(rows) <= 10_000 else MiniBatchKMeans
    labels: np.ndarray = kmeans(wanted, n_init=1, random_state=seed).fit_predict(rows.numpy())
    return labels


def key_cluster_report(
    lm: Any,
    prompt: str,
    is_correct: Callable[[str], bool],
    *,
    top: int = 10,
    ranks: int = 100,
    clusters: int | None = None,
    cosine: bool = False,
    labels: np.ndarray | None = None,
    terminator: str = '"',
    max_new_tokens: int = 64,
    seed: int = 0,
) -> KeyClusters:
    r"""Compare next tokens whose keys lie near those of the likeliest ones with those whose keys do not.

    .. math:: M = \{ c(x) : rank(x) \le top \}, \qquad main = \{ x : top < rank(x) \le ranks,\; c(x) \in M \}

    with c the k-means cluster of a token's row in the head [V, D]. Where keys mislead, tokens in the main clusters
    rank higher and are right less often than the others. (Peng et al., 2024.)

    Args:
        lm: an ``LM`` whose head has a weight. prompt: the text up to where an answer begins.
        is_correct: of an answer's text (a token completed greedily up to ``terminator``).
        labels: clusters [V] from an earlier report; None: cluster the head's rows, see ``cluster_keys``.

    Raises:
        InputError: ``ranks`` is not more than ``top`` or exceeds the vocabulary, or ``labels`` is of another head.
    """
    head = lm.model.get_output_embeddings().weight
    if not 1 <= top < ranks <= len(head):
        raise refuse("key_cluster_report", "ranks", f"more than top={top}, at most {len(head)}", ranks, "see both")
    labels = cluster_keys(head, clusters, cosine=cosine, seed=seed) if labels is None else np.asarray(labels)
    if labels.shape != (len(head),):
        raise refuse("key_cluster_report", "labels", f"one cluster for each of {len(head)} tokens", labels.shape,
                     "cluster this model's head")  # fmt: skip
    ids, ask = encode(prompt, lm.tokenizer, special=True), asked(lm)
    ranked = ask(torch.tensor([ids]))[0].topk(ranks).indices.tolist()
    answers = complete(ask, lm.tokenizer, ids, ranked, terminator, max_new_tokens)
    right = np.asarray([bool(is_correct(answer)) for answer in answers])
    main_clusters = set(labels[ranked[:top]].tolist())
    inside = np.asarray([int(labels[token]) in main_clusters for token in ranked[top:]])
    place = np.arange(top + 1, ranks + 1)
    precision = right[:top].cumsum() / np.arange(1, top + 1)
    return KeyClusters(
        main=_group(right[top:][inside], place[inside]), other=_group(right[top:][~inside], place[~inside]),
        main_share=float(inside.mean()), clusters=len(main_clusters), top_accuracy=float(right[:top].mean()),
        map_at=float(precision.mean()), right=right, labels=labels,
    )  # fmt: skip


def _group(right: np.ndarray, place: np.ndarray) -> Group:
    if not len(right):
        return Group(0, None, None)
    return Group(len(right), float(right.mean()), float(place.mean()))
