"""kNN-LM: mix what followed the most similar contexts of a corpus into the model's next-token distribution."""

from __future__ import annotations

import math
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from plumbline.core.declare import Count, Evidence, Paper, Positive, Probability, claim, logit_rule
from plumbline.core.errors import refuse
from plumbline.decode.contrast.datastore import Datastore
from plumbline.kernels.cached_lm import CachedLM
from plumbline.kernels.hooks import capture
from plumbline.kernels.peer import Rule
from plumbline.kernels.seeds import generator
from plumbline.lab.tiny import tiny
from plumbline.models.sites import unwrapped


@dataclass(frozen=True)
class _Head:
    """The output [B, n, V] of the model's head."""

    at_input: bool = False

    def module(self, model: nn.Module) -> nn.Module:
        return unwrapped(model).get_output_embeddings()  # type: ignore[operator]

    def columns(self, model: nn.Module) -> slice:
        return slice(None)


class _Retrieving(Rule):
    """The rule; inside ``with rule:`` it looks into the generating model's own pass instead of making one."""

    def __init__(self, lm: CachedLM, store: Datastore, lam: float, **how: Any) -> None:
        super().__init__("knn_lm", self._mix)
        self.lm, self.store, self.how, self.second_passes = lm, store, how, 0
        self.keep, self.weight = math.log1p(-lam) if lam < 1 else -math.inf, math.log(lam) if lam > 0 else -math.inf
        self._seen: dict[Any, Tensor] = {}
        self._query: Tensor | None = None
        self._open = ExitStack()

    def __enter__(self) -> _Retrieving:
        self._seen = self._open.enter_context(capture(self.lm.model, [self.store.site, _Head()]))
        return self

    def __exit__(self, *error: object) -> None:
        self._open.close()
        self._seen = {}

    def __call__(self, tokens: Tensor, logits: Tensor) -> Tensor:
        if logits.shape[-1] != self.store.vocab:
            raise refuse("knn_lm", "logits", f"[B, {self.store.vocab}], the datastore's vocabulary",
                         list(logits.shape), "generate with the model that it was built with")  # fmt: skip
        seen = self._seen.get(_Head())
        if seen is not None and _same_step(seen[:, -1], logits):
            self._query = _last(self._seen[self.store.site], len(tokens))
        else:
            self.second_passes += 1
            with capture(self.lm.model, [self.store.site]) as found:
                self.lm(tokens)
            if found:  # empty where the prefix is the one of the call before
                self._query = _last(found[self.store.site], len(tokens))
        return super().__call__(tokens, logits)

    def _mix(self, logits: Tensor) -> Tensor:
        retrieved = self.store.retrieve(self._query, **self.how).to(logits)  # type: ignore[arg-type]
        # on the logits' own scale, so that lam = 0 gives them back to the bit
        return torch.logaddexp(self.keep + logits, self.weight + retrieved + logits.logsumexp(-1, keepdim=True))


def _last(x: Tensor, rows: int) -> Tensor:
    return x.detach().reshape(rows, -1, x.shape[-1])[:, -1]


def _same_step(head: Tensor, logits: Tensor) -> bool:
    """Whether the logits [B, V] are the head's up to a constant a row (beams are normalised) and forbidden tokens."""
    if head.shape != logits.shape:
        return False
    allowed = logits > -torch.inf
    gap = head.to(logits) - logits
    low, high = gap.masked_fill(~allowed, torch.inf).amin(-1), gap.masked_fill(~allowed, -torch.inf).amax(-1)
    return bool((high - low <= 1e-3).all())


@logit_rule(
    paper=Paper(
        "Generalization through Memorization: Nearest Neighbor Language Models", "Khandelwal et al.", 2020,
        arxiv="1911.00172",
    ),
    says="Add the tokens that followed the most similar contexts of a corpus, weighted by their distance.",
    differs=(
        "Search is exact unless probe is given; the paper's is an inverted file with product-quantised keys, whose "
        "distances its code computes again from the full keys, as here for the neighbours found.",
        "The temperature divides the distances; the paper has none (T = 1), later work tunes it to the key's width.",
        "The mixture is returned on the scale of the logits it was given, not normalised.",
    ),
)  # fmt: skip
def knn_lm(
    model: Any, *, datastore: Datastore | Path | str, k: Count = 1024, lam: Probability = 0.25,
    temperature: Positive = 1.0, probe: Count | None = None,
) -> _Retrieving:  # fmt: skip
    r"""Interpolation of the model with a distribution over retrieved tokens.

    .. math::
        p(v) = \lambda\, p_{kNN}(v) + (1 - \lambda)\, p_{LM}(v), \qquad
        p_{kNN}(v) \propto \sum_{i \in N_k(q)} 1[v_i = v]\, \exp(-\lVert q - k_i \rVert^2 / T)

    The query q is the input of the last block's feed-forward part at the last position. Called as it is, the rule runs
    the model a second time to see it, over a cache of its own. Inside ``with rule: model.generate(...)`` it takes the
    query from generate's own pass where that pass provably made these logits, which costs the search alone; otherwise
    (an earlier rule rewrote them, a soft cap follows the head, another position is asked for) it makes the second
    pass, and counts it in ``rule.second_passes``.

    Args:
        model: the model that generates. datastore: built with it, or the folder of one.
        k: neighbours. lam: :math:`\lambda`, 0 leaves the logits [B, V] as they are. temperature: T.
        probe: cells of the datastore's index to read, None: exact search.

    Raises:
        InputError: a datastore of another model, ``probe`` without an index.
    """
    store, lm = Datastore.of(datastore), model if isinstance(model, CachedLM) else CachedLM(model)
    store.check("knn_lm", lm.model)
    store.check_probe("knn_lm", probe)
    return _Retrieving(lm, store, lam, k=k, temperature=temperature, probe=probe)


def _example(model: Any) -> dict[str, Any]:
    """A small datastore for the shipped checks."""
    ids = torch.randint(3, 90, (8, 20), generator=generator(0, "knn_lm"))
    return {"datastore": Datastore.build(model, list(ids)), "k": 16, "temperature": 10.0}


@claim(knn_lm, "A model continues a text that it never read but that lies in its datastore.", cost="cpu:2s")
def recites() -> Evidence:
    model, right = tiny("llama", seed=3), {}
    texts = torch.randint(3, 90, (12, 30), generator=generator(1, "recites"))
    own, other = (Datastore.build(model, list(rows)) for rows in (texts, texts.flip(0, 1)))
    for name, store in (("own", own), ("backwards", other)):
        with knn_lm(model, datastore=store, k=4, lam=0.9) as rule:
            out = model.generate(texts[:, :8], max_new_tokens=22, do_sample=False, logits_processor=[rule])
        right[name] = (out[:, 8:] == texts[:, 8:]).float().mean().item()
    return Evidence(right["own"] > 0.95, right | {"second_passes": rule.second_passes}, right["backwards"] < 0.2)
