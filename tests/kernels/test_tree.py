from __future__ import annotations

import pytest
import torch
from transformers import PreTrainedModel

from plumbline.core.errors import InputError
from plumbline.kernels.seeds import forked, generator
from plumbline.kernels.tree import TreeLM
from plumbline.lab.tiny import tiny

PARENTS = [[0, 0, 1, 1, 4], [0, 1, 2, 3, 4], [0, 0, 0, 1, 2]]
PATHS = [[0, 1, 4, 5], [0], [0, 2, 5]]


def lineage(parents: list[int], node: int) -> list[int]:
    """Nodes from below the root down to ``node``."""
    path = []
    while node:
        path.append(node)
        node = parents[node - 1]
    return path[::-1]


def walk(model: PreTrainedModel, steps: int = 4) -> float:
    """The largest error of a ragged batch of trees against every path by itself, uncached, over several passes."""
    g, lm, worst = generator(0, "tree"), TreeLM(model, "test"), 0.0
    texts = [torch.randint(3, 101, (n,), generator=g).tolist() for n in (12, 5, 21)]
    lm.start(texts)
    for step in range(steps):
        tokens = torch.randint(3, 101, (3, 6), generator=g)
        tokens[:, 0] = torch.tensor([t[-1] for t in texts])
        got = lm.logits(tokens, PARENTS)
        for b, parents in enumerate(PARENTS):
            for node in range(6):
                path = [int(tokens[b, i]) for i in lineage(parents, node)]
                with torch.no_grad():
                    want = model(torch.tensor([texts[b] + path]), use_cache=False).logits[0, -1]
                worst = max(worst, float((got[b, node] - want).abs().max()))
        lm.keep(PATHS)
        for b, path in enumerate(PATHS):
            texts[b] += [int(tokens[b, i]) for i in path[1:]] + [7 + step]
    assert lm.calls == steps + 1
    return worst


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_equals_every_path_by_itself(architecture: str, attention: str) -> None:
    assert walk(tiny(architecture, attn_implementation=attention)) < 1e-4


def test_in_float64_to_rounding() -> None:
    assert walk(tiny("gemma3").double()) < 1e-12  # its sliding layer is run past its window


def test_rows_can_leave_the_batch() -> None:
    model, texts = tiny("llama"), [[5, 6, 7], [8, 9], [3, 4, 5, 6]]
    lm = TreeLM(model, "test")
    lm.start(texts)
    lm.logits(torch.tensor([[7, 40], [9, 41], [6, 42]]), [[0]] * 3)
    lm.keep([[0, 1], [0], [0]])
    lm.take([2, 0])
    got = lm.logits(torch.tensor([[50], [51]]), [[], []])[:, 0]
    with torch.no_grad():
        want = [model(torch.tensor([t])).logits[0, -1] for t in ([3, 4, 5, 6, 50], [5, 6, 7, 40, 51])]
    assert (got - torch.stack(want)).abs().max() < 1e-4


def test_a_prompt_of_one_token_needs_no_reading() -> None:
    model = tiny("gpt2")
    lm = TreeLM(model, "test")
    lm.start([[5], [9]])
    assert lm.calls == 0
    with torch.no_grad():
        want = model(torch.tensor([[5], [9]])).logits[:, -1]
    assert (lm.logits(torch.tensor([[5], [9]]), [[], []])[:, 0] - want).abs().max() < 1e-5


def test_a_state_that_cannot_be_rolled_back_is_refused() -> None:
    from transformers import Qwen3NextConfig, Qwen3NextForCausalLM

    with forked(0):
        model = Qwen3NextForCausalLM(
            Qwen3NextConfig(vocab_size=50, hidden_size=16, num_hidden_layers=2, num_attention_heads=2, head_dim=8,
                            num_key_value_heads=1, intermediate_size=16, linear_num_key_heads=1,
                            linear_num_value_heads=2,
                            linear_key_head_dim=8, linear_value_head_dim=8, num_experts=0, mlp_only_layers=[0, 1],
                            layer_types=["linear_attention", "full_attention"])
        ).eval()  # fmt: skip
    with pytest.raises(InputError, match=r"lookahead: model must be .*rolled back.*Qwen3Next.*without drafts"):
        TreeLM(model, "lookahead")


def test_attention_without_such_masks_is_refused() -> None:
    from transformers import BloomConfig, BloomForCausalLM

    with forked(0):
        model = BloomForCausalLM(BloomConfig(vocab_size=50, hidden_size=16, n_layer=2, n_head=2)).eval()
    with pytest.raises(InputError, match=r"lookahead: model must be one that takes a 4-D attention mask.*Bloom"):
        TreeLM(model, "lookahead")


def test_training_mode_and_long_prompts_are_refused() -> None:
    model = tiny("llama")
    lm = TreeLM(model, "test")
    with pytest.raises(InputError, match="shorter than 64 tokens"):
        lm.start([[5] * 70])
    model.train()
    with pytest.raises(InputError, match="training mode"):
        lm.start([[5, 6, 7]])
