"""Gradients of single log-probabilities, flat or as sketches whose inner products are right on average."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from plumbline.core.finding import Finding
from plumbline.core.scored import Scored
from plumbline.kernels.seeds import generator
from plumbline.objectives.diagnose.pairs import part, score, token_text

Named = Mapping[str, Tensor]


def sketched(found: Named, *, size: int | None, seed: int) -> Tensor:
    r"""One gradient as a vector: all of it [n], or ``size`` signed bucket sums.

    .. math:: s_b = \sum_{i:\, h(i) = b} \epsilon_i g_i,\qquad E\langle s(x), s(y)\rangle = \langle x, y\rangle

    with a random bucket :math:`h(i)` and a Rademacher sign :math:`\epsilon_i` for every parameter, always the same
    for one seed; the error of an inner product is about :math:`|x||y|/\sqrt{size}`.
    """
    if size is None:
        return torch.cat([g.flatten().to(torch.promote_types(g.dtype, torch.float32)) for g in found.values()])
    first = next(iter(found.values()))
    out = torch.zeros(size, dtype=torch.float64, device=first.device)
    for name, g in found.items():
        stream = generator(seed, "sketch", name)
        draw = torch.randint(2 * size, (g.numel(),), generator=stream).to(g.device)
        sign = 1 - 2 * (draw % 2)
        out.index_add_(0, draw // 2, g.flatten().double() * sign)
    return out


def gradients(
    model: nn.Module, row: Mapping[str, Any], keep: Named, reduce: Callable[[Named], Tensor]
) -> tuple[Scored, Tensor]:
    """An answer as the model scores it, and the gradient of its summed log-probability."""
    with torch.enable_grad():
        scored = score(model, [row])
        return scored.detach(), reduce(_gradient(scored.total().sum(), keep))


def _gradient(value: Tensor, keep: Named, again: bool = False) -> Named:
    found = torch.autograd.grad(value, list(keep.values()), allow_unused=True, retain_graph=again)
    return {n: torch.zeros_like(p) if g is None else g for (n, p), g in zip(keep.items(), found, strict=True)}


def foretold(i: int, g_w: Tensor, g_l: Tensor, d_w: float, d_l: float) -> dict[str, Any]:
    """The row of one pair: what a step does to both, per unit of learning rate, and the verdict."""
    inner, won, lost = (float(x @ y) for x, y in ((g_w, g_l), (g_w, g_w), (g_l, g_l)))
    up, down = d_w * won - d_l * inner, d_w * inner - d_l * lost
    verdict = "as wished" if up > 0 > down else "both rise" if up > 0 else "both fall" if down < 0 else "reversed"
    return {
        "pair": i, "inner": inner, "cosine": inner / max((won * lost) ** 0.5, 1e-30), "norm_chosen": won**0.5,
        "norm_rejected": lost**0.5, "slope_chosen": d_w, "slope_rejected": d_l, "chosen_change": up,
        "rejected_change": down, "verdict": verdict,
    }  # fmt: skip


def told(table: list[dict[str, Any]], maps: list[dict[str, Any]]) -> Finding:
    """The finding over all pairs."""

    def share(verdict: str) -> list[bool]:
        return [row["verdict"] == verdict for row in table]

    off = [row["verdict"] != "as wished" for row in table]
    rise, fall, cosine = share("both rise"), share("both fall"), [row["cosine"] for row in table]
    parts = (
        part("both_rise", rise, unit="share of pairs", sentence=f"Of {len(rise)} pairs, {sum(rise)} will both rise."),
        part("both_fall", fall, unit="share of pairs", sentence=f"Of {len(fall)} pairs, {sum(fall)} will both fall."),
        part("entangled_cosine", cosine, sentence="How alike the gradients of the two answers are, mean over pairs."),
    )
    sentence = (
        f"One step of this loss moves {sum(off)} of {len(off)} pairs otherwise than wished: {sum(fall)} lose both "
        f"answers and {sum(rise)} gain both (mean cosine {sum(cosine) / len(cosine):.2f})."
    )
    more: dict[str, Any] = {"direction": -1, "unit": "share of pairs", "table": table, "texts": maps, "parts": parts}
    return part("gradient_entanglement", off, title="Entangled pairs", sentence=sentence, **more)


def heat(
    lm: Any, model: nn.Module, rows: Sequence[Mapping[str, Any]], keep: Named, number: int, size: int, seed: int
) -> dict[str, Any]:
    """A token heat map of the rejected answer: how alike each token's gradient is to the chosen answer's tokens'.

    ``cosines`` holds all of them, a list per rejected token.
    """
    (won, lost), ids = ([], []), []
    for row, into in zip(rows, (won, lost), strict=True):
        with torch.enable_grad():
            scored = score(model, [row])
            at = scored.mask[0].nonzero()[:, 0].tolist()
            into += [sketched(_gradient(scored.logps[0, t], keep, again=True), size=size, seed=seed) for t in at]
        ids.append([int(scored.labels[0, t]) for t in at])
    unit_w, unit_l = (torch.nn.functional.normalize(torch.stack(x), dim=-1) for x in (won, lost))
    cosines = unit_l @ unit_w.T  # [rejected, chosen]
    words = [[token_text(lm, i) for i in found] for found in ids]
    tokens = []
    for text, row_of in zip(words[1], cosines.tolist(), strict=True):
        best = max(range(len(row_of)), key=row_of.__getitem__)
        note = f"most like {words[0][best]!r} of the chosen answer, cosine {row_of[best]:.2f}"
        tokens.append({"text": text, "score": row_of[best], "label": f"{row_of[best]:.2f}", "note": note})
    return {
        "title": f"Pair {number}: rejected answer",
        "tokens": tokens,
        "chosen": words[0],
        "cosines": cosines.tolist(),
    }
