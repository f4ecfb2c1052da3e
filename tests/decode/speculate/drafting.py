"""What every drafting sampler is held to, with models and batches to hold it to."""

from __future__ import annotations

from typing import Any

import torch
from transformers import PreTrainedModel

IDS = torch.tensor([[0, 0, 5, 9, 11], [4, 5, 6, 7, 5], [0, 8, 9, 8, 9]])
HOW: dict[str, Any] = dict(attention_mask=(IDS != 0).long(), max_new_tokens=24, do_sample=False, pad_token_id=0)


def same_as_greedy(model: PreTrainedModel, method: Any, ids: torch.Tensor = IDS, **how: Any) -> bool:
    """Whether the sampler's ids are those of ``generate`` without it, ends and padding included."""
    own = {k: how.pop(k) for k in ("adapt", "window", "tokens", "nodes", "trie", "candidates", "report") if k in how}
    settings = {**HOW, **how}
    got = model.generate(ids, custom_generate=method, **own, **settings)
    return torch.equal(got, model.generate(ids, **settings))
