"""A class-conditional language model as a running Bayes classifier of a text and of every token that may follow it."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from plumbline.core.errors import refuse
from plumbline.kernels.cached_lm import CachedLM
from plumbline.kernels.peer import Peer
from plumbline.kernels.vocab import log_probs

_FAR = 1e4  # nats: a token that one class rules out, and no sum of them overflows
_COLUMNS = 64  # of a prompt scored at a time, so that [B, columns, V] logits stay small


class ClassPosterior(Peer):
    r"""Log-probability [B, V] that the text belongs to the desired class once token v follows it.

    .. math::

        R_t = \sum_{i \le t} \bigl[\log p(x_i \mid c^+, x_{<i}) - \log p(x_i \mid c^-, x_{<i})\bigr],\qquad
        \log P^+(v) = \log \sigma\Bigl(scale\,\frac{R_T + r(v)}{T + 1} + bias\Bigr)

    r(v) is the term of v as the next token. The log-ratios of a row's tokens are kept with its prefix, so that a call
    costs the tokens that are new: rows that changed places (beams), were cut (a rejected draft) or begin anew find
    what they share with the call before and nothing else. A token that both classes rule out is no evidence.

    Args:
        discriminator: a causal LM trained on texts that begin with their class's code, or a ``Peer`` around one.
        codes: token ids of the desired and of the undesired class, put before the first token of a row.
        topic: [K] ids that follow the code in both classes.
        per_token: divide by T + 1, as the paper does; else the exact posterior at scale 1.
    """

    def __init__(
        self, discriminator: Any, codes: tuple[int, int], topic: Tensor | None = None, *, scale: float = 1.0,
        bias: float = 0.0, per_token: bool = True,
    ) -> None:  # fmt: skip
        self.inner = discriminator if isinstance(discriminator, Peer) else Peer(discriminator)
        super().__init__(self._posterior, padded_vocab=self.inner.padded_vocab)
        self.topic = torch.empty(0, dtype=torch.long) if topic is None else topic.flatten()
        self.codes, self.scale, self.bias, self.per_token = codes, scale, bias, per_token
        if codes[0] == codes[1]:
            raise refuse("gedi", "undesired", "another token than desired", codes[1], "give each class its own code")
        if isinstance(self.inner.lm, CachedLM):
            rows = self.inner.lm.model.get_input_embeddings().weight.shape[0]
            if max(codes) >= rows:
                raise refuse("gedi", "desired and undesired", f"ids below {rows}, the discriminator's vocabulary",
                             list(codes), "encode the codes with its tokenizer")  # fmt: skip
        self._seen: tuple[Tensor, Tensor, Tensor] | None = None

    def begin(self, tokens: Tensor) -> None:
        """A new generation from these main prompts [B, L]."""
        self._seen = None
        self.inner.begin(tokens)

    def _posterior(self, tokens: Tensor) -> Tensor:
        lm = self.inner.lm
        if isinstance(lm, CachedLM) and lm.device != tokens.device and not self.inner.across_devices:
            raise refuse("gedi", "discriminator", f"on the main model's device, {tokens.device}", str(lm.device),
                         "move it there, or pass Peer(model, across_devices=True)")  # fmt: skip
        read, real = self._coded(*self.inner.reads(tokens))
        ratio, following = self._scored(read, real)
        self._seen = (read[: len(tokens)].clone(), real[: len(tokens)], ratio)
        count = real[: len(tokens)].sum(1, keepdim=True)  # the code counts in place of the token that is to come
        evidence = self.scale * (ratio.sum(1, keepdim=True) + following)
        return torch.nn.functional.logsigmoid((evidence / count if self.per_token else evidence) + self.bias)

    def _coded(self, ids: Tensor, mask: Tensor | None) -> tuple[Tensor, Tensor]:
        """[2B, W] ids and mask: padding, code, topic, text; the desired class first."""
        if mask is None:  # the leading run of the pad token is padding, as CachedLM has it
            pad = getattr(self.inner.lm, "pad_token_id", None)
            mask = torch.ones_like(ids) if pad is None else ((ids != pad).cumsum(1) > 0).long()
        starts = (mask == 0).sum(1, keepdim=True)  # the column of the code
        at = torch.arange(1 + len(self.topic) + ids.shape[1], device=ids.device)[None]
        real = at >= starts
        halves = []
        for code in self.codes:
            head = torch.cat([torch.tensor([code]), self.topic.cpu()]).to(ids)
            # the padding moves in front of the code; the text stays where it is
            source = torch.where(at < starts, at + len(head), torch.where(at < starts + len(head), at - starts, at))
            halves.append(torch.cat([head.expand(len(ids), -1), ids], 1).gather(1, source))
        return torch.cat(halves), torch.cat([real, real])

    def _scored(self, read: Tensor, real: Tensor) -> tuple[Tensor, Tensor]:
        """Log-ratios of every column [B, W], and of every token that may come next [B, V]."""
        rows, width = len(read) // 2, read.shape[1]
        ratio, end = self._known(read[:rows], real[:rows])
        first = int((~real).sum(1).max()) + 1  # from here on every row has a token to be read
        following: Tensor | None = None
        while following is None or end < width:
            start, end = end, min(width, max(end + _COLUMNS, first))
            n = min(end - start + 1, end)
            logps = log_probs(self._many(read[:, :end], n, real[:, :end]))
            terms = (logps[:rows] - logps[rows:]).nan_to_num(0.0, _FAR, -_FAR).clamp(-_FAR, _FAR)
            said = slice(end - n + 1, end)
            found = terms[:, :-1].gather(-1, read[:rows, said, None])[..., 0]
            ratio = ratio.to(terms.dtype)
            ratio[:, said] = found.where(real[:rows, end - n : end - 1], torch.zeros_like(found))
            following = terms[:, -1]
        return ratio, following

    def _known(self, read: Tensor, real: Tensor) -> tuple[Tensor, int]:
        """Log-ratios [B, W] of the columns that every row shares with some row of the call before, and their number."""
        ratio = torch.zeros(read.shape, device=read.device)
        if self._seen is None:
            return ratio, 0
        old_read, old_real, old_ratio = self._seen
        n = min(old_read.shape[1], read.shape[1])
        same = old_real[:, None, :n] == real[None, :, :n]
        same &= (old_read[:, None, :n] == read[None, :, :n]) | ~real[None, :, :n]
        shared, row = same.long().cumprod(-1).sum(-1).max(0)
        kept = int(shared.min())
        ratio = ratio.to(old_ratio.dtype)
        ratio[:, :kept] = old_ratio[row, :kept]
        return ratio, kept

    def _many(self, read: Tensor, n: int, real: Tensor) -> Tensor:
        """Logits [2B, n, V] at the last ``n`` columns."""
        lm = self.inner.lm
        if isinstance(lm, CachedLM):
            return lm.many(read, n, real)
        width = read.shape[1]
        return torch.stack([lm(read[:, : width - n + 1 + i]) for i in range(n)], 1)
