"""The scoring pass: both models over shared, length-sorted batches, one vocabulary-wide comparison per position."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from plumbline.core.errors import refuse
from plumbline.kernels import vocab
from plumbline.kernels.batching import by_length, halving, pad
from plumbline.kernels.head import Head, head_of, hidden_states
from plumbline.kernels.logps import label_logps
from plumbline.models import LM

Columns = dict[str, np.ndarray]
CHUNK_BYTES = 64 << 20  # of one model's logits: larger chunks leave the last-level cache and cost time, not only memory


@dataclass(frozen=True)
class Arm:
    """One model ready to score: its head apart from its backbone, ``limit`` ids shared with the other arm."""

    lm: LM
    head: Head
    limit: int | None = None

    @classmethod
    def of(cls, lm: LM, limit: int | None = None) -> Arm:
        with lm.use() as model:
            return cls(lm, head_of(model), limit)

    @property
    def rows(self) -> int:
        """How many positions fit one chunk."""
        return max(1, CHUNK_BYTES // (4 * self.head.vocab_size))

    @torch.inference_mode()
    def states(self, ids: Tensor) -> Tensor:
        """What the head reads, [B,L,D]. Rows are padded on the right, which a causal model never sees: no mask."""
        with self.lm.use() as model:
            return hidden_states(model, ids)

    @torch.inference_mode()
    def logits(self, states: Tensor) -> Tensor:
        """[N,D] -> [N,V] float32."""
        with self.lm.use():
            return self.head(states)


def batches(rows: Sequence[Sequence[int]], starts: Sequence[int], budget: int) -> list[list[int]]:
    """Indices of ``rows`` grouped by length; rows with nothing to score are left out."""
    some = [i for i, row in enumerate(rows) if len(row) > max(1, starts[i])]
    return [[some[k] for k in group] for group in by_length([len(rows[i]) for i in some], budget)]


def pack(
    rows: Sequence[Sequence[int]], starts: Sequence[int], group: Sequence[int], device: Any
) -> tuple[Tensor, Tensor]:
    """Ids [B,L] padded on the right, and which of the L-1 predictions are scored."""
    ids, mask = pad([rows[i] for i in group], pad_id=rows[group[0]][-1], side="right", device=device)
    first = torch.tensor([[max(1, starts[i])] for i in group], device=device)
    return ids, mask[:, 1:] & (torch.arange(1, ids.shape[1], device=device) >= first)


def _where(kept: Tensor, group: Sequence[int]) -> Columns:
    row, at = kept.nonzero(as_tuple=True)
    return {"row": np.asarray(group, np.int32)[row.cpu().numpy()], "pos": (at.cpu().numpy() + 1).astype(np.int32)}


def _stack(parts: Sequence[dict[str, Tensor]]) -> Columns:
    return {name: torch.cat([p[name] for p in parts]).cpu().numpy() for name in parts[0]}


def pair(a: Arm, b: Arm, rows: Sequence[Sequence[int]], starts: Sequence[int], budget: int) -> Iterator[Columns]:
    """Every TokenComparison column of every scored position, one dict per batch, ``row`` and ``pos`` saying where.

    Position t of a row is the prediction of its t-th id from those before it; rows are scored from ``starts`` on.
    At no time is there more than one chunk of ``[positions, V]`` per model.
    """

    def run(group: list[int]) -> Columns:
        ids, kept = pack(rows, starts, group, a.lm.device)
        labels = ids[:, 1:][kept]
        states_a = a.states(ids)[:, :-1][kept]
        states_b = b.states(ids.to(b.lm.device))[:, :-1][kept.to(b.lm.device)]
        step = min(a.rows, b.rows)
        parts = [
            compare(a.logits(states_a[i : i + step]), b.logits(states_b[i : i + step]), labels[i : i + step], a.limit)
            for i in range(0, len(labels), step)
        ]
        return {**_where(kept, group), "token_id": labels.cpu().numpy().astype(np.int32), **_stack(parts)}

    for group in batches(rows, starts, budget):
        yield from (columns for _, columns in halving(run, group))


@torch.inference_mode()
def compare(za: Tensor, zb: Tensor, labels: Tensor, limit: int | None) -> dict[str, Tensor]:
    """``vocab.compare`` on the ids that both models have; mass elsewhere goes to ``outside_a``, ``outside_b``."""
    zb = zb.to(za.device)
    cut = [(arm, z if limit is None else z[:, :limit]) for arm, z in (("a", za), ("b", zb))]
    columns = vocab.compare(cut[0][1], cut[1][1], labels if limit is None else labels.clamp(max=limit - 1))
    faulty = columns["ent_a"].isnan()  # either model's: compare leaves no number of such a row
    for arm, z in cut:
        columns[f"broken_{arm}"] = faulty.clone()
        columns[f"broken_{arm}"][faulty] = ~(z[faulty] < torch.inf).all(-1)
        columns[f"outside_{arm}"] = torch.zeros(len(labels), device=z.device)
    if limit is None:
        return columns
    for arm, z in (("a", za), ("b", zb)):
        loss = z[:, :limit].logsumexp(-1) - z.logsumexp(-1)  # log of the mass on shared ids
        columns[f"outside_{arm}"] = -torch.expm1(loss)
        # log-probabilities stay as the model gives them; divergences are between the renormalised shared parts
        columns[f"logp_{arm}"] = torch.where(labels < limit, columns[f"logp_{arm}"] + loss, -torch.inf)
    return columns


def single(
    arm: Arm,
    rows: Sequence[Sequence[int]],
    starts: Sequence[int],
    budget: int,
    measure: Callable[[Tensor, Tensor], dict[str, Tensor]] | None = None,
) -> Iterator[Columns]:
    """One model's columns, ``measure(logits [N,V], labels [N])``; by default ``logp`` alone."""
    measure = measure or (lambda z, y: {"logp": label_logps(z, y)})

    @torch.inference_mode()
    def run(group: list[int]) -> Columns:
        ids, kept = pack(rows, starts, group, arm.lm.device)
        labels, states = ids[:, 1:][kept], arm.states(ids)[:, :-1][kept]
        spans = range(0, len(labels), arm.rows)
        parts = [measure(arm.logits(states[i : i + arm.rows]), labels[i : i + arm.rows]) for i in spans]
        return {**_where(kept, group), **_stack(parts)}

    for group in batches(rows, starts, budget):
        yield from (columns for _, columns in halving(run, group))


def by_row(found: Iterator[Columns], n: int, columns: Sequence[str]) -> list[dict[str, np.ndarray]]:
    """The columns regrouped per row, in order of position; empty arrays for rows with nothing scored."""
    out: list[dict[str, np.ndarray]] = [{c: np.empty(0, np.float32) for c in columns} for _ in range(n)]
    for part in found:
        for row in np.unique(part["row"]):
            at = part["row"] == row
            out[row] = {c: part[c][at] for c in columns}
    return out


def shared_ids(base: LM, tuned: LM) -> tuple[bool, int | None]:
    """Whether both models read the same ids, and how many leading ids they share (None: all of equally many).

    Tokenizers are the same when every id both know is the same string and no common id is given two meanings.
    """
    va, vb = base.tokenizer.get_vocab(), tuned.tokenizer.get_vocab()
    common = min(len(va), len(vb))
    agree = sum(vb.get(token) == id for token, id in va.items())
    probe = "The quick brown fox, 12345 naïve façades\n\n\tdef f(x): return x  # 日本語"
    same_text = base.tokenizer(probe, add_special_tokens=False).input_ids == tuned.tokenizer(
        probe, add_special_tokens=False
    ).input_ids  # fmt: skip
    if agree < common or not same_text:
        return False, None
    sizes = {int(lm.model.get_input_embeddings().weight.shape[0]) for lm in (base, tuned)}
    if len(sizes) == 1 and len(va) == len(vb):
        return True, None
    return True, min(*sizes, common) if len(va) != len(vb) else min(sizes)


def check_outside(mean: float) -> None:
    """Refuse a comparison in which the models put real mass on ids that only one of them has."""
    if mean > 1e-3:
        raise refuse(
            "diff", "the shared vocabulary", "all but 0.001 of both models' mass", f"{mean:.2%} outside it",
            "compare models whose tokenizers differ by byte spans, or pad the vocabularies alike",
        )  # fmt: skip
