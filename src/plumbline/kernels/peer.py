"""A second next-token distribution beside the model that generates, and the rule that mixes them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from plumbline.core.errors import refuse
from plumbline.kernels.cached_lm import CachedLM

LogitsOf = Callable[[Tensor], Tensor]


class Peer:
    """Logits of another model, or of the same model under another prompt, for the tokens that are being generated.

    Without ``prompt`` it reads what the main model reads. With it, row b reads its own prompt followed by what was
    generated after the main prompt. Which main prompt a row belongs to is told by ``begin`` or taken from the first
    call; beams, several samples a prompt and rows decoded alone are recognised by how they begin.

    Args:
        model: a transformers causal LM, an ``LM``, a ``CachedLM``, or any ``(tokens [B, T]) -> logits [B, V]``.
        prompt: [B, P] own prompts, left-padded, one a main row, or one for all.
        prompt_mask: [B, P], 0 on its padding; None: none is padded.
        pad_token_id: what pads the main batch, see ``CachedLM``.
        padded_vocab: accept a vocabulary of another width (padding rows of the head): cut to the smaller, -inf beyond.
        across_devices: accept a model on another device; its logits are copied at every step.
    """

    def __init__(
        self, model: Any, prompt: Tensor | None = None, prompt_mask: Tensor | None = None, *,
        pad_token_id: int | None = None, padded_vocab: bool = False, across_devices: bool = False,
    ) -> None:  # fmt: skip
        plain = isinstance(model, CachedLM) or not (hasattr(model, "generate") or hasattr(model, "use"))
        self.lm: Any = model if plain else CachedLM(model, pad_token_id)
        if not callable(self.lm):
            raise refuse("Peer", "model", "a causal LM or a function of tokens", type(model).__name__, "pass a model")
        if prompt is not None and (prompt.dim() != 2 or prompt.shape[1] == 0):
            raise refuse("Peer", "prompt", "[B, P] with P >= 1", list(prompt.shape), "give it at least the bos token")
        if prompt_mask is not None and (prompt is None or prompt_mask.shape != prompt.shape):
            wanted = "left out where there is no prompt" if prompt is None else f"{list(prompt.shape)}, as the prompt"
            raise refuse("Peer", "prompt_mask", wanted, list(prompt_mask.shape), "pass one entry a prompt token")
        self.prompt = prompt
        self.prompt_mask = torch.ones_like(prompt) if prompt is not None and prompt_mask is None else prompt_mask
        self.padded_vocab, self.across_devices = padded_vocab, across_devices
        self._main: Tensor | None = None
        self._told = False  # by begin(), and not taken from the first call
        self._handed: tuple[Tensor, Tensor] | None = None

    def begin(self, tokens: Tensor) -> None:
        """A new generation from these main prompts [B, L], left-padded as the main model gets them."""
        self._handed = None
        if self.prompt is None:
            return
        if len(tokens) % len(self.prompt):
            raise refuse("Peer", "prompt", f"one row, or one for each of the {len(tokens)} main prompts",
                         f"{len(self.prompt)} rows", "give every main prompt its own")  # fmt: skip
        self._main, self._told = tokens.clone(), True

    def hand(self, tokens: Tensor, logits: Tensor) -> None:
        """Logits that were computed elsewhere, in one batch with the main model's, as the answer for ``tokens``."""
        self._handed = (tokens, logits)

    def reads(self, tokens: Tensor, mask: Tensor | None = None) -> tuple[Tensor, Tensor | None]:
        """Ids and mask [B, P + G] that this peer's model reads where the main model reads ``tokens`` [B, L + G]."""
        if self.prompt is None:
            return tokens, mask
        rows = self._rows(tokens)
        if rows is None:
            self.begin(tokens)
            self._told = False
            rows = self._rows(tokens)
        ids, seen = [], []
        for row, (own, start) in zip(tokens, rows or [], strict=True):
            suffix = row[start:]
            ids.append(torch.cat([self.prompt[own].to(tokens.device), suffix]))
            seen.append(torch.cat([self.prompt_mask[own].to(tokens.device), torch.ones_like(suffix)]))  # type: ignore[index]
        width = max(map(len, ids))
        pad = [torch.nn.functional.pad(x, (width - len(x), 0)) for x in ids]
        return torch.stack(pad), torch.stack([torch.nn.functional.pad(m, (width - len(m), 0)) for m in seen])

    def __call__(self, tokens: Tensor) -> Tensor:
        """Logits [B, V] of the token after ``tokens`` [B, T]."""
        handed, self._handed = self._handed, None
        if handed is not None and handed[0].shape == tokens.shape and torch.equal(handed[0], tokens):
            return handed[1]
        place = self.lm.device if isinstance(self.lm, CachedLM) else tokens.device
        if place != tokens.device and not self.across_devices:
            raise refuse("Peer", "model", f"on the main model's device, {tokens.device}", str(place),
                         "move it there, or pass Peer(model, across_devices=True)")  # fmt: skip
        ids, mask = self.reads(tokens)
        return self.lm(ids) if mask is None else self.lm(ids, mask)

    def _rows(self, tokens: Tensor) -> list[tuple[int, int]] | None:
        """For each row its own prompt's number and where its generated part starts; None: not of this generation."""
        main, prompts = self._main, self.prompt
        if main is None or prompts is None:
            return None
        length, each = main.shape[1], max(len(tokens) // len(main), 1)
        if tokens.shape[1] >= length and len(tokens) % len(main) == 0:
            if torch.equal(tokens[:, :length], main.repeat_interleave(each, 0)):
                per = max(len(tokens) // len(prompts), 1)
                return [(b // per, length) for b in range(len(tokens))]
        per = len(main) // len(prompts)
        mains, found = main.tolist(), list[tuple[int, int]]()
        for row in tokens.tolist():
            fits = {(number // per, start) for number, start in _origins(row, mains, self._told)}
            if len(fits) > 1:
                raise refuse("Peer", "tokens", "rows whose main prompt can be told", "a row alone that fits several",
                             "decode all rows together, or one prompt at a time after begin()")  # fmt: skip
            found += fits
        return found if len(found) == len(tokens) else None


def _origins(row: list[int], mains: list[list[int]], stripped: bool) -> list[tuple[int, int]]:
    """The main prompts that ``row`` begins with, and their lengths there; else, ``stripped``, without left padding."""
    whole = [(number, len(main)) for number, main in enumerate(mains) if row[: len(main)] == main]
    if whole or not stripped:
        return whole
    cut_off = []
    for number, main in enumerate(mains):
        run = next((i for i, t in enumerate(main) if t != main[0]), len(main) - 1)
        cut_off += [(number, len(main) - cut) for cut in range(1, run + 1) if row[: len(main) - cut] == main[cut:]]
    return cut_off


class Rule:
    """A logit rule: a formula over the main model's logits and its peers', safe for what earlier rules forbade.

    Attributes:
        name: the method's, for messages. peers: the :class:`Peer` objects, asked once a step.

    Args:
        name: of the method. formula: ``(logits [B, V], peer logits [B, V] ...) -> [B, V]``, all float32 or wider. The
            main logits may hold -inf (forbidden by an earlier rule): what is forbidden stays so whatever it returns.
        peers: models, ``LM``s, ``CachedLM``s, functions of tokens, or ``Peer``s where a prompt of their own is needed.
    """

    def __init__(self, name: str, formula: Callable[..., Tensor], *peers: Any) -> None:
        self.name, self.formula = name, formula
        self.peers: Sequence[Peer] = tuple(p if isinstance(p, Peer) else Peer(p) for p in peers)

    def begin(self, tokens: Tensor) -> None:
        """A new generation from these main prompts [B, L]; loops that decode rows alone call it first."""
        for peer in self.peers:
            peer.begin(tokens)

    def __call__(self, tokens: Tensor, logits: Tensor) -> Tensor:
        """Logits [B, V] in float32 (float64 for float64) after the tokens [B, T]."""
        main = logits.to(torch.promote_types(logits.dtype, torch.float32))
        others = [self._fitted(peer, peer(tokens), main) for peer in self.peers]
        out = self.mixed(tokens, main, *others)
        if bool(out.isnan().any()):
            raise refuse(self.name, "logits", "free of NaN", "NaN from the formula", "look at the peers' logits")
        out = out.masked_fill(main == -torch.inf, -torch.inf)
        dead = (out == -torch.inf).all(-1, keepdim=True)
        return torch.where(dead, main, out)  # where rules forbid everything between them, the main model decides

    def mixed(self, tokens: Tensor, main: Tensor, *others: Tensor) -> Tensor:
        """What the formula makes of the logits; a rule whose formula reads the tokens as well overrides this."""
        return self.formula(main, *others)

    def _fitted(self, peer: Peer, logits: Tensor, main: Tensor) -> Tensor:
        """The peer's logits in the main model's width, dtype and device."""
        logits = logits.to(main)
        width, own = main.shape[-1], logits.shape[-1]
        if own == width:
            return logits
        if not peer.padded_vocab:
            do = "use models of one tokenizer, or Peer(model, padded_vocab=True) if only padding differs"
            raise refuse(self.name, "peer", f"a model with the main vocabulary of {width} tokens", f"{own} tokens", do)
        filled = torch.full_like(main, -torch.inf)
        filled[:, : min(own, width)] = logits[:, :width]
        return filled
