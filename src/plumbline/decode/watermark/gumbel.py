"""What the two Gumbel watermarks share: the sampling distribution, the keyed numbers, and generate's settings."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from plumbline.decode.watermark.keys import Scheme, windows
from plumbline.kernels.vocab import log_probs

HEAD = 1024


def sampling_settings() -> dict[str, Any]:
    """Arguments for ``generate`` that leave a Gumbel rule's own temperature and nucleus as they are."""
    return {"do_sample": True, "temperature": 1.0, "top_p": 1.0, "top_k": 0, "num_beams": 1}


def nucleus(logits: Tensor, temperature: float, top_p: float) -> Tensor:
    """Log-probabilities [B, V] f64 at the temperature, of the fewest likeliest tokens that hold ``top_p``; -inf beyond.

    The rule of transformers' ``TopPLogitsWarper``. A user's rule runs before generate's own warpers, and the numbers
    must meet the distribution that is sampled from: hence temperature and nucleus are in here.
    """
    logp = log_probs(logits.double() / temperature)
    if top_p >= 1:
        return logp
    for k in (min(HEAD, logp.shape[-1]), logp.shape[-1]):  # most nuclei are small, and sorting all V costs most of it
        ranked, order = logp.topk(k)
        p = ranked.exp()
        if bool((p.sum(-1) >= top_p).all()):
            break
    inside = p.cumsum(-1) - p < top_p
    inside[:, 0] = True
    outside = torch.ones_like(logp, dtype=torch.bool).scatter(1, order, ~inside)
    return log_probs(logp.masked_fill(outside, -torch.inf))


def numbers(keyed: Scheme, tokens: Tensor, vocab: int) -> Tensor:
    """The keyed numbers r [B, V] f64 in (0, 1) of every token that may follow [B, T]."""
    return keyed.uniforms(windows(tokens, keyed.window), vocab)
