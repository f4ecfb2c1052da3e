"""Tiny random causal LMs, one per family of architectures: what a method that touches models is checked on."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from transformers import (
    Gemma3ForCausalLM,
    Gemma3TextConfig,
    GPT2Config,
    GPT2LMHeadModel,
    GPTNeoXConfig,
    GPTNeoXForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
    MistralConfig,
    MistralForCausalLM,
    PreTrainedConfig,
    PreTrainedModel,
    Qwen3Config,
    Qwen3ForCausalLM,
)

from plumbline.core.errors import refuse
from plumbline.kernels.seeds import forked

WINDOW = 8  # sliding windows are this short so that a test of 20 tokens runs past them

_SHAPE: dict[str, Any] = dict(num_hidden_layers=2, hidden_size=32, num_attention_heads=4, max_position_embeddings=64)
_GATED = _SHAPE | dict(intermediate_size=48, num_key_value_heads=2, head_dim=8)
_SPECIAL: dict[str, Any] = dict(bos_token_id=1, eos_token_id=2, pad_token_id=0)

_FAMILIES: dict[str, tuple[type[PreTrainedConfig], Callable[..., PreTrainedModel], dict[str, Any]]] = {
    "llama": (LlamaConfig, LlamaForCausalLM, _GATED),
    "qwen3": (Qwen3Config, Qwen3ForCausalLM, _GATED),
    "gemma3": (
        Gemma3TextConfig,
        Gemma3ForCausalLM,
        _GATED | dict(sliding_window=WINDOW, layer_types=["sliding_attention", "full_attention"]),
    ),
    "gpt2": (GPT2Config, GPT2LMHeadModel, dict(n_layer=2, n_embd=32, n_head=4, n_positions=64)),
    "gpt_neox": (GPTNeoXConfig, GPTNeoXForCausalLM, _SHAPE | dict(intermediate_size=48)),
    "mistral": (MistralConfig, MistralForCausalLM, _GATED | dict(sliding_window=WINDOW)),
}

ARCHITECTURES: tuple[str, ...] = tuple(_FAMILIES)


def tiny(architecture: str, vocab: int = 101, seed: int = 0, **config: Any) -> PreTrainedModel:
    """A random model of a real architecture: 2 layers, width 32, 4 heads, 64 positions, float32, eval mode.

    Args:
        architecture: one of ``ARCHITECTURES``. Gemma 3 (one layer) and Mistral (every layer) have sliding windows
            of ``WINDOW`` tokens, so that short tests run past them.
        vocab: vocabulary size V; ids 0, 1 and 2 are pad, bos and eos.
        seed: names the weights. The global generators are left as they were.
        config: fields of the architecture's config to set otherwise.

    Returns:
        The model. Its weights are larger than an untrained model's, so that attention is far from uniform and its
        next-token distributions differ from context to context.
    """
    if architecture not in _FAMILIES:
        raise refuse("tiny", "architecture", f"one of {', '.join(_FAMILIES)}", architecture, "pass one of these names")
    config_class, model_class, defaults = _FAMILIES[architecture]
    with forked(seed, "tiny", architecture):
        model = model_class(config_class(**{"vocab_size": vocab, **_SPECIAL, **defaults, **config}))
        with torch.no_grad():
            for parameter in model.parameters():
                if parameter.dim() > 1:
                    parameter.normal_(std=parameter.shape[-1] ** -0.5)
    return model.eval().requires_grad_(True)
