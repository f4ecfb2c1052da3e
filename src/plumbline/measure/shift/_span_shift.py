"""Span shift: two models with different tokenizers, compared byte by byte on the spans that both cut alike."""

from __future__ import annotations

import heapq
import tempfile
from typing import Any

import numpy as np
import pandas as pd

from plumbline.core.declare import Count, Evidence, claim, probe
from plumbline.core.finding import Finding
from plumbline.kernels.records import Records
from plumbline.kernels.stats import cluster_bootstrap
from plumbline.lab.tables import TableLM, item_table
from plumbline.measure import figures
from plumbline.measure.text import clip, items_of, range_of, share, undefined
from plumbline.measure.totals import Distribution, ItemSums

NEEDS = (
    "Texts scored by two models with different tokenizers. A span's log-probability is that of one tokenisation, a"
    " lower bound; next-byte distributions hold where both models have a token boundary."
)
MINIMUM = 20
COLUMNS = ["item", "byte_start", "byte_end", "text", "n_tok_a", "n_tok_b", "logp_a", "logp_b", "one_to_one",
           "byte_kl_ab", "byte_kl_ba", "byte_js", "byte_tv", "byte_agree"]  # fmt: skip


@probe(
    paper=None,
    says="Bits per byte of two models with different tokenizers and how far their next-byte distributions are apart.",
    differs=(
        "Standard bits per byte; next bytes are compared where both tokenizers cut, so one forward pass is enough.",
        "A span's probability is that of the tokenisation used, not the sum over all of them.",
    ),
    needs=("spans",),
    gives=("bits_per_byte_change", "bits_per_byte_base", "bits_per_byte_tuned", "byte_kl_mean", "byte_kl_reverse_mean",
           "byte_js_mean", "byte_tv_mean", "next_byte_agreement", "one_to_one_spans"),
)  # fmt: skip
def span_shift(comparison: Records, *, worst: Count = 100, seed: int = 0) -> Finding:
    r"""Bits per byte of both models and byte-level divergences, over spans [N] of texts.

    .. math:: bpb = -\frac{\sum_s \log p(s)}{\ln 2 \sum_s bytes(s)}, \quad
              q(x) = \sum_{v: v_1 = x} p(v), \quad KL(q_A \| q_B)

    q is the distribution of the next byte x at a boundary that both models share. Intervals resample texts, both
    models together.

    Args:
        comparison: records with ``spans``.
        worst: spans shown, by loss of log-probability per byte.
        seed: of the intervals.
    """
    sums, kl, top, lost = ItemSums(), Distribution(), [], 0
    for frame in comparison.batches("spans", columns=COLUMNS):
        values = frame.drop(columns="text").astype(np.float64)
        fine = np.isfinite(values[["logp_a", "logp_b", "byte_kl_ab", "byte_kl_ba"]]).all(axis=1).to_numpy()
        lost += int((~fine).sum())
        v, item = values[fine], frame["item"].to_numpy()[fine]
        size = (v["byte_end"] - v["byte_start"]).to_numpy()
        kl.add(v["byte_kl_ab"])
        sums.add(
            item, bytes=size, a=-v["logp_a"], b=-v["logp_b"], ab=v["byte_kl_ab"], ba=v["byte_kl_ba"],
            js=v["byte_js"], tv=v["byte_tv"], agree=v["byte_agree"], one=v["one_to_one"],
        )  # fmt: skip
        loss = ((v["logp_a"] - v["logp_b"]) / np.maximum(size, 1)).to_numpy()
        for i in np.argsort(-np.abs(loss), kind="stable")[:worst]:
            row = frame[fine].iloc[i]
            entry = {"span": clip(row["text"], 80), "loss_per_byte": float(loss[i]), "logp_base": float(row["logp_a"])}
            entry |= {"logp_tuned": float(row["logp_b"]), "tokens_base": int(row["n_tok_a"])}
            entry |= {"tokens_tuned": int(row["n_tok_b"]), "byte_kl": float(row["byte_kl_ab"])}
            key = (abs(float(loss[i])), -int(row["item"]), -int(row["byte_start"]))
            top = heapq.nlargest(worst, [*top, (*key, entry)], key=lambda t: t[:3])
    n = kl.n
    if n < MINIMUM:
        return undefined("bits_per_byte_change", "too few spans", have=n, need=MINIMUM, what="spans", needs=NEEDS)
    ids = items_of(comparison)["id"]
    rows = [{"id": ids.get(-t[1], str(-t[1])), **t[3]} for t in top]
    bits = sums.of("a", "b", "bytes") / np.array([np.log(2), np.log(2), 1.0])
    told = {"n_items": n, "seed": seed}
    of = {
        "base": cluster_bootstrap(bits[:, [0, 2]], **told), "tuned": cluster_bootstrap(bits[:, [1, 2]], **told),
        "change": cluster_bootstrap(bits, lambda s: (s[..., 1] - s[..., 0]) / s[..., 2], **told),
    }  # fmt: skip
    head = Finding.of("bits_per_byte_change", of["change"], sentence="")
    one = sums.mean("one", proportion=True, seed=seed)
    sentence = (
        f"TUNED needs {of['tuned'].value:.4g} bits per byte, BASE {of['base'].value:.4g} (change "
        f"{head.value:+.3g}{range_of(head, '{:+.3g}')}); {share(one.value)} of {n:,} common spans are 1 token in both."
    )
    edges, counts = kl.histogram()
    parts = (*_parts(sums, of, seed), _share("one_to_one_spans", one, "are one token in both"))
    more: dict[str, Any] = {
        "title": "Change of bits per byte", "unit": "bits per byte", "direction": -1, "sentence": sentence,
        "needs": NEEDS, "table": tuple(rows), "parts": parts,
        "figure": figures.histogram(edges, {"spans": counts}, "next-byte KL(BASE||TUNED), nats", yaxis={"type": "log"}),
        "warnings": (*head.warnings, *((f"{lost} spans with infinite values are left out",) if lost else ())),
    }  # fmt: skip
    return Finding(**{**vars(head), **more})


def _share(name: str, e: Any, words: str) -> Finding:
    return Finding.of(name, e, unit="share of spans", sentence=f"{share(e.value)} of common spans {words}.")


def _parts(sums: ItemSums, of: dict[str, Any], seed: int) -> list[Finding]:
    told = (
        ("byte_kl_mean", "ab", "KL(BASE||TUNED)", "nats"),
        ("byte_kl_reverse_mean", "ba", "KL(TUNED||BASE)", "nats"),
        ("byte_js_mean", "js", "JS", "nats"),
        ("byte_tv_mean", "tv", "total variation", "probability"),
    )
    parts = [
        Finding.of(f"bits_per_byte_{name}", of[name], unit="bits per byte", direction=-1,
                   sentence=f"{name.upper()} needs {of[name].value:.4g} bits per byte.")
        for name in ("base", "tuned")
    ]  # fmt: skip
    for name, column, words, unit in told:
        e = sums.mean(column, seed=seed)
        sentence = f"The mean {words} of the next byte is {e.value:.4g} {unit}."
        parts.append(Finding.of(name, e, unit=unit, direction=-1, sentence=sentence))
    agree = sums.mean("agree", proportion=True, seed=seed)
    return [*parts, _share("next_byte_agreement", agree, "are followed by the same likeliest byte in both")]


@claim(span_shift, "Bits per byte do not depend on how a text is cut into spans; bits per token do.", cost="cpu:1s")
def cutting_changes_nothing() -> Evidence:
    a, b = TableLM.random(16, scale=1.0, seed=1), TableLM.random(16, scale=1.0, seed=2)
    ids = a.sample(np.arange(30) % 16, 60, seed=3)
    logp = [np.take_along_axis(m.along(ids), ids[:, 1:, None], 2)[..., 0] for m in (a, b)]
    found = {}
    for width in (1, 2):
        table = {"item": np.repeat(np.arange(30), 60 // width), "byte_start": np.tile(np.arange(0, 60, width), 30)}
        cut = [x.reshape(30, -1, width).sum(2).ravel() for x in logp]
        zero = dict.fromkeys(("byte_kl_ab", "byte_kl_ba", "byte_js", "byte_tv"), 0.0)
        frame = pd.DataFrame({**table, "text": "x" * width, "n_tok_a": width, "n_tok_b": 1, "logp_a": cut[0],
                              "logp_b": cut[1], "one_to_one": width == 1, "byte_agree": True, **zero})  # fmt: skip
        frame["byte_end"] = frame["byte_start"] + width
        with tempfile.TemporaryDirectory() as folder:
            found[width] = span_shift(Records.of(folder, items=item_table(30), spans=frame)).flat()
    change = [found[w]["bits_per_byte_change"].value for w in (1, 2)]
    per_token = [-logp[1].sum() / (logp[1].size / w) for w in (1, 2)]
    measured = {"change_fine": change[0], "change_coarse": change[1], "nats_per_token": per_token}
    return Evidence(
        holds=abs(change[0] - change[1]) < 1e-9, measured=measured, control=per_token[1] > 1.5 * per_token[0]
    )
