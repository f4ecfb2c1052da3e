"""What a model answers: the ``generate`` of the tests that build rows from it."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from plumbline.models import LM


@torch.no_grad()
def short_answers(lm: LM, prompts: Sequence[str], tokens: int = 6) -> list[str]:
    """The first sentence of each greedy answer."""
    said = []
    for prompt in prompts:
        ids = lm.tokenizer(prompt, return_tensors="pt", add_special_tokens=False).input_ids
        with lm.use() as model:
            out = model.generate(ids, attention_mask=torch.ones_like(ids), max_new_tokens=tokens, do_sample=False)
        text = lm.tokenizer.decode(out[0, ids.shape[1] :], skip_special_tokens=True)
        said.append(text.split(".")[0] + ".")
    return said
