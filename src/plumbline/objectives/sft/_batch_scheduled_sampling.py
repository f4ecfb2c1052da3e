"""Batch-scheduled sampling: answers whose context is partly the model's own, and whose labels are the truth."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from typing import Any

import torch
from torch import Tensor

from plumbline.core.declare import Evidence, Paper, Positive, Probability, claim, function
from plumbline.core.errors import refuse
from plumbline.core.scored import IGNORED, Scored
from plumbline.kernels.cached_lm import CachedLM
from plumbline.kernels.notes import note
from plumbline.kernels.seeds import generator as stream
from plumbline.lab.previous_token import ShortcutNet, survives


@function(
    paper=Paper(
        "Bridging the Training-Inference Gap in LLMs by Leveraging Self-Generated Tokens",
        "Cen et al.",
        2024,
        arxiv="2410.14655",
    ),
    says="Mix a frozen copy's own tokens into the answers that a model is trained on, and keep the true labels.",
    differs=(
        "rate and temperature are judgement: the paper's values were not recovered and no official code was found.",
        "An end, begin or pad token is neither replaced nor drawn: no generation goes on after one.",
    ),
)
def batch_scheduled_sampling(
    model: Any, input_ids: Tensor, labels: Tensor, attention_mask: Tensor | None = None, *, rate: Probability = 0.2,
    temperature: Positive = 1.0, one_pass: bool = False, keep: Sequence[int] | None = None,
    generator: torch.Generator | None = None,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    r"""Inputs in which a share ``rate`` of the answer's tokens are the model's own.

    .. math:: \tilde x_t = y_t \text{ with probability } 1 - rate, \quad
              \text{else } \hat y_t \sim \pi(\cdot \mid x, \tilde x_{<t})

    Train on :math:`\tilde x` with the labels as they are. Use a **frozen** copy, renewed once a stage (an epoch, say):
    sampled from the live model, tokens become right as it learns and teach nothing (see the claim).

    Args:
        model: the frozen copy: a transformers causal LM in eval mode, an ``LM``, or a function of prefixes
            [B, t] -> next-token logits [B, V] (an engine's; it gets rows that begin at their first token).
        input_ids: [B, L], padded on either side. labels: [B, L], -100 on what is not the answer.
        attention_mask: [B, L], 0 on padding; None: nothing is padding.
        temperature: of the draws. keep: ids that stay; default the model's bos, eos and pad.
        one_pass: draw given the true answer so far, :math:`\pi(\cdot \mid x, y_{<t})`: one pass, not one a column.

    Returns:
        (inputs [B, L], mask [B, L] bool of the positions drawn from the model, whether or not they equal y). Warns
        where under 1% of at least 100 drawn tokens differ from y: training on them is plain SFT.

    Raises:
        InputError: shapes differ, a hole in the attention mask, a model in training mode.
    """
    mask = torch.ones_like(input_ids) if attention_mask is None else attention_mask
    if not input_ids.shape == labels.shape == mask.shape:
        got = [list(input_ids.shape), list(labels.shape), list(mask.shape)]
        raise refuse("batch_scheduled_sampling", "labels", "[B, L] like input_ids and attention_mask", got,
                     "pass the batch as collated")  # fmt: skip
    if getattr(model, "training", False):
        raise refuse("batch_scheduled_sampling", "model", "a frozen copy in eval mode", "training mode",
                     "pass copy.deepcopy(model).eval()")  # fmt: skip
    places = torch.arange(input_ids.shape[1], device=input_ids.device)
    turned = (places + mask.bool().long().argmax(1, keepdim=True)) % len(places)  # rows begin at their first token
    text, real, answer = input_ids.gather(1, turned), mask.gather(1, turned).bool(), labels.gather(1, turned) != IGNORED
    if bool((real[:, 1:] > real[:, :-1]).any()):
        raise refuse("batch_scheduled_sampling", "attention_mask", "padding at one end of each row", "a hole in a row",
                     "pad on the left or on the right")  # fmt: skip
    fixed = torch.tensor(_special(model) if keep is None else list(keep), dtype=torch.long, device=text.device)
    where = "cpu" if generator is None else generator.device
    u = torch.rand(text.shape, generator=generator, device=where).to(text.device)
    chosen = (u < rate) & real & answer & ~torch.isin(text, fixed) & (places > 0)
    mixed, own = _drawn(model, text, chosen, fixed, one_pass, temperature, generator)
    back = torch.empty_like(turned).scatter_(1, turned, places.expand_as(turned))
    _report(int(own.sum()), int((own & (mixed != text)).sum()))
    return mixed.gather(1, back), own.gather(1, back)


def _special(model: Any) -> list[int]:
    """The begin, end and pad ids that a model's configurations name."""
    inner = model.model if hasattr(model, "use") else model
    configs = [getattr(inner, name, None) for name in ("config", "generation_config")]
    told = [getattr(c, f"{name}_token_id", None) for c in configs for name in ("bos", "eos", "pad")]
    return [i for t in told if t is not None for i in (t if isinstance(t, (list, tuple)) else [t])]


def _drawn(
    model: Any, text: Tensor, chosen: Tensor, fixed: Tensor, one_pass: bool, temperature: float,
    generator: torch.Generator | None,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """Rows [B, L] that begin at column 0, and where they changed. What follows a row's end is never seen."""
    own, mixed = torch.zeros_like(chosen), text.clone()
    plain = callable(model) and not hasattr(model, "config")
    if one_pass and not plain:
        with torch.no_grad(), model.use() if hasattr(model, "use") else nullcontext(model) as opened:
            scored = Scored.of(opened, text, mask=chosen, labels=text)
            drawn = scored.sample(1, generator=generator, temperature=temperature)[..., 0]
        own[:, 1:] = chosen[:, 1:] & ~torch.isin(drawn, fixed)
        mixed[:, 1:] = torch.where(own[:, 1:], drawn, text[:, 1:])
        return mixed, own
    lm: Callable[[Tensor], Tensor] = model if plain else CachedLM(model, -1)
    for t in chosen.any(0).nonzero().flatten().tolist():
        p = (lm((text if one_pass else mixed)[:, :t]).float() / temperature).softmax(-1)
        where = p.device if generator is None else generator.device
        drawn = torch.multinomial(p.to(where), 1, generator=generator)[:, 0].to(text.device)
        own[:, t] = chosen[:, t] & ~torch.isin(drawn, fixed)
        mixed[:, t] = torch.where(own[:, t], drawn, text[:, t])
    return mixed, own


def _report(replaced: int, differ: int) -> None:
    share = differ / max(1, replaced)
    note(self_generated_tokens=replaced, self_generated_differ=share)
    if replaced >= 100 and share < 0.01:
        said = f"{differ} of {replaced} drawn tokens differ from the answer: this is SFT; use an earlier copy"
        warnings.warn(f"batch_scheduled_sampling: {said}", stacklevel=3)


@claim(
    batch_scheduled_sampling,
    "Trained on an early frozen copy's tokens, the model survives wrong previous tokens; a later copy helps less, and "
    "tokens of the live model not at all: this is why the method is offline.",
    cost="cpu:25s",
)
def an_early_frozen_copy_teaches() -> Evidence:
    """The controls are plain SFT and the live model, which both stay near chance (0.05)."""

    def arm(frozen_at: int | None, rate: float) -> list[float]:
        how = {"rate": rate, "generator": stream(0, "batch_scheduled_sampling")}

        def mix(net: ShortcutNet, ids: Tensor, labels: Tensor) -> Tensor:
            return batch_scheduled_sampling(net.next, ids, labels, **how)[0]

        return [survives(mix, frozen_at=frozen_at, steps=500, seed=seed) for seed in range(3)]

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # a live copy is soon right: that is what is shown
        plain, early, late, live = arm(0, 0.0), arm(40, 0.2), arm(80, 0.2), arm(None, 0.2)
    found = {"plain SFT": plain, "copy of step 40": early, "copy of step 80": late, "live model": live}
    gains = all(e - p >= 0.1 and e > later for e, p, later in zip(early, plain, late))
    return Evidence(gains, found, control=max(plain) < 0.1 and max(live) < 0.1)
