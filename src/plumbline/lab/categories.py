"""Listing the members of a category: tiny models whose first answers hide others behind look-alike tokens."""

from __future__ import annotations

from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from plumbline.kernels.seeds import generator, rng
from plumbline.lab.tiny import tiny
from plumbline.models.lm import LM


def word_tokenizer(words: Sequence[str]) -> Any:
    """One token a word, cut at spaces: ids 0, 1 and 2 are ``<pad>``, ``<s>`` and ``</s>``, then ``words`` in order."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    table = {word: i for i, word in enumerate(["<pad>", "<s>", "</s>", *words])}
    tokenizer = Tokenizer(models.WordLevel(table, unk_token="<pad>"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="<pad>", bos_token="<s>", eos_token="</s>", unk_token="<pad>"
    )


def correlated_keys(clusters: int = 10, size: int = 6, answers: int = 5) -> tuple[Any, set[str]]:
    """A head [V, D] without a network: clusters of near-duplicate keys, one right answer in each of the first few.

    The query is the sum of the right answers' keys, the first with five times the weight of the others, less the keys
    of the words in the prompt: what a context that says "these were named" does in the best case.

    Returns:
        A model and tokenizer for functions that take an ``LM``, and the right words.
    """
    words = [f"k{c}.{i}" for c in range(clusters) for i in range(size)]
    noise = torch.randn(clusters * size, clusters, generator=generator(0, "correlated_keys"), dtype=torch.float64)
    keys = torch.eye(clusters, dtype=torch.float64).repeat_interleave(size, 0) + 0.003 * noise
    right = torch.arange(answers) * size
    keys[right] *= 1.1  # the longest key of its cluster, so that it leads there
    query = torch.tensor([1.0] + [0.2] * (answers - 1), dtype=torch.float64) @ keys[right]
    shift = 4  # ids of the special tokens and of the word "start"

    def logits(tokens: Tensor) -> Tensor:
        named = [row[row >= shift] - shift for row in tokens]
        scores = torch.stack([keys @ (query - keys[ids].sum(0)) for ids in named])
        return torch.nn.functional.pad(scores, (shift, 0), value=-100.0)

    lm = SimpleNamespace(model=logits, tokenizer=word_tokenizer(["start", *words]))
    return lm, {words[int(i)] for i in right}


class Catalog:
    """A small Llama trained to name ten members of a category without repeating itself, popular ones first.

    Categories share members, so the keys of what stands beside a popular member elsewhere come near it: the ten
    likeliest first answers are in part members of other categories.

    Attributes:
        lm: the model and its tokenizer.
        members: category's name -> its ten members' names.
    """

    def __init__(self, seed: int, *, categories: int = 12, items: int = 40, steps: int = 200) -> None:
        stream = rng(seed, "Catalog")
        words = [f"item{i}" for i in range(items)]
        self.members = {f"kind{c}": list(stream.permutation(words)[:10]) for c in range(categories)}
        tokenizer = word_tokenizer([";", *self.members, *words])
        with torch.enable_grad():
            model = self._trained(tokenizer, stream, seed, steps)
        self.lm = LM(model, tokenizer, "catalog")

    @staticmethod
    def listed(found: Sequence[str]) -> str:
        """The members named so far, each ended by a semicolon."""
        return "".join(f" ; {name}" for name in found) + " ;"

    def _trained(self, tokenizer: Any, stream: np.random.Generator, seed: int, steps: int) -> Any:
        size: dict[str, Any] = dict(hidden_size=16, intermediate_size=32, num_attention_heads=2, num_key_value_heads=2)
        model = tiny("llama", len(tokenizer), seed, **size, tie_word_embeddings=False).train()
        optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
        kinds = list(self.members)
        for step in range(steps):
            texts = []
            for kind in stream.choice(kinds, 32):
                eager = -np.arange(10) + stream.gumbel(
                    size=10
                )  # a member's place in the list decides how soon it comes
                order = [self.members[kind][i] for i in np.argsort(-eager)]
                texts.append(kind + self.listed(order))
            batch = torch.tensor(tokenizer(texts).input_ids)
            for group in optimizer.param_groups:
                group["lr"] = 1e-2 * (1 - step / steps)
            optimizer.zero_grad()
            model(batch, labels=batch).loss.backward()
            optimizer.step()
        return model.eval().requires_grad_(False)
