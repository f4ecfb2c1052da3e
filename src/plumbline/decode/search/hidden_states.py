"""Cached states that learn from what they failed to predict: the optimiser behind hidden-state optimisation."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from plumbline.core.errors import refuse
from plumbline.kernels.batching import pad
from plumbline.kernels.cache_grad import StateModel, gradients
from plumbline.kernels.logps import label_logps

BETAS, EPS = (0.9, 0.999), 1e-8


class HiddenStates:
    r"""The keys and values of the text read so far, and one Adam step on them for each window.

    .. math:: m \leftarrow \beta_1 m + (1 - \beta_1) g,\quad v \leftarrow \beta_2 v + (1 - \beta_2) g^2,\quad
              h \leftarrow h - \eta\, \hat m / (\sqrt{\hat v} + \epsilon)

    with :math:`g` the gradient of the window's mean NLL. Every position keeps moments and a step count of its own, in
    float32 or wider, so that they stay with it when the text moves on.

    Args:
        model: a transformers causal LM in eval mode. lr: :math:`\eta`; a negative one climbs.
        steps: gradient steps a window, each on a fresh pass. own: whether the window's own states move as well, once,
            with the last step.
    """

    def __init__(self, model: Any, *, lr: float, steps: int = 1, own: bool = False) -> None:
        self.lm = StateModel(model)
        self.lr, self.steps, self.own = lr, steps, own
        self.states: list[Tensor] = []
        self._moments: list[tuple[Tensor, Tensor]] = []
        self._age = torch.zeros(0)

    def read(self, ids: Tensor, labels: Tensor, mask: Tensor, scored: Tensor) -> Tensor:
        """Predict one window, then learn from it and keep its states.

        Args:
            ids, labels: [B, w], the tokens and those after them. mask: [B, S + w], of everything up to here.
            scored: [B, w] bool, the labels that count.

        Returns:
            [B, w] nats before any step; 0 where nothing is scored.
        """
        reported: Tensor | None = None
        for step in range(self.steps):
            logits, nodes = self.lm.window(ids, self.states, mask)
            nll = torch.where(scored, -label_logps(logits, labels), 0.0)
            reported = nll.detach() if reported is None else reported
            free = len(self._age)
            if step == self.steps - 1:
                self._keep(nodes)
                free = len(self._age) if self.own else free
            if self.lr and free and bool(scored.any()):
                # a sum over rows of each row's mean: rows do not learn from each other
                loss = (nll.sum(1) / scored.sum(1).clamp_min(1)).sum()
                self._adam([g[..., :free, :] for g in gradients(loss, nodes)])
        return torch.zeros_like(ids) if reported is None else reported

    def score(self, ids: Tensor, labels: Tensor) -> Tensor:
        """Log-probabilities [N, w] of labels after the states of one row, which stay as they are."""
        states = [x.expand(len(ids), -1, -1, -1) for x in self.states]
        logits, _ = self.lm.window(ids, states)
        return label_logps(logits.detach(), labels)

    def _keep(self, nodes: Sequence[Tensor]) -> None:
        """Take the window's own states in behind those that are there, as they were computed."""
        fresh = [x[..., len(self._age) :, :].detach() for x in nodes]
        fresh = [x.to(torch.promote_types(x.dtype, torch.float32)) for x in fresh]
        none = [torch.zeros_like(x) for x in fresh]
        if not self.states:
            self.states, self._moments = fresh, [(x.clone(), x.clone()) for x in none]
        else:
            self.states = [torch.cat(pair, -2) for pair in zip(self.states, fresh, strict=True)]
            grown = zip(self._moments, none, strict=True)
            self._moments = [(torch.cat([m, x], -2), torch.cat([v, x], -2)) for (m, v), x in grown]
        self._age = torch.cat([self._age.to(fresh[0]), fresh[0].new_zeros(fresh[0].shape[-2])])

    def _adam(self, grads: Sequence[Tensor]) -> None:
        """One step on the first n positions of every state, grads [B, H, n, d]."""
        n = grads[0].shape[-2]
        self._age[:n] += 1
        first, second = (1 - beta ** self._age[:n, None] for beta in BETAS)
        for h, (m, v), g in zip(self.states, self._moments, grads, strict=True):
            m[..., :n, :] = BETAS[0] * m[..., :n, :] + (1 - BETAS[0]) * g
            v[..., :n, :] = BETAS[1] * v[..., :n, :] + (1 - BETAS[1]) * g.square()
            h[..., :n, :] -= self.lr * (m[..., :n, :] / first) / ((v[..., :n, :] / second).sqrt() + EPS)


def read_text(hidden: HiddenStates, ids: Tensor, mask: Tensor, window: int) -> Tensor:
    """Read texts [B, L] window by window: their NLL [B, L - 1], 0 where the mask is.

    Rows are read from their own first token, wherever padding puts it, so that a row alone gets the same windows.
    """
    mask = mask.bool()
    if ids.dim() != 2 or ids.shape[1] < 2 or mask.shape != ids.shape:
        got = f"{list(ids.shape)} and a mask {list(mask.shape)}"
        raise refuse("hidden_state_optimization", "input_ids", "[B, L] with L >= 2", got, "pass a batch of texts")
    to_front = torch.sort(mask.int(), dim=1, descending=True, stable=True).indices
    ids, seen = ids.gather(1, to_front), mask.gather(1, to_front)
    parts = []
    for start in range(0, ids.shape[1] - 1, window):
        stop = min(start + window, ids.shape[1] - 1)
        scored = seen[:, start + 1 : stop + 1]
        parts.append(hidden.read(ids[:, start:stop], ids[:, start + 1 : stop + 1], seen[:, :stop], scored))
    nll = torch.cat([parts[0].new_zeros(len(ids), 1), *parts], 1)  # of the token in each column
    return torch.zeros_like(nll).scatter_(1, to_front, nll)[:, 1:]


def classify(
    model: Any, prompt: Tensor, labels: Sequence[Sequence[int]], *, lr: float = 3e-3, window: int = 25, steps: int = 1,
    own: bool = True,
) -> Tensor:  # fmt: skip
    r"""Few-shot classification with demonstrations whose states were optimised: :math:`\log p(\text{label} \mid h)`.

    Args:
        model: a transformers causal LM. prompt: [P] ids, demonstrations and then the question, P >= 2.
        labels: n continuations, of one token or more each.
        lr, window, steps, own: of :class:`HiddenStates`, which reads all of the prompt but its last token.

    Returns:
        [n] nats, summed over each label's tokens; the largest is the answer.
    """
    if prompt.dim() != 1 or len(prompt) < 2 or not labels or not all(len(label) for label in labels):
        got = f"{list(prompt.shape)} and {len(labels)} labels"
        raise refuse("classify", "prompt", "[P] with P >= 2, and labels of a token or more", got, "pass ids")
    hidden = HiddenStates(model, lr=lr, steps=steps, own=own)
    read_text(hidden, prompt[None], torch.ones_like(prompt)[None], window)
    rows = [torch.as_tensor(label, dtype=torch.long, device=prompt.device) for label in labels]
    ids, inside = pad([torch.cat([prompt[-1:], row]) for row in rows], 0, "right", device=prompt.device)
    return hidden.score(ids[:, :-1], ids[:, 1:]).where(inside[:, 1:], 0.0).sum(1)
