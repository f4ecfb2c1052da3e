"""Rows for masked diffusion: responses filled up to a length, positions hidden at a random rate, and the way back."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from plumbline.core.errors import refuse
from plumbline.core.scored import IGNORED

LEAST = 1e-3  # the smallest masking rate of LLaDA's guidelines
Filled = tuple[Tensor, Tensor]  # ids [n] and where they are padding [n]


def noised(
    ids: Tensor, response: Tensor, mask_id: int, *, least: float = LEAST, generator: torch.Generator | None = None
) -> dict[str, Tensor]:
    r"""A noisy batch: one rate a row, :math:`q = (1 - least)\,t + least,\ t \sim U(0, 1)`, one draw a position.

    Args:
        ids: [B, L] clean. response: [B, L] bool, what may be hidden: all but the prompt, end and padding included.
        mask_id: what hides a token. generator: where the draws come from.

    Returns:
        ``input_ids`` (noisy), ``labels`` (-100 where nothing is hidden), ``mask_prob`` (q on the response, 0 on the
        prompt; float32) and ``attention_mask`` (all 1), each [B, L]: a stream's columns, and the roles of
        ``masked_diffusion``. In a row of n that may be hidden, none is with probability about 1 / (n + 1): its loss is
        0, and ``fit`` leaves it out of the mean over rows.
    """
    if ids.shape != response.shape or ids.dim() != 2:
        got = f"{list(ids.shape)} and {list(response.shape)}"
        raise refuse("noised", "response", "[B, L] as ids", got, "mark what may be hidden")
    if bool((ids == mask_id).any()):
        raise refuse("noised", "ids", f"free of the mask id {mask_id}", "a text that holds it", "pass clean ids")
    where = "cpu" if generator is None else generator.device
    t = torch.rand(len(ids), 1, generator=generator, device=where).to(ids.device)
    rate = torch.where(response, (1 - least) * t + least, 0.0)
    hidden = torch.rand(ids.shape, generator=generator, device=where).to(ids.device) < rate
    labels = torch.where(hidden, ids, IGNORED)
    noisy = torch.where(hidden, mask_id, ids)
    return {"input_ids": noisy, "labels": labels, "mask_prob": rate, "attention_mask": torch.ones_like(ids)}


def filled_rows(rows: Sequence[Mapping[str, Any]], length: int, fill: Callable[..., Filled]) -> tuple[Tensor, Tensor]:
    """Prompts and responses as clean rows of one length.

    Args:
        rows: ``prompt_ids`` and ``response_ids`` (without an end) of each row.
        length: L, of every row. fill: ``(response, length=) -> (ids, padding)``, for instance
            ``partial(rainbow_padding, eos_id=..., pad_ids=...)``.

    Returns:
        (ids [B, L], response [B, L] bool: False on the prompt): what ``noised`` takes.

    Raises:
        InputError: a prompt that leaves no room.
    """
    ids = torch.empty(len(rows), length, dtype=torch.long)
    response = torch.ones_like(ids, dtype=torch.bool)
    for i, row in enumerate(rows):
        prompt = torch.as_tensor(row["prompt_ids"], dtype=torch.long)
        room = length - len(prompt)
        if room < 1:
            raise refuse("filled_rows", "length", f"above the prompt's {len(prompt)} tokens", length, "raise it")
        ids[i] = torch.cat([prompt, fill(row["response_ids"], length=room)[0]])
        response[i, : len(prompt)] = False
    return ids, response


def cut_response(ids: Sequence[int] | Tensor, *, eos_id: int, pad_ids: Sequence[int] = ()) -> list[int]:
    """A decoded response [n] as its tokens: up to the first end, without padding; empty if it begins with padding."""
    row = ids.tolist() if isinstance(ids, Tensor) else list(ids)
    row, pads = row[: row.index(eos_id)] if eos_id in row else row, set(pad_ids)
    return [] if row and row[0] in pads else [token for token in row if token not in pads]


def padding_tokens(model: Any, tokenizer: Any, count: int = 7) -> list[int]:
    """``count`` ids for padding: reserved ones where the tokenizer has as many, else new rows at the mean embedding.

    Changes model and tokenizer in place: new rows are added to the embeddings and to the output head. Asked again, it
    returns the same ids and leaves their rows as they have become.
    """
    reserved = sorted(i for token, i in tokenizer.get_vocab().items() if "reserved" in token.lower())
    reserved = [i for i in reserved if i < model.get_input_embeddings().weight.shape[0]]
    if len(reserved) >= count:
        return reserved[:count]
    names = [f"<|pad_{i}|>" for i in range(count)]
    new = [name for name in names if name not in tokenizer.get_vocab()]
    if new:
        tokenizer.add_special_tokens({"additional_special_tokens": new}, replace_extra_special_tokens=False)
        _at_the_mean(model, tokenizer.convert_tokens_to_ids(new))
    return tokenizer.convert_tokens_to_ids(names)


@torch.no_grad()
def _at_the_mean(model: Any, ids: list[int]) -> None:
    """Rows ``ids`` of embedding and head as the mean of those before them; both grow where they are too short."""
    rows = model.get_input_embeddings().weight.shape[0]
    if max(ids) >= rows:
        model.resize_token_embeddings(max(ids) + 1, mean_resizing=False)
    for module in (model.get_input_embeddings(), model.get_output_embeddings()):
        known = module.weight[: min(rows, min(ids))]
        module.weight[ids] = known.float().mean(0).to(known.dtype)
