"""A tiny engine whose samples, and whose log-probabilities of them, are what a file of rollouts holds."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from plumbline.kernels.divergence import forward_kl, log_probs
from plumbline.kernels.files import write_text
from plumbline.kernels.seeds import generator
from plumbline.lab.tiny import tiny
from plumbline.lab.tiny_tokenizer import tiny_tokenizer
from plumbline.models.lm import LM

PROMPT = 6  # tokens


def engine(seed: int = 0) -> LM:
    """A tiny random Llama with a byte-level tokenizer."""
    tokenizer = tiny_tokenizer()
    return LM(tiny("llama", vocab=len(tokenizer), seed=seed), tokenizer, "tiny")


@torch.no_grad()
def engine_rollouts(
    lm: LM, path: Path, *, prompts: int = 30, samples: int = 2, length: int = 16, temperature: float = 1.0,
    told: float | None = None, top_k: int | None = None, support: bool = False, seed: int = 0,
) -> Tensor:  # fmt: skip
    """Draw ``samples`` answers of ``length`` tokens to each of ``prompts`` random prompts and write them as JSONL.

    Log-probabilities are of the distribution that was drawn from: after temperature, over the kept tokens.

    Args:
        told: the temperature that the file states, the true one when None. support: write the kept ids.

    Returns:
        Ids [prompts * samples, PROMPT + length].
    """
    g = generator(seed, "engine_rollouts")
    ids = torch.randint(3, 300, (prompts, PROMPT), generator=g).repeat_interleave(samples, 0)
    logps, kept = [], []
    for _ in range(length):
        z = lm.model(ids).logits[:, -1].float() / temperature
        top = z.topk(z.shape[-1] if top_k is None else top_k, -1)
        inside = log_probs(top.values)
        drawn = torch.multinomial(inside.exp(), 1, generator=g)
        ids = torch.cat([ids, top.indices.gather(-1, drawn)], 1)
        logps.append(inside.gather(-1, drawn)[:, 0])
        kept.append(top.indices)
    rows: list[dict[str, Any]] = []
    for i, row in enumerate(ids.tolist()):
        told_of = {"prompt_ids": row[:PROMPT], "completion_ids": row[PROMPT:]}
        told_of |= {"sampler_logps": [float(p[i]) for p in logps]}
        told_of |= {"temperature": temperature if told is None else told}
        rows.append(told_of | ({"support": [k[i].tolist() for k in kept]} if support else {}))
    write_text(path, "".join(json.dumps(row) + "\n" for row in rows))
    return ids


@torch.no_grad()
def exact_kl(lm: LM, ids: Tensor, temperature: float) -> float:
    """Mean KL of the model at ``temperature`` to the model, in nats a token, at the positions of the answers."""
    z = lm.model(ids).logits[:, PROMPT - 1 : -1].flatten(0, 1).double()
    return float(forward_kl(z / temperature, z).mean())
