"""A world for claims about retrieval: a Markov chain of common words, and many facts that are each told a few times."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from transformers import LlamaConfig, LlamaForCausalLM

from plumbline.kernels.seeds import forked, generator, rng

FIRST = 3  # ids below are pad, bos and eos
WORDS, SUBJECTS, SHARE = 32, 400, 0.2


@dataclass(frozen=True)
class RareFacts:
    """Text in which each subject, wherever it stands, is followed by one word of its own.

    Attributes:
        steps_of: [W, W] the chain over words. attribute: [S] the word that follows each subject.
    """

    steps_of: NDArray[np.float64]
    attribute: NDArray[np.int64]

    @classmethod
    def make(cls, seed: int = 0) -> RareFacts:
        r = rng(seed, "rare facts")
        return cls(r.dirichlet(np.full(WORDS, 0.2), WORDS), r.integers(0, WORDS, SUBJECTS))

    @property
    def vocab(self) -> int:
        return FIRST + WORDS + SUBJECTS

    def texts(self, n: int, length: int, seed: int) -> Tensor:
        """[n, length] ids: one token in five names a subject, its word follows, and the chain goes on from there."""
        r, cumulative = rng(seed, "texts"), self.steps_of.cumsum(-1)
        word, subject = r.integers(0, WORDS, n), np.full(n, -1)
        out = np.zeros((n, length), np.int64)
        for t in range(length):
            told = subject >= 0
            step = (cumulative[word] < r.random((n, 1))).sum(1).clip(0, WORDS - 1)
            named, drawn = (r.random(n) < SHARE) & ~told, r.integers(0, SUBJECTS, n)
            follows = np.where(told, self.attribute[subject.clip(0)], step)
            out[:, t] = FIRST + np.where(named, WORDS + drawn, follows)
            word, subject = np.where(named, word, follows), np.where(named, drawn, -1)
        return torch.from_numpy(out)

    def trained(self, texts: Tensor, seed: int = 0, *, steps: int = 200) -> LlamaForCausalLM:
        """A two-layer Llama that has read enough to know the chain, and too little to know the facts."""
        config = LlamaConfig(
            vocab_size=self.vocab, hidden_size=64, intermediate_size=128, num_hidden_layers=2, num_attention_heads=4,
            max_position_embeddings=192, initializer_range=0.3, pad_token_id=0, bos_token_id=1, eos_token_id=2,
        )  # fmt: skip
        with forked(seed, "rare facts"):
            model = LlamaForCausalLM(config)
        optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2, weight_decay=0.0)
        falling = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.0, steps)
        stream = generator(seed, "rare facts", "batches")
        for _ in range(steps):
            batch = texts[torch.randint(0, len(texts), (16,), generator=stream)]
            model(batch, labels=batch).loss.backward()
            optimizer.step()
            optimizer.zero_grad()
            falling.step()
        return model.eval()
