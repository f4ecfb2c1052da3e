"""Rainbow Padding: what follows a response's end is a cycle of several pad tokens, not the end again and again."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

import torch
from torch import Tensor

from plumbline.core.declare import Bound, Count, Evidence, Paper, claim, function
from plumbline.core.errors import refuse
from plumbline.kernels.notes import note


@function(
    paper=Paper(
        "Rainbow Padding: Mitigating Early Termination in Instruction-Tuned Diffusion LLMs",
        "Kim et al.",
        2025,
        arxiv="2510.03680",
    ),
    says="Fill a masked-diffusion row behind its end with a cycle of distinct pads, so that no late token is certain.",
    differs=("A response that leaves no room for its end is cut and gets none; the paper does not say.",),
)
def rainbow_padding(
    response_ids: Sequence[int] | Tensor, *, length: Count, eos_id: Annotated[int, Bound(ge=0)],
    pad_ids: Sequence[int], mask_id: int | None = None,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    r"""One response of exactly ``length`` tokens.

    .. math:: y_1 \dots y_n\; eos\; p_0\, p_1 \dots p_{K-1}\, p_0 \dots

    Train on it with ``masked_diffusion``, pads included (``noising.filled_rows`` and ``noising.noised`` make the
    batch, ``noising.padding_tokens`` the ids). Decoding is unchanged; ``noising.cut_response`` cuts what it wrote.

    Args:
        response_ids: [n] ids without an end. length: L, what the row has room for behind its prompt.
        eos_id: the one end. pad_ids: K distinct ids (the paper: 7 are enough); ``[eos_id]`` is padding by ends, which
            this replaces. mask_id: the diffusion's mask; given, it is refused as a pad.

    Returns:
        (ids [L], padding [L] bool: behind the end). ``n > L - 1``: the first L tokens and no end (noted as
        ``rainbow_truncated``).

    Raises:
        InputError: pads that repeat, or equal the end (unless alone) or the mask; a response that holds a pad.
    """
    pads = [int(i) for i in pad_ids]
    wrong = len(set(pads)) < len(pads) or (eos_id in pads and len(pads) > 1) or mask_id in pads or not pads
    if wrong:
        raise refuse("rainbow_padding", "pad_ids", f"distinct ids, none of them eos {eos_id} or mask {mask_id}", pads,
                     "reserve ids with noising.padding_tokens")  # fmt: skip
    text = torch.as_tensor(response_ids, dtype=torch.long)
    if bool(torch.isin(text, torch.tensor([*pads, eos_id], device=text.device)).any()):
        raise refuse("rainbow_padding", "response_ids", "free of pads and ends", "a response that holds one",
                     "pass the bare response")  # fmt: skip
    room = length - len(text) - 1
    note(rainbow_truncated=float(room < 0))
    if room < 0:
        return text[:length].clone(), torch.zeros(length, dtype=torch.bool, device=text.device)
    cycle = torch.tensor(pads, device=text.device).repeat(-(-room // len(pads)))[:room]
    ids = torch.cat([text, torch.tensor([eos_id], device=text.device), cycle])
    return ids, torch.arange(length, device=text.device) > len(text)


def _masses(lengths: range, length: int, pads: Sequence[int]) -> Tensor:
    """[L, 10]: how likely each id is at each place, lengths uniform; id 0 is content, 1 the end, 2 to 8 pads."""
    rows = [rainbow_padding([0] * n, length=length, eos_id=1, pad_ids=pads)[0] for n in lengths]
    return torch.nn.functional.one_hot(torch.stack(rows), 10).double().mean(0)


@claim(
    rainbow_padding,
    "Under padding by ends, a late place of a fully masked row is certainly an end and is committed first; under a "
    "cycle of seven pads each has mass 1/7 there, and content is committed first.",
    cost="cpu:2s",
)
def no_late_token_is_certain() -> Evidence:
    """A decoder that commits the most confident place first, on exact marginals; content's first token peaks at 0.25.

    The control is padding by ends.
    """
    rainbow, ends = range(2, 9), [1]
    even = _masses(range(1, 22), 40, rainbow)[22:]
    real = {name: _masses(range(10, 41), 64, pads) for name, pads in (("rainbow", rainbow), ("ends", ends))}
    late = {name: float(mass[41:].max()) for name, mass in real.items()}
    first = {}
    for name, mass in real.items():
        confidence = torch.cat([mass[:, :1] * 0.25, mass[:, 1:]], -1)  # content is many tokens, the likeliest 0.25
        first[name] = int(confidence.flatten().argmax()) % 10
    uneven = float((even[:, 2:9] - 1 / 7).abs().max())
    measured = {"distance from 1/7": uneven, **{f"late mass, {n}": v for n, v in late.items()}, "first commits": first}
    holds = uneven < 1e-12 and late["rainbow"] < 0.17 and first["rainbow"] == 0
    return Evidence(holds, measured, control=late["ends"] == 1.0 and first["ends"] == 1)
