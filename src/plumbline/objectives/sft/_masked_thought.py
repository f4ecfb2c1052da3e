"""Masked Thought: hide part of the answer from the model while it is taught all of it."""

from __future__ import annotations

from functools import partial
from typing import Annotated

import torch
from torch import Tensor

from plumbline.core.declare import Bound, Evidence, Paper, Probability, claim, function
from plumbline.core.errors import refuse
from plumbline.core.scored import IGNORED
from plumbline.kernels.notes import note
from plumbline.kernels.seeds import generator as stream
from plumbline.lab.previous_token import MASK, accuracy, rows, taught


@function(
    paper=Paper(
        "Masked Thought: Simply Masking Partial Reasoning Steps Can Improve Mathematical Reasoning Learning of "
        "Language Models",
        "Chen et al.",
        2024,
        arxiv="2403.02178",
    ),
    says="Replace random answer tokens of the input by a mask and keep every label, so that the question must be read.",
    differs=(
        "The step comes from the trainer; the official collator counts its own calls, which data workers make wrong.",
        "warmup counts optimizer steps: the official 75000 calls with 16 accumulated batches are 4688 of them.",
        "A random rate warms up as well; in the official code it switches the warm-up off.",
        "The mask is attended to, as in the paper; its drop_mask option is attention_mask & (input_ids != mask_id).",
    ),
)
def masked_thought(
    input_ids: Tensor, labels: Tensor, *, mask_id: Annotated[int, Bound(ge=0)], step: Annotated[int, Bound(ge=0)],
    rate: Probability = 0.2, warmup: Annotated[int, Bound(ge=0)] = 4688, random_rate: bool = False,
    replace_random: Probability = 0.0, vocab_size: Annotated[int, Bound(ge=1)] | None = None,
    generator: torch.Generator | None = None,
) -> Tensor:  # fmt: skip
    r"""The inputs with a share :math:`p_s` of their answer tokens hidden.

    .. math:: \tilde x_t = \begin{cases} mask & u_t < p_s,\ t \text{ in the answer} \\ x_t & \text{else} \end{cases}
              \qquad p_s = rate \cdot \min(1, step / warmup)

    The labels stay as they are: hidden tokens are predicted like all others. Prompt and padding are never touched.

    Args:
        input_ids: [B, L], padded on either side. labels: [B, L], -100 on prompt and padding, unshifted.
        mask_id: the tokenizer's mask or pad id, or a new token's; where the text holds it (an EOS that is also the
            pad) it stays.
        step: optimizer steps taken. warmup: steps over which the rate rises from 0; 0 for the full rate at once.
        rate: the largest share, 0.2 for MetaMath and MAmmoTH (the paper uses 0.4 on GSM8K alone).
        random_rate: multiply :math:`p_s` by a uniform number, one for the batch.
        replace_random: share of the hidden tokens that become a random id below ``vocab_size`` instead of the mask.
        generator: where the draws come from; on the device of ``input_ids`` or on the CPU.

    Returns:
        [B, L] ids of the same dtype, a new tensor.

    Raises:
        InputError: shapes differ, or random ids are wanted without a vocabulary size.
    """
    if input_ids.shape != labels.shape:
        got = f"{list(labels.shape)} for input_ids {list(input_ids.shape)}"
        raise refuse("masked_thought", "labels", "of the shape of input_ids", got, "pass the batch as collated")
    if replace_random > 0 and vocab_size is None:
        raise refuse("masked_thought", "vocab_size", "given where replace_random > 0", None, "pass len(tokenizer)")
    where = "cpu" if generator is None else generator.device

    def uniform(*shape: int) -> Tensor:
        return torch.rand(shape, generator=generator, device=where).to(input_ids.device)

    now = rate * (min(1.0, step / warmup) if warmup else 1.0)
    now = now * float(uniform(1)) if random_rate else now
    hidden = (labels != IGNORED) & (input_ids != mask_id) & (uniform(*input_ids.shape) < now)
    changed = torch.where(hidden, mask_id, input_ids)
    if replace_random > 0:
        drawn = (uniform(*input_ids.shape) * vocab_size).to(input_ids.dtype)
        changed = torch.where(hidden & (uniform(*input_ids.shape) < replace_random), drawn, changed)
    note(mask_rate=now)
    return changed


@claim(
    masked_thought,
    "Where the previous token gives the answer away, masking makes the model read the question as well: it survives "
    "wrong previous tokens, and loses nothing on right ones.",
    cost="cpu:10s",
)
def the_question_is_read() -> Evidence:
    ids, labels = rows()
    found: dict[str, list[float]] = {}
    for seed in range(3):
        for name, rate in (("masked", 0.2), ("plain", 0.0)):
            g = stream(seed, "masked_thought")
            hide = partial(masked_thought, ids, labels, mask_id=MASK, step=0, rate=rate, warmup=0, generator=g)
            net = taught(lambda _net, _step, hide=hide: hide(), steps=600, seed=seed)
            for told, noise in (("wrong", True), ("right", False)):
                found.setdefault(f"{name}, {told} previous tokens", []).append(accuracy(net, noise=noise))
    masked, plain = found["masked, wrong previous tokens"], found["plain, wrong previous tokens"]
    clean = min(found["masked, right previous tokens"]) > 0.99
    return Evidence(min(m - p for m, p in zip(masked, plain)) >= 0.1 and clean, found, control=max(plain) < 0.15)
