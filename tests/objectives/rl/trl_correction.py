"""TRL's correction of the engine mismatch: its own statements, taken out of the method that holds them, and run."""

from __future__ import annotations

import ast
import inspect
import math
import textwrap
from types import SimpleNamespace

import pytest
import torch
from torch import Tensor


def trl_weights(
    which: str, old: Tensor, sampler: Tensor, mask: Tensor, low: float | None, high: float | None
) -> Tensor:
    pytest.importorskip("trl")
    from trl import GRPOTrainer

    source = textwrap.dedent(inspect.getsource(GRPOTrainer._generate_and_score_completions))
    wanted = "vllm_importance_sampling_ratio"
    blocks = [
        node
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.If)
        and any(isinstance(n, ast.Name) and n.id == wanted and isinstance(n.ctx, ast.Store) for n in ast.walk(node))
        and "correction" in ast.unparse(node.test)
    ]
    args = SimpleNamespace(
        use_vllm=True, vllm_importance_sampling_correction=True, vllm_importance_sampling_mode=which,
        vllm_importance_sampling_clip_min=low, vllm_importance_sampling_clip_max=high,
    )  # fmt: skip
    names = {"self": args, "torch": torch, "math": math, "tool_mask": None, "completion_mask": mask.float(),
             "old_per_token_logps": old, "sampling_per_token_logps": sampler}  # fmt: skip
    smallest = min(blocks, key=lambda node: (node.end_lineno or 0) - node.lineno)
    exec(compile(ast.Module([smallest], []), "trl", "exec"), names)
    return names[wanted]


def rollouts(rows: int = 40, length: int = 12, *, noise: float = 0.5, unknown: bool = True):
    """Old and engine log-probabilities [B,T], the second with NaN here and there, and a ragged mask."""
    from plumbline.kernels.seeds import generator

    g = generator(0, "rollouts")
    old = -3 * torch.rand(rows, length, generator=g)
    sampler = old + noise * torch.randn(rows, length, generator=g)
    if unknown:
        sampler = torch.where(torch.rand(rows, length, generator=g) < 0.05, torch.nan, sampler)
    mask = torch.arange(length) < torch.randint(1, length + 1, (rows, 1), generator=g)
    return old, sampler, mask
