"""A sampler for rules whose second model is the first one: both are read in one batch, for little more than one."""

from __future__ import annotations

from contextlib import ExitStack
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from plumbline.decode.loop import Report, Run
from plumbline.kernels.cached_lm import CachedLM
from plumbline.kernels.hooks import adapters_by_row
from plumbline.kernels.peer import Peer


def together(
    model: Any, input_ids: Tensor, logits_processor: Any, stopping_criteria: Any, generation_config: Any, *,
    report: Report | None = None, **model_kwargs: Any,
) -> Any:  # fmt: skip
    """Decode with rules whose peers share the main model's weights, in one forward pass a step.

    ``model.generate(ids, logits_processor=LogitsProcessorList([rule]), custom_generate=together)`` gives what it gives
    without ``custom_generate``. A peer is read in the same batch where it is the same model under another prompt, or
    the same base weights with an adapter on one side; any other peer is asked as always.

    Args:
        input_ids: [B, L], left-padded. report: filled with tokens and forward passes.

    Returns:
        [B, L'] ids.
    """
    run = Run("together", model, input_ids, logits_processor, stopping_criteria, generation_config, model_kwargs,
              report=report)  # fmt: skip
    peers, reader = _readers(model, [p for rule in run.processors for p in getattr(rule, "peers", ())])
    ids, mask = input_ids, model_kwargs.get("attention_mask")
    mask = torch.ones_like(ids) if mask is None else mask
    stacked = [(ids, mask), *(p.reads(ids, mask) for p in peers)]
    width = max(x.shape[1] for x, _ in stacked)
    batch = torch.cat([F.pad(x, (width - x.shape[1], 0)) for x, _ in stacked])
    seen = torch.cat([F.pad(torch.ones_like(x) if m is None else m, (width - x.shape[1], 0)) for x, m in stacked])
    lm, rows = CachedLM(reader, -1), len(ids)
    with ExitStack() as stack:
        wears = [_worn(model), *(_worn(p.lm.model) for p in peers)]
        if any(wears) and not all(wears):
            stack.enter_context(adapters_by_row(reader, [w or "__base__" for w in wears for _ in range(rows)]))
        while run.active():
            main, *others = lm(batch, seen).split(rows)
            for peer, logits in zip(peers, others, strict=True):
                peer.hand(ids, logits)
            fresh = _choose(run, ids, main)
            ids = torch.cat([ids, fresh], 1)
            batch = torch.cat([batch, fresh.repeat(1 + len(peers), 1)], 1)
            seen = F.pad(seen, (0, 1), value=1)
    run.report.calls += lm.calls
    run.report.fed += lm.tokens_fed
    return run.result()


def _choose(run: Run, ids: Tensor, logits: Tensor) -> Tensor:
    """Each row's next token [B, 1]; a finished row goes on with its last one, which nobody reads."""
    scores = logits
    for processor in run.processors:
        scores = processor(ids, scores)
    for b in run.active():
        run.emit(b, [run.pick(b, scores[b])])
    return torch.tensor([[row[-1]] for row in run.rows], device=ids.device)


def _readers(model: Any, peers: list[Peer]) -> tuple[list[Peer], Any]:
    """The peers that one forward pass can serve with the main model, and the module to run: the one with an adapter."""
    own, reader, found = _weights(model), model, []
    for peer in peers:
        other = getattr(peer.lm, "model", None)
        if other is None or (other is not model and _weights(other) != own):
            continue
        if other is not reader and _worn(other):
            if _worn(reader):
                continue  # two adapters on two module trees have no module in common
            reader = other
        found.append(peer)
    return found, reader


def _weights(model: Any) -> set[int]:
    """Where the base weights lie; an adapter's own are left out."""
    return {p.data_ptr() for name, p in model.named_parameters() if "lora_" not in name}


def _worn(model: Any) -> str:
    """The name of the adapter that is on, or nothing."""
    layer = next((m for m in model.modules() if hasattr(m, "lora_A") and hasattr(m, "base_layer")), None)
    if layer is None or layer.disable_adapters or layer.merged:
        return ""
    return str(layer.active_adapters[0])
