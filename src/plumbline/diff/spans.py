"""Two models with different tokenizers, compared on the byte spans that both cut alike."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import torch

from plumbline.diff.score import Arm, Columns, by_row, single
from plumbline.kernels import vocab
from plumbline.kernels.align import byte_spans, first_byte_ids, next_byte, shared_spans
from plumbline.kernels.logps import label_logps


class SpanScorer:
    """Log-probabilities of shared spans, and next-byte divergences at their beginnings.

    Both models read their own tokens of the same text. A span is a whole number of tokens on both sides; its
    log-probability is that of one tokenisation, a lower bound. At its first byte both models' next-token
    distributions are summed to next-byte distributions [257] (the last bin holds special and end tokens).
    """

    def __init__(self, a: Arm, b: Arm) -> None:
        self.arms = {"a": a, "b": b}
        self.first = {
            n: first_byte_ids(x.lm.tokenizer, x.head.vocab_size).to(x.lm.device) for n, x in self.arms.items()
        }

    def table(self, before: dict[str, list[list[int]]], words: list[str], items: np.ndarray, budget: int) -> pa.Table:
        """One row per span. ``before[arm]`` holds each text's prompt ids; where it is empty a BOS or EOS stands in."""
        cut = {n: [byte_spans(x.lm.tokenizer, w, allow_normalised=True) for w in words] for n, x in self.arms.items()}
        steps: dict[str, list[Columns]] = {}
        for name, arm in self.arms.items():
            opening = _opening(arm)
            heads = [ids or opening for ids in before[name]]
            rows = [[*ids, *spans.ids] for ids, spans in zip(heads, cut[name], strict=True)]
            rows = [row[: arm.lm.context] for row in rows]
            found = single(arm, rows, [len(ids) for ids in heads], budget, self._measure(name))
            steps[name] = by_row(found, len(rows), ("logp", "next"))
        return _table(
            [
                self._text(steps["a"][i], steps["b"][i], cut["a"][i], cut["b"][i], words[i], int(items[i]))
                for i in range(len(words))
            ]
        )

    def _measure(self, name: str) -> Any:
        def measure(logits: torch.Tensor, labels: torch.Tensor) -> dict[str, torch.Tensor]:
            return {"logp": label_logps(logits, labels), "next": next_byte(logits.softmax(-1), self.first[name])}

        return measure

    def _text(self, a: Columns, b: Columns, cut_a: Any, cut_b: Any, words: str, item: int) -> dict[str, Any]:
        shared = shared_spans(cut_a, cut_b)
        data = words.encode("utf-8")
        # a text longer than one model's context is scored as far as both can read it
        n = int(((shared.to_a <= len(a["logp"])) & (shared.to_b <= len(b["logp"]))).sum())
        starts, ends = shared.starts[:n], shared.ends[:n]
        if n == 0:
            return {}
        byte = [
            torch.from_numpy(x["next"][at[:n]]).clamp(min=1e-30).log()
            for x, at in ((a, shared.from_a), (b, shared.from_b))
        ]
        return {
            "item": np.full(n, item, np.int32),
            "byte_start": starts.astype(np.int32), "byte_end": ends.astype(np.int32),
            "text": [data[s:e].decode("utf-8", "replace") for s, e in zip(starts, ends, strict=True)],
            "n_tok_a": (shared.to_a - shared.from_a)[:n].astype(np.int32),
            "n_tok_b": (shared.to_b - shared.from_b)[:n].astype(np.int32),
            "logp_a": np.add.reduceat(a["logp"][: shared.to_a[n - 1]], shared.from_a[:n]),
            "logp_b": np.add.reduceat(b["logp"][: shared.to_b[n - 1]], shared.from_b[:n]),
            "one_to_one": shared.one_to_one[:n],
            "byte_kl_ab": vocab.forward_kl(*byte).numpy(), "byte_kl_ba": vocab.forward_kl(byte[1], byte[0]).numpy(),
            "byte_js": vocab.js(*byte).numpy(), "byte_tv": vocab.tv(*byte).numpy(),
            "byte_agree": (byte[0].argmax(-1) == byte[1].argmax(-1)).numpy(),
        }  # fmt: skip


def _opening(arm: Arm) -> list[int]:
    """What stands before a text that has no prompt, so that its first token is predicted from something."""
    found = arm.lm.tokenizer.bos_token_id
    return [arm.lm.tokenizer.eos_token_id or 0] if found is None else [found]


def _table(parts: list[dict[str, Any]]) -> pa.Table:
    parts = [part for part in parts if part]
    if not parts:
        return pa.table({"item": pa.array([], pa.int32())})
    return pa.table({name: pa.concat_arrays([pa.array(p[name]) for p in parts]) for name in parts[0]})
