"""Table language models with exact probabilities, and records of comparing two of them, by slow float64 formulas."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from plumbline.core.errors import refuse
from plumbline.kernels.records import Records
from plumbline.kernels.seeds import rng

if TYPE_CHECKING:
    import pandas as pd

Floats = NDArray[np.float64]


def log_normalised(logits: ArrayLike) -> Floats:
    """Log-probabilities over the last axis, in float64; -inf forbids."""
    z = np.asarray(logits, np.float64)
    top = z.max(-1, keepdims=True)
    return z - top - np.log(np.exp(z - top).sum(-1, keepdims=True))


class TableLM:
    r"""A first-order table: :math:`p(y_t \mid y_{<t}) = softmax(z_{y_{t-1}})`, logits z [V,V] in float64."""

    def __init__(self, logits: ArrayLike) -> None:
        z = np.asarray(logits, np.float64)
        if z.ndim != 2 or z.shape[0] != z.shape[1]:
            raise refuse("TableLM", "logits", "a square table [V, V]", z.shape, "pass one row per last token")
        self.logps = log_normalised(z)
        self.vocab_size = len(z)

    @classmethod
    def random(cls, vocab: int, *, scale: float = 2.0, seed: int = 0) -> TableLM:
        """Normal logits of standard deviation ``scale``."""
        return cls(scale * rng(seed, "TableLM", vocab).standard_normal((vocab, vocab)))

    def at_temperature(self, temperature: float) -> TableLM:
        return TableLM(self.logps / temperature)

    def along(self, ids: ArrayLike) -> Floats:
        """Log-probabilities of every next token, [G, L] -> [G, L-1, V]."""
        return self.logps[np.asarray(ids)[:, :-1]]

    def sample(self, starts: ArrayLike, length: int, *, seed: int = 0) -> NDArray[np.int64]:
        """``length`` tokens after each start [G] -> [G, 1 + length]."""
        stream, cumulative = rng(seed, "TableLM.sample"), np.exp(self.logps).cumsum(1)
        ids = [np.asarray(starts, np.int64)]
        for _ in range(length):
            u = stream.random(len(ids[0]))[:, None]
            ids.append(np.minimum((cumulative[ids[-1]] < u).sum(1), self.vocab_size - 1))
        return np.stack(ids, 1)

    def greedy(self, starts: ArrayLike, length: int) -> NDArray[np.int64]:
        """The likeliest next token, ``length`` times, after each start [G] -> [G, 1 + length]."""
        ids = [np.asarray(starts, np.int64)]
        for _ in range(length):
            ids.append(self.logps[ids[-1]].argmax(1))
        return np.stack(ids, 1)

    def stationary(self) -> Floats:
        """The distribution [V] that one step leaves as it is."""
        moved = np.vstack([np.exp(self.logps).T - np.eye(self.vocab_size), np.ones(self.vocab_size)])
        return np.linalg.lstsq(moved, np.append(np.zeros(self.vocab_size), 1.0), rcond=None)[0]

    def entropies(self) -> Floats:
        """Entropy of every row [V] in nats."""
        return -(np.exp(self.logps) * np.where(np.isfinite(self.logps), self.logps, 0)).sum(1)

    def entropy_rate(self) -> float:
        """Entropy per token of the stationary chain, in nats."""
        return float(self.stationary() @ self.entropies())


def _kl(la: Floats, lb: Floats) -> Floats:
    p = np.exp(la)
    with np.errstate(invalid="ignore"):
        return np.where(p > 0, p * (la - lb), 0.0).sum(-1)


def token_columns(la: Floats, lb: Floats, labels: ArrayLike) -> dict[str, Any]:
    """Every TokenComparison column of N positions from log-probabilities [N, V] and labels [N], by definition."""
    y, row = np.asarray(labels, np.int64), np.arange(len(la))
    lm = np.logaddexp(la, lb) - np.log(2)
    found: dict[str, Any] = {"token_id": y, "kl_ab": _kl(la, lb), "kl_ba": _kl(lb, la)}
    found |= {"js": (_kl(la, lm) + _kl(lb, lm)) / 2, "tv": np.abs(np.exp(la) - np.exp(lb)).sum(-1) / 2}
    order = {}
    for arm, own, other in (("a", la, lb), ("b", lb, la)):
        at, best = own[row, y], own.argmax(-1)
        order[arm] = np.argsort(-own, axis=-1, kind="stable")
        top = order[arm][:, :5]
        found |= {
            f"logp_{arm}": at,
            f"rank_{arm}": 1 + (own > at[:, None]).sum(-1),
            f"ties_{arm}": (own == at[:, None]).sum(-1) - 1,
            f"ent_{arm}": -_kl(own, np.zeros_like(own)),
            f"argmax_{arm}": best,
            f"top1_p_{arm}": np.exp(own.max(-1)),
            f"rank_{'b' if arm == 'a' else 'a'}_of_argmax_{arm}": 1 + (other > other[row, best][:, None]).sum(-1),
            f"top_ids_{arm}": list(top),
            f"top_logps_{arm}": list(np.take_along_axis(own, top, 1)),
            f"outside_{arm}": np.zeros(len(y)),
        }
    for k in (5, 10):
        pairs = zip(order["a"][:, :k], order["b"][:, :k], strict=True)
        found[f"overlap_{k}"] = np.array([len(set(a) & set(b)) for a, b in pairs])
    return found


def token_table(ids: ArrayLike, logps_a: Floats, logps_b: Floats, *, source: str = "response") -> pd.DataFrame:
    """The ``tokens`` table of G sequences [G, 1 + T] whose first token is the prompt; log-probabilities [G, T, V]."""
    import pandas as pd

    y = np.asarray(ids)
    g, length = y.shape[0], y.shape[1] - 1
    flat = [np.asarray(table, np.float64).reshape(g * length, -1) for table in (logps_a, logps_b)]
    at = np.tile(np.arange(length), g)
    where = {"item": np.repeat(np.arange(g), length), "source": source, "pos": at + 1, "pos_in_response": at}
    return pd.DataFrame({**where, "byte_start": at, "byte_end": at + 1, **token_columns(*flat, y[:, 1:].ravel())})


def item_table(n: int, *, kind: str = "prompt", tags: Sequence[Sequence[str]] = (), answer: str = "") -> pd.DataFrame:
    """An ``items`` table of ``n`` rows."""
    import pandas as pd

    rows = [
        {
            "item": i, "id": f"p{i}", "kind": kind, "prompt": f"prompt {i}", "tags": list(tags[i]) if tags else [],
            "answer": answer or None, "choices": None, "n_prompt_tokens": 1, "truncated": False,
        }
        for i in range(n)
    ]  # fmt: skip
    return pd.DataFrame(rows)


def vocab_table(size: int) -> pd.DataFrame:
    """A ``vocab`` table: token 3 reads " t3"."""
    import pandas as pd

    return pd.DataFrame({"id": np.arange(size), "text": [f" t{i}" for i in range(size)]})


def pair_records(
    folder: str | Path, a: TableLM, b: TableLM, ids: ArrayLike, *, source: str = "response", **tables: Any
) -> Records:
    """Records of two tables over the same sequences [G, 1 + T]; further tables are written as they are."""
    y = np.asarray(ids)
    tokens = token_table(y, a.along(y), b.along(y), source=source)
    known = {"items": item_table(len(y)), "vocab": vocab_table(a.vocab_size), "tokens": tokens}
    return Records.of(folder, {"base": "A", "tuned": "B"}, **{**known, **tables})


def sample_table(
    model: TableLM, arm: str, starts: Iterable[int], *, samples: int, length: int, seed: int = 0
) -> pd.DataFrame:
    """The ``samples`` table of one arm: ``samples`` continuations of ``length`` tokens per start, exact entropies."""
    import pandas as pd

    first = np.repeat(np.asarray(list(starts), np.int64), samples)
    ids, entropy = model.sample(first, length, seed=seed), model.entropies()
    logp = np.take_along_axis(model.along(ids), ids[:, 1:, None], 2)[..., 0]
    rows = [
        {
            "item": i // samples, "arm": arm, "sample": i % samples, "ids": y[1:].tolist(),
            "ent": entropy[y[:-1]].tolist(), "logp": p.tolist(), "finish": "length",
        }
        for i, (y, p) in enumerate(zip(ids, logp, strict=True))
    ]  # fmt: skip
    return pd.DataFrame(rows)


def output_table(arms: dict[str, dict[str, Sequence[Any]]]) -> pd.DataFrame:
    """The ``outputs`` table from columns per arm: any of text, ids, finish, answer, correct, confidence."""
    import pandas as pd

    frames = []
    for arm, given in arms.items():
        n = len(next(iter(given.values())))
        text = list(given.get("text", [""] * n))
        ids = [list(map(int, i)) for i in given.get("ids", [[ord(c) for c in t] for t in text])]
        frames.append(
            pd.DataFrame({
                "item": np.arange(n), "arm": arm, "text": text, "ids": ids, "n_tokens": [len(i) for i in ids],
                "finish": given.get("finish", ["eos"] * n), "answer": given.get("answer", [None] * n),
                "correct": pd.array(given.get("correct", [None] * n), dtype="boolean"),
                "confidence": pd.array(given.get("confidence", [None] * n), dtype="Float64"),
                "choice_logps": [None] * n,
            })
        )  # fmt: skip
    return pd.concat(frames, ignore_index=True)
