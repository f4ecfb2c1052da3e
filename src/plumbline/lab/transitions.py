"""A Llama of any size whose next token is a known function of the last one: what a draft is worth is then known too."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from transformers import LlamaConfig, LlamaForCausalLM

from plumbline.kernels.seeds import forked, generator

SMALL: dict[str, Any] = dict(hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4)


def following(vocab: int = 64, cycle: int = 16, seed: int = 0, **config: Any) -> tuple[LlamaForCausalLM, list[int]]:
    r"""A Llama that says :math:`\pi(x)` after x, for a permutation :math:`\pi` with one cycle of ``cycle`` tokens.

    The layers do their whole work, at a hundredth of the embedding's size; the head's row of :math:`\pi(x)` is x's own
    embedding, so that the likeliest token is known and its probability is near 1.

    Args:
        vocab: V; tokens 0, 1 and 2 (pad, bos, eos) are never said. cycle: length of the cycle that ``text`` runs in.
        config: fields of ``LlamaConfig``; the default is 2 layers of width 32.

    Returns:
        (the model in eval mode, the cycle's tokens once around and one more: a prompt whose continuation copies it).
    """
    shape = SMALL | dict(max_position_embeddings=4096) | config
    with forked(seed, "following"):
        model = LlamaForCausalLM(
            LlamaConfig(
                vocab_size=vocab, tie_word_embeddings=False, pad_token_id=0, bos_token_id=1, eos_token_id=2, **shape
            )
        )
        order = torch.randperm(vocab - 3, generator=generator(seed, "order")) + 3
        after = successors(order, cycle, vocab)
        with torch.no_grad():
            embedding = model.get_input_embeddings().weight.normal_()
            for layer in model.model.layers:
                for out in (layer.self_attn.o_proj.weight, layer.mlp.down_proj.weight):
                    out.mul_(0.01)
            head = model.get_output_embeddings().weight
            head.zero_()
            head[after[order]] = embedding[order]
            head.mul_(30.0 / head.shape[1])
    return model.eval(), [*order[:cycle].tolist(), int(order[0])]


def successors(order: Tensor, cycle: int, vocab: int) -> Tensor:
    """[V]: the token after each; ``order``'s first ``cycle`` tokens in a ring, the others in another."""
    after = torch.arange(vocab)
    after[order[:cycle]] = order[:cycle].roll(-1)
    after[order[cycle:]] = order[cycle:].roll(-1)
    return after
