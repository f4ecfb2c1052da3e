"""Speculative Jacobi Decoding: draft with the model's own parallel guesses of the pass before, and verify them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from plumbline.core.declare import Count, Evidence, Paper, claim, sampler
from plumbline.decode.backoff import Backoff
from plumbline.decode.loop import Report, Run, passes
from plumbline.kernels.choice import Chooser, verify_chain
from plumbline.kernels.tree import TreeLM
from plumbline.kernels.vocab import likeliest

_PRICE = {"cpu": 0.08, "cuda": 0.01}  # of one more token in a pass: sampled text must not depend on a clock


class _Window:
    """One row's drafts and the distributions that they were drawn from; None: put there, not drawn."""

    def __init__(self) -> None:
        self.tokens, self.drawn_from = list[int](), list[Tensor | None]()

    def fill(self, run: Run, b: int, width: int, init: Callable[[Chooser, list[int]], int] | None) -> None:
        del self.tokens[width:], self.drawn_from[width:]
        vocab = run.model.get_input_embeddings().weight.shape[0]
        while len(self.tokens) < width:
            text = [*run.rows[b], *self.tokens]
            self.tokens.append(run.choosers[b].index(vocab) if init is None else init(run.choosers[b], text))
            self.drawn_from.append(None)

    def verify(self, run: Run, b: int, logits: Tensor) -> list[int]:
        """Tokens emitted after a pass with logits [N + 1, V]; what lies beyond is drafted anew from this same pass."""
        n = len(self.tokens)
        if run.sampled:
            rows = [run.probs(b, self.tokens[:i], logits[i]) for i in range(n + 1)]
            kept, token = verify_chain(run.choosers[b], rows, self.drawn_from, self.tokens)
            fresh, source = [run.choosers[b].categorical(p) for p in rows[kept + 1 : n + 1]], rows[kept + 1 : n + 1]
        else:
            scores = [run.scores(b, self.tokens[:i], logits[i]) for i in range(n + 1)]
            best = likeliest(torch.stack(list(scores)))[:, 0].tolist()
            kept = next((i for i in range(n) if self.tokens[i] != best[i]), n)
            token, fresh, source = best[kept], best[kept + 1 :], [None] * (n - kept)
        emitted = [*self.tokens[:kept], token]
        self.tokens, self.drawn_from = fresh, list(source)
        return emitted


@sampler(
    paper=Paper(
        "Accelerating Auto-regressive Text-to-Image Generation with Training-free Speculative Jacobi Decoding",
        "Teng et al.", 2024, arxiv="2410.01699",
    ),
    says="Draft with the model's own guesses of the pass before and accept them probabilistically: lossless sampling.",
    differs=(
        "The width of the window adapts to what is accepted, down to plain decoding; a token in a pass has a fixed "
        "price there, so that a seed gives the same text on every machine.",
        "After a pass that accepts everything nothing is carried over: the next window begins with fresh tokens.",
        "Initial tokens are uniform over the vocabulary, or whatever init= returns (a neighbour's token for images).",
    ),
)  # fmt: skip
def speculative_jacobi(
    model: Any, input_ids: Tensor, logits_processor: Any, stopping_criteria: Any, generation_config: Any, *,
    window: Count = 16, init: Callable[[Chooser, list[int]], int] | None = None, adapt: bool = True,
    report: Report | None = None, chooser: Chooser | None = None, **model_kwargs: Any,
) -> Any:  # fmt: skip
    r"""Decode with Jacobi drafts: ``model.generate(ids, custom_generate=speculative_jacobi, do_sample=True)``.

    Draft i, drawn from q_i in the pass before, is kept with the probability below; the first that is not gives way to a
    draw from the residual, and later positions are drafted anew from this pass's p:

    .. math:: \min\bigl(1, p_i(x_i) / q_i(x_i)\bigr), \qquad x \sim (p_i - q_i)_+ / \textstyle\sum (p_i - q_i)_+

    Args:
        input_ids: [B, L], left-padded.
        window: tokens in a pass, the last accepted one among them.
        init: ``(chooser, text so far) -> token`` for positions that nothing is known of; None: uniform.
        adapt: False keeps the window, whatever is accepted.
        report: filled with calls, tokens and acceptance. chooser: where random outcomes come from.

    Returns:
        [B, L'] ids, distributed as the model's own samples; equal to greedy decoding where nothing is sampled.
    """
    run = Run("speculative_jacobi", model, input_ids, logits_processor, stopping_criteria, generation_config,
              model_kwargs, report=report, chooser=chooser)  # fmt: skip
    windows = [_Window() for _ in run.rows]

    def step(lm: TreeLM, group: list[int], width: int) -> tuple[int, list[range]]:
        width = min(width, max(run.left(b) for b in group) - 1)
        for b in group:
            windows[b].fill(run, b, width, init)
        fed = torch.tensor([[run.rows[b][-1], *windows[b].tokens] for b in group])
        logits = lm.logits(fed, [range(width)] * len(group))
        taken = [run.emit(b, windows[b].verify(run, b, logits[i])) for i, b in enumerate(group)]
        run.report.drafted += width * len(group)
        run.report.kept += sum(taken) - len(group)
        return width, [range(n) for n in taken]

    return passes(run, lambda rows: _backoff(run, window, rows) if adapt else Backoff.fixed(window - 1), step)


def _backoff(run: Run, window: int, rows: int) -> Backoff:
    price = _PRICE.get(run.input_ids.device.type, _PRICE["cuda"]) if run.sampled else None
    widths = sorted({max(w, 2) - 1 for w in (window // 4, window // 2, window)})
    return Backoff(widths, trial=2, price=price, model=run.model, rows=rows)


@claim(
    speculative_jacobi,
    "Where its guesses are right a pass gives well over one token, and never less than one.",
    cost="cpu:8s",
)
def peaked_text_takes_fewer_passes() -> Evidence:
    from plumbline.lab.transitions import following

    def calls_a_token(cycle: int, tokens: int = 40) -> float:
        model, text = following(vocab=64, cycle=cycle, seed=3)
        told, how = Report(), dict(do_sample=False, max_new_tokens=tokens, pad_token_id=0, adapt=False, window=8)
        model.generate(torch.tensor([text[:1]]), custom_generate=speculative_jacobi, report=told, **how,
                       init=lambda chooser, before: before[-1])  # fmt: skip
        return (told.calls - 1) / told.tokens

    peaked, other = calls_a_token(1), calls_a_token(50)  # the neighbour's token is always the right guess, or never
    return Evidence(
        holds=peaked < 0.7 and other <= 1.0,
        measured={"calls a token, peaked": peaked, "calls a token, nothing to guess": other},
        control=other > 0.9,
    )
