"""Scored: one model's view of one batch, the only thing an objective sees."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from plumbline.core.errors import refuse
from plumbline.kernels.head import head_of, hidden_states
from plumbline.kernels.hooks import capture
from plumbline.kernels.linear_extras import Moments
from plumbline.kernels.logps import linear_js, linear_kl, linear_reverse_kl, next_token
from plumbline.kernels.packing import packed_states
from plumbline.kernels.views import HeadView, LogitView, Support

IGNORED = -100  # a label that is not scored
States = Callable[[Any], Tensor]  # a site, or None for what the head reads -> [B,T,D]


class Scored:
    r"""Log-probabilities of a batch under one model, :math:`\log\pi(y_t \mid y_{<t})`.

    ``logps`` [B,T] float32 and ``mask`` [B,T] bool, T = L - 1 scored positions; 0 where the mask is False.
    ``labels`` [B,T] are the scored ids. Everything wider is made only when a loss asks for it.
    """

    def __init__(
        self,
        logps: Tensor,
        mask: Tensor | None = None,
        *,
        labels: Tensor | None = None,
        view: HeadView | LogitView | None = None,
        states: States | None = None,
        entropy: Tensor | None = None,
    ) -> None:
        if logps.dim() != 2:
            raise refuse("Scored", "logps", "of shape [B,T]", tuple(logps.shape), "pass one row per sequence")
        mask = torch.ones_like(logps, dtype=torch.bool) if mask is None else mask.to(torch.bool)
        if mask.shape != logps.shape:
            raise refuse("Scored", "mask", f"of shape {tuple(logps.shape)}", tuple(mask.shape), "shift both alike")
        self.mask = mask
        wide = logps.to(torch.promote_types(logps.dtype, torch.float32))
        self.logps = torch.where(mask, wide, 0.0)
        self._labels, self._view, self._states, self._entropy = labels, view, states, entropy

    @classmethod
    def from_logits(
        cls, logits: Tensor, input_ids: Tensor, mask: Tensor | None = None, *, shift: bool = True,
        temperature: float = 1.0,
    ) -> Scored:  # fmt: skip
        """From full logits [B,L,V] and ids [B,L]; ``mask`` [B,L] marks the tokens to be scored.

        ``shift=False``: position t scores token t itself, as in masked prediction, and T = L.
        """
        labels, kept = _targets(input_ids, mask, shift)
        rows = (logits[:, :-1] if shift else logits)[kept]
        view = LogitView(rows, labels[kept], temperature)
        return cls(_spread(view.logps(), kept), kept, labels=labels, view=view)

    @classmethod
    def of(
        cls, model: Any, input_ids: Tensor, attention_mask: Tensor | None = None, mask: Tensor | None = None, *,
        labels: Tensor | None = None, shift: bool = True, temperature: float = 1.0, support: Support | None = None,
        entropy: bool = False, packed: bool = False,
    ) -> Scored:  # fmt: skip
        """Score ids [B,L] with a transformers causal LM without ever holding [B,L,V].

        Args:
            mask: [B,L], the tokens to be scored (completions, say); ``attention_mask`` when left out.
            labels: [B,L], what is predicted where it is not the input itself; -100 is not scored.
            shift: False scores token t at position t (masked prediction), and T = L.
            temperature: divides the logits. support: kept ids and offsets of the scored positions in order; the
                log-probabilities are renormalised over them.
            entropy: make it in the same pass. packed: run the rows as one, without padding.
        """
        attention = torch.ones_like(input_ids) if attention_mask is None else attention_mask
        if labels is not None:
            mask = (labels != IGNORED) if mask is None else mask.bool() & (labels != IGNORED)
        wanted, kept = _targets(input_ids if labels is None else labels, attention if mask is None else mask, shift)
        kept = kept & (attention[:, :-1] if shift else attention).bool()  # nothing is predicted from left padding
        run = packed_states if packed else hidden_states
        whole = run(model, input_ids, attention)
        states = whole[:, :-1] if shift else whole
        head = head_of(model, causal=shift)
        y, rows = wanted[kept], states[kept]
        view: HeadView | LogitView
        view = HeadView(rows, head, y, temperature) if head.exact_form else LogitView(head(rows), y, temperature)

        def at(site: Any) -> Tensor:
            if site is None:
                return states
            with capture(model, [site]) as found:
                hidden_states(model, input_ids, attention)
            return found[site][:, : states.shape[1]]

        logps, h = view.logps_and_entropy() if entropy else (view.logps(), None)
        logps = logps if support is None else view.logps_in(support)
        h = None if h is None else _spread(h, kept)
        return cls(_spread(logps, kept), kept, labels=wanted, view=view, states=at, entropy=h)

    def total(self) -> Tensor:
        """Sum of the scored log-probabilities, [B] nats."""
        return self.logps.sum(-1)

    def mean(self) -> Tensor:
        """Mean over the scored positions, [B] nats; 0 for a row that has none."""
        return self.total() / self.lengths()

    def log_ratio(self, other: Scored) -> Tensor:
        """log pi(y) - log pi'(y), [B] nats: differences of tokens, summed, which keeps the digits of long rows."""
        if other.logps.shape != self.logps.shape:
            shapes = [tuple(self.logps.shape), tuple(other.logps.shape)]
            raise refuse("Scored", "log_ratio", "of two views of one batch", shapes, "score the same rows with both")
        return torch.where(self.mask, self.logps - other.logps, 0.0).sum(-1)

    def lengths(self) -> Tensor:
        """Scored positions of each row, [B]; 1 for a row that has none, so that it can divide."""
        return self.mask.sum(-1).clamp(min=1)

    def detach(self) -> Scored:
        """The same log-probabilities as constants, and nothing wider."""
        return Scored(self.logps.detach(), self.mask, labels=self._labels)

    def _ask(self, what: str, kept: Any) -> Any:
        if kept is None:
            raise refuse("Scored", what, "available", "log-probabilities only", "build it with Scored.of(model, ...)")
        return kept

    @property
    def labels(self) -> Tensor:
        """The scored ids, [B,T]; whatever they are where the mask is False."""
        return self._ask("labels", self._labels)

    def logits(self) -> Tensor:
        """Next-token logits [B,T,V] float32; 0 where masked."""
        return _spread(self._ask("logits", self._view).logits(), self.mask)

    def hidden(self, site: Any = None) -> Tensor:
        """The states that the output head reads, [B,T,D]; or those at a site of ``models.sites`` (another pass)."""
        return self._ask("hidden", self._states)(site)

    @property
    def has_entropy(self) -> bool:
        """Whether the entropy is there already."""
        return self._entropy is not None

    def entropy(self) -> Tensor:
        """Entropy of the next-token distribution, [B,T] nats; 0 where masked."""
        if self._entropy is None:
            self._entropy = _spread(self._ask("entropy", self._view).logps_and_entropy()[1], self.mask)
        return self._entropy

    def logps_of(self, ids: Tensor) -> Tensor:
        """Log-probabilities of ids [B,T,K] at every position, [B,T,K]; 0 where masked."""
        return _spread(self._ask("logps_of", self._view).logps_of(ids[self.mask]), self.mask)

    def sample(self, k: int, *, generator: torch.Generator | None = None, temperature: float = 1.0) -> Tensor:
        """k ids drawn at every position, [B,T,k], without a gradient; 0 where masked."""
        return _spread(self._ask("sample", self._view).sample(k, generator, temperature), self.mask)

    def moments(self) -> Moments:
        """The label's logit, the mean and the mean square, each [B,T], without a pass over the vocabulary; and V."""
        target, mean, square, vocab = self._ask("moments", self._view).moments()
        return Moments(_spread(target, self.mask), _spread(mean, self.mask), _spread(square, self.mask), vocab)

    def kl_from(self, other: Scored, *, temperature: float | None = None) -> Tensor:
        """KL(other || self) at every position, [B,T] nats; ``temperature`` of the other, which gets no gradient."""
        return self._diverge(other, linear_kl, temperature)

    def kl_to(self, other: Scored, *, temperature: float | None = None) -> Tensor:
        """KL(self || other), as :meth:`kl_from`."""
        return self._diverge(other, linear_reverse_kl, temperature)

    def js(self, other: Scored, *, temperature: float | None = None) -> Tensor:
        """Jensen-Shannon divergence, as :meth:`kl_from`."""
        return self._diverge(other, linear_js, temperature)

    def _diverge(self, other: Scored, which: Callable[..., Tensor], tau: float | None) -> Tensor:
        mine, theirs = self._ask("a divergence", self._view), other._ask("a divergence", other._view)
        return _spread(mine.diverge(theirs, which, tau), self.mask)


def _targets(ids: Tensor, mask: Tensor | None, shift: bool) -> tuple[Tensor, Tensor]:
    if shift:
        labels, kept = next_token(ids, mask)
    else:
        labels, kept = ids, torch.ones_like(ids, dtype=torch.bool) if mask is None else mask.bool()
    return labels.clamp_min(0), kept


def _spread(values: Tensor, kept: Tensor) -> Tensor:
    """[N, ...] of the kept positions as [B, T, ...], zero elsewhere."""
    out = values.new_zeros((*kept.shape, *values.shape[1:]))
    return out.index_put((kept,), values)
