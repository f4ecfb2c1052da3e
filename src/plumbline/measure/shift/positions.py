"""What the token probes sum per position: base ranks by bucket of position, by token and by kind of token."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from plumbline.kernels.records import Records
from plumbline.kernels.stats import wilson
from plumbline.measure.text import context
from plumbline.measure.totals import ItemSums

Floats = NDArray[np.float64]
BUCKETS = ("0", "1", "2", "3", "4", "5-9", "10-19", "20-49", "50-99", "100+")
STARTS = np.array([1, 2, 3, 4, 5, 10, 20, 50, 100])
FIRST = 5  # the positions that a template unknown to the base inflates
COLUMNS = [
    "item", "source", "pos_in_response", "token_id", "logp_a", "rank_a", "kl_ba", "argmax_b", "rank_a_of_argmax_b",
]  # fmt: skip

_STYLE = frozenset(
    """hello hi hey greetings welcome thanks thank sorry apologize apologise please sure certainly absolutely course
    of okay ok great glad happy here however therefore additionally furthermore moreover overall finally firstly
    secondly remember note important importantly first second third next then also but instead while although as an ai
    language model assistant i i'm cannot can't unable may might could perhaps possibly generally typically usually
    often summary conclusion let let's feel free hope helps any further questions - * • # ## ### ** : 1 2 3 4 5
    1. 2. 3."""
    .split()
)  # fmt: skip


def bucket(positions: Any) -> NDArray[np.int64]:
    """Index into ``BUCKETS`` of each position in a response, [n] -> [n]."""
    return np.searchsorted(STARTS, np.asarray(positions), side="right")


def is_stylistic(token: str) -> bool:
    """Greetings, discourse markers, hedges, disclaimers and list marks, on the stripped lower-cased token."""
    return token.strip().lower() in _STYLE or (not token.strip() and "\n" in token)


def category(rank: int, marginal: int = 3) -> str:
    """The name of a base rank: unshifted (1), marginal (2 to ``marginal``) or shifted."""
    return "unshifted" if rank == 1 else "marginal" if rank <= marginal else "shifted"


@dataclass
class Gathered:
    """One pass over the response positions."""

    sums: ItemSums = field(default_factory=ItemSums)
    buckets: ItemSums = field(default_factory=ItemSums)
    tokens: Floats = field(default_factory=lambda: np.zeros((0, 3)))  # [V, (n, shifted, unshifted)]
    infinite: int = 0

    def count(self, ids: NDArray[np.int64], shifted: NDArray[np.bool_], unshifted: NDArray[np.bool_]) -> None:
        size = max(len(self.tokens), int(ids.max()) + 1)
        self.tokens = np.pad(self.tokens, ((0, size - len(self.tokens)), (0, 0)))
        for column, weights in enumerate((None, shifted.astype(float), unshifted.astype(float))):
            self.tokens[:, column] += np.bincount(ids, weights=weights, minlength=size)


def sources_of(comparison: Records) -> tuple[str, ...]:
    """TUNED's own responses, or the completions that the user gave where there are none."""
    frames = comparison.batches("tokens", columns=["source"])
    own = any((frame["source"].astype(str) == "response").any() for frame in frames)
    return ("response",) if own else ("completion",)


def ends_of(comparison: Records) -> dict[int, int]:
    """Position of the end token in the tuned model's response, by item, where it ended by itself."""
    if not comparison.has("outputs"):
        return {}
    frame = comparison.table("outputs", columns=["item", "arm", "finish", "n_tokens"])
    frame = frame[(frame["arm"].astype(str) == "b") & (frame["finish"].astype(str) == "eos")]
    return dict(zip(frame["item"].tolist(), (frame["n_tokens"] - 1).tolist(), strict=True))


def gather(
    comparison: Records, *, sources: tuple[str, ...], marginal: int, stylistic: Callable[[str], bool]
) -> Gathered:
    """Sums per item of everything that :func:`token_shift` reports, in one streaming pass over ``tokens``."""
    found, ends, style = Gathered(), ends_of(comparison), {}
    last = np.full(max(ends, default=-1) + 1, -1)
    last[list(ends)] = list(ends.values())
    for frame in comparison.batches("tokens", columns=COLUMNS):
        source = frame["source"].astype(str)
        frame, source = frame[source.isin(sources).to_numpy()], source[source.isin(sources)]
        if not len(frame):
            continue
        item, rank, at = (frame[c].to_numpy() for c in ("item", "rank_a", "pos_in_response"))
        ids, kl = frame["token_id"].to_numpy(np.int64), frame["kl_ba"].to_numpy(np.float64)
        unshifted, shifted = rank == 1, rank > marginal
        found.count(ids, shifted, unshifted)
        for token in np.unique(ids[shifted]).tolist():
            if token not in style:
                style[token] = stylistic(comparison.token(token))
        styled = np.isin(ids, [t for t, yes in style.items() if yes])
        ended = (source == "response").to_numpy() & (
            np.pad(last, (0, max(0, item.max() + 1 - len(last))), constant_values=-1)[item] == at
        )
        finite = np.isfinite(kl)
        found.infinite += int((~finite).sum())
        kl = np.where(finite, kl, 0.0)
        values: dict[str, Any] = {
            "unshifted": unshifted, "marginal": ~unshifted & ~shifted, "shifted": shifted, "within_5": rank <= 5,
            "first": at < FIRST, "first_shifted": (at < FIRST) & shifted, "later": at >= FIRST,
            "later_shifted": (at >= FIRST) & shifted, "end": ended, "end_shifted": ended & shifted,
            "styled_shifted": styled & shifted, "kl": kl, "kl_n": finite,
            "off": ids != frame["argmax_b"].to_numpy(),
            "best_shifted": frame["rank_a_of_argmax_b"].to_numpy() > marginal,
        }  # fmt: skip
        found.sums.add(item, **values)
        where, p = bucket(at), np.exp(frame["logp_a"].to_numpy(np.float64))
        for b in np.unique(where).tolist():
            in_b = where == b
            found.buckets.add(
                item[in_b], **{f"n_{b}": in_b[in_b], f"kl_{b}": kl[in_b], f"kl_n_{b}": finite[in_b], f"p_{b}": p[in_b],
                f"shifted_{b}": shifted[in_b], f"marginal_{b}": (~unshifted & ~shifted)[in_b]}
            )  # fmt: skip
    return found


def most_shifted(
    comparison: Records, tokens: Floats, *, minimum: int = 10, prior: float = 500.0, top: int = 30
) -> list[dict[str, Any]]:
    r"""Tokens over-represented among shifted positions: log-odds with an informative Dirichlet prior.

    .. math:: \delta_w = \ln\frac{y^s_w + a_w}{n_s + a_0 - y^s_w - a_w}
              - \ln\frac{y^u_w + a_w}{n_u + a_0 - y^u_w - a_w},
    .. math:: z_w = \delta_w \Big/ \sqrt{\tfrac{1}{y^s_w + a_w} + \tfrac{1}{y^u_w + a_w}}

    Args:
        comparison: for the tokens' texts.
        tokens: [V, 3] counts of each token: all, shifted, unshifted.
        minimum: tokens counted less often are left out.
        prior: a_0; a_w = a_0 times the token's overall frequency (Monroe et al., 2008).
        top: rows returned, by z; only tokens with z > 0.
    """
    n, shifted, unshifted = tokens.T
    if not n.sum() or not shifted.sum():
        return []
    a = np.maximum(prior * n / n.sum(), 1e-12)
    odds = [np.log((y + a) / (y.sum() + prior - y - a)) for y in (shifted, unshifted)]
    delta = odds[0] - odds[1]
    z = delta / np.sqrt(1 / (shifted + a) + 1 / (unshifted + a))
    kept = np.flatnonzero((n >= minimum) & (z > 0))
    kept = kept[np.argsort(-z[kept], kind="stable")][:top]
    low, high = wilson(shifted[kept], n[kept])
    return [
        {
            "token": comparison.token(t), "token_id": int(t), "times": int(n[t]), "shifted": int(shifted[t]),
            "rate": float(shifted[t] / n[t]), "rate_low": float(lo), "rate_high": float(hi),
            "log_odds": float(delta[t]), "z": float(z[t]),
        }
        for t, lo, hi in zip(kept, np.atleast_1d(low), np.atleast_1d(high), strict=True)
    ]  # fmt: skip


def contexts(
    comparison: Records, wanted: Mapping[int, None], *, sources: tuple[str, ...], marginal: int, each: int = 2
) -> dict[int, str]:
    """Where some tokens stand shifted, by token: the first ``each`` places, read until all are found."""
    found: dict[int, list[str]] = {t: [] for t in wanted}
    for frame in comparison.batches("tokens", columns=["item", "source", "token_id", "rank_a"]):
        open_ = [t for t, places in found.items() if len(places) < each]
        if not open_:
            break
        ids, item = frame["token_id"].to_numpy(), frame["item"].to_numpy()
        hit = np.isin(ids, open_) & (frame["rank_a"].to_numpy() > marginal)
        for at in np.flatnonzero(hit & frame["source"].astype(str).isin(sources).to_numpy()):
            places = found[int(ids[at])]
            if len(places) < each:
                low, high = max(0, at - 8), min(len(ids), at + 4)
                same = np.flatnonzero(item[low:high] == item[at]) + low
                places.append(context(comparison, ids[same].tolist(), int(np.searchsorted(same, at))))
    return {t: "  |  ".join(places) for t, places in found.items()}
