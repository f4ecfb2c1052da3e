"""How a secret key, the tokens before, and a token become a number that looks random to whoever lacks the key."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor

from plumbline.core.errors import refuse
from plumbline.kernels.peer import Rule

MILLIONTH_PRIME = 15485863
TINY = 2.0**-53


class Scheme(Protocol):
    """A keyed assignment of a number in (0, 1), and of a colour, to every (context, token).

    A watermark and its detector must be given the same one. It is made by calling ``scheme(key=, context=,
    self_hash=)``: a class such as :class:`Hashed`, ``TransformersGreens`` or ``SeededStream`` fits as it is.

    Attributes:
        window: w, how many tokens before the scored one are read.
    """

    window: int

    def pairs(self, grams: Tensor) -> Tensor:
        """[..., w + 1] tokens, the scored one last -> [...] i64; equal numbers carry the same bit, so one counts."""

    def uniform(self, grams: Tensor, vocab: int | None) -> Tensor:
        """[N, w + 1] -> [N] f64, the number of each."""

    def uniforms(self, contexts: Tensor, vocab: int) -> Tensor:
        """[B, w] -> [B, V] f64, the number of every next token."""

    def green(self, grams: Tensor, gamma: float, vocab: int | None) -> Tensor:
        """[N, w + 1] -> [N] bool, whether the last token is on the green list of those before it."""

    def greens(self, contexts: Tensor, logits: Tensor, gamma: float) -> Tensor:
        """[B, w], [B, V] -> [B, V] bool, the tokens to favour."""


def _signed(x: int) -> int:
    """The 64-bit integer with the same bits; int64 products wrap, which is what a hash wants."""
    x &= (1 << 64) - 1
    return x - (1 << 64) if x >> 63 else x


TOKEN, CONTEXT = _signed(0x9E3779B97F4A7C15), _signed(0xD1342543DE82EF95)
FIRST, SECOND = _signed(0xBF58476D1CE4E5B9), _signed(0x94D049BB133111EB)


def scramble(z: Tensor) -> Tensor:
    """The finaliser of splitmix64: a bijection of int64 [...] in which every input bit moves half of the output's."""
    z = z.clone()
    for shift, factor in ((30, FIRST), (27, SECOND), (31, 1)):
        z ^= (z >> shift).bitwise_and_((1 << (64 - shift)) - 1)  # a logical shift: torch's own copies the sign bit
        z *= factor
    return z


def unit(z: Tensor) -> Tensor:
    """[...] i64 -> [...] f64 in [2^-53, 1 - 2^-53]: the middles of 2^52 equal cells, never 0 or 1."""
    return (z >> 12).bitwise_and_((1 << 52) - 1).double().add_(0.5).mul_(2.0**-52)


@dataclass(frozen=True)
class Hashed:
    r"""Plumbline's own: a counter-based hash, so that one token's number costs the same as reading it.

    .. math:: s_0 = f(k),\quad s_i = f(s_{i-1} + a\,(x_i + 1)),\quad U(x, v) = f(s_w + b\,(v + 1)) / 2^{64}

    with f the splitmix64 finaliser on 64-bit integers that wrap, and odd constants a and b. Nothing is permuted and
    the vocabulary's size plays no part; CPU and CUDA agree to the bit. A token is green iff U < gamma, each on its own.

    With ``self_hash`` the number follows the smallest of the hashes of the candidate with itself and with each of the
    ``context - 1`` tokens before it: one that is edited matters only if it was the smallest.

    Args:
        key: the secret, any integer. context: h, the tokens that seed; with ``self_hash`` the candidate is one of them.
        self_hash: let the candidate seed its own number.
    """

    key: int = MILLIONTH_PRIME
    context: int = 1
    self_hash: bool = False

    @property
    def window(self) -> int:
        return self.context - self.self_hash

    def _states(self, contexts: Tensor, tokens: Tensor) -> Tensor:
        """[..., w] and tokens [...] that broadcast with its front -> i64, one for each thing a number is made from."""
        start = scramble(torch.full((1,), _signed(self.key), dtype=torch.int64, device=tokens.device))
        before = contexts.long().unbind(-1)
        if not self.self_hash:
            for x in before:
                start = scramble(start + (x + 1) * CONTEXT)
            return start + (tokens.long() + 1) * TOKEN
        own = scramble(start + (tokens.long() + 1) * CONTEXT)
        smallest = scramble(own + (tokens.long() + 1) * TOKEN)
        for x in before:
            smallest = torch.minimum(smallest, scramble(own + (x + 1) * TOKEN))
        return smallest

    def pairs(self, grams: Tensor) -> Tensor:
        return self._states(grams[..., :-1], grams[..., -1])

    def uniform(self, grams: Tensor, vocab: int | None = None) -> Tensor:
        # the smallest of several is not uniform any more, so a self-hash is always scrambled once more
        return unit(scramble(self.pairs(grams)))

    def uniforms(self, contexts: Tensor, vocab: int) -> Tensor:
        tokens = torch.arange(vocab, device=contexts.device)
        return unit(scramble(self._states(contexts[:, None, :], tokens).expand(len(contexts), vocab)))

    def green(self, grams: Tensor, gamma: float, vocab: int | None = None) -> Tensor:
        return self.uniform(grams) < gamma

    def greens(self, contexts: Tensor, logits: Tensor, gamma: float) -> Tensor:
        return self.uniforms(contexts, logits.shape[-1]) < gamma


def gram_hash(grams: Tensor) -> Tensor:
    """[..., n] tokens -> [...] i64 that tells n-grams apart (two of a million differ but agree with odds of 10^-7)."""
    return Hashed(key=0, context=grams.shape[-1] - 1).pairs(grams)


def windows(tokens: Tensor, width: int) -> Tensor:
    """The last ``width`` tokens of [B, T] -> [B, width]; rows that have fewer are extended on the left by zeros."""
    missing = max(width - tokens.shape[1], 0)
    return torch.nn.functional.pad(tokens, (missing, 0))[:, tokens.shape[1] + missing - width :]


def repeated(tokens: Tensor, width: int) -> Tensor:
    """[B] bool: the last ``width`` tokens of [B, T] stood together earlier in the row."""
    if tokens.shape[1] <= width:
        return torch.zeros(len(tokens), dtype=torch.bool, device=tokens.device)
    earlier = tokens.unfold(1, width, 1)[:, :-1]
    return (earlier == tokens[:, None, -width:]).all(-1).any(-1)


class TokenRule(Rule):
    """A logit rule whose formula reads the tokens as well: ``(tokens [B, T], logits [B, V]) -> [B, V]``."""

    def mixed(self, tokens: Tensor, main: Tensor, *others: Tensor) -> Tensor:
        return self.formula(tokens, main, *others)


def needs_vocab(vocab: int | None, tokens: Any, scheme: str) -> int:
    """The width of the model's logits, which whoever permutes the vocabulary must know exactly."""
    remedy = "pass the width of the model's logits, model.config.vocab_size, not the tokenizer's length"
    if vocab is None:
        raise refuse(scheme, "vocab", "given, as its lists are drawn from the whole vocabulary", "None", remedy)
    largest = int(tokens.max()) if len(tokens) else 0
    if largest >= vocab:
        raise refuse(scheme, "vocab", f"more than the largest token id, {largest}", vocab, remedy)
    return vocab
