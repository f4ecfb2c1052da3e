"""The output head against each family's own logits."""

from __future__ import annotations

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForMaskedLM

from plumbline.core.errors import InputError
from plumbline.kernels.head import Head, head_of, hidden_states, position_ids

SMALL = dict(
    vocab_size=97, hidden_size=32, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2,
    intermediate_size=48, head_dim=8, max_position_embeddings=64,
)  # fmt: skip
FAMILIES = {
    "llama": SMALL,
    "qwen2": SMALL,
    "mistral": SMALL,
    "gpt2": dict(vocab_size=97, n_embd=32, n_layer=2, n_head=4, n_positions=64),
    "gpt_neox": dict(SMALL, num_key_value_heads=4),
    "opt": dict(
        vocab_size=97, hidden_size=32, num_hidden_layers=2, num_attention_heads=4, ffn_dim=48,
        word_embed_proj_dim=16, max_position_embeddings=64,
    ),
    "bloom": dict(vocab_size=97, hidden_size=32, n_layer=2, n_head=4),
    "gemma2": dict(SMALL, final_logit_softcapping=2.0),
    "gemma3_text": dict(SMALL, final_logit_softcapping=1.5),
    "cohere": dict(SMALL, logit_scale=0.25),
    "granite": dict(SMALL, logits_scaling=3.0),
    "hyperclovax": dict(SMALL, logits_scaling=3.0),
}  # fmt: skip


def build(name: str, dtype: torch.dtype = torch.float32, **more: object) -> torch.nn.Module:
    torch.manual_seed(0)
    config = AutoConfig.for_model(
        name,
        **{**FAMILIES[name], **more},
        pad_token_id=0,
        bos_token_id=1,
        eos_token_id=2,
    )
    model = AutoModelForCausalLM.from_config(config, dtype=dtype).eval()
    with torch.no_grad():  # large enough that a forgotten scale or cap shows
        model.get_output_embeddings().weight.mul_(20)
    return model


def batch() -> tuple[torch.Tensor, torch.Tensor]:
    g = torch.Generator().manual_seed(1)
    ids = torch.randint(3, 97, (3, 11), generator=g)
    mask = torch.ones(3, 11, dtype=torch.long)
    mask[1, :4] = 0
    mask[2, :7] = 0
    return ids, mask


@pytest.mark.parametrize("name", FAMILIES)
@torch.no_grad()
def test_head_reproduces_logits_under_left_padding(name: str) -> None:
    model = build(name)
    ids, mask = batch()
    head = head_of(model)
    assert head.exact_form and head.vocab_size == 97
    logits = head(hidden_states(model, ids, mask).flatten(0, 1)).unflatten(0, ids.shape)
    assert logits.dtype == torch.float32
    for row in range(3):
        alone = ids[row][mask[row].bool()][None]
        full = model(input_ids=alone).logits[0]
        assert torch.allclose(logits[row][mask[row].bool()], full, atol=1e-3), name


@torch.no_grad()
def test_weight_bias_scale_softcap_rebuild_the_logits() -> None:
    model = build("gemma2")
    head = head_of(model)
    hidden = torch.randn(5, 32)
    raw = hidden @ head.weight.T * head.scale
    assert head.bias is None and head.softcap == 2.0
    assert torch.allclose(head(hidden), 2.0 * torch.tanh(raw / 2.0), atol=1e-5)
    assert head_of(build("granite")).scale == pytest.approx(1 / 3)
    assert head_of(build("hyperclovax")).scale == pytest.approx(3)


def test_the_full_product_is_never_computed() -> None:
    model = build("llama")
    shapes = []
    module = model.get_output_embeddings()
    handle = module.register_forward_hook(lambda m, a, out: shapes.append(out.shape))
    hidden = hidden_states(model, *batch())
    handle.remove()
    assert shapes == [torch.Size([3, 1, 97])] and hidden.shape == (3, 11, 32)
    assert not module._forward_pre_hooks
    hidden.sum().backward()  # gradients reach the backbone
    assert model.model.layers[0].self_attn.q_proj.weight.grad.abs().sum() > 0


@torch.no_grad()
def test_half_precision_head_multiplies_in_float32(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    model = build("llama", torch.bfloat16)
    head = head_of(model)
    hidden = torch.randn(6, 32).bfloat16()
    expected = hidden.double() @ head.weight.double().T
    assert head(hidden).dtype == torch.float32
    assert torch.allclose(head(hidden).double(), expected, atol=1e-4)
    monkeypatch.setattr("plumbline.kernels.head._KEPT_BYTES", 0)
    monkeypatch.setattr("plumbline.kernels.head._BLOCK_BYTES", 10 * 32 * 4)
    assert torch.allclose(head(hidden).double(), expected, atol=1e-4)


@torch.no_grad()
def test_kept_copy_follows_the_weight() -> None:
    model = build("llama", torch.bfloat16)
    head = head_of(model)
    hidden = torch.randn(6, 32).bfloat16()
    before = head(hidden)
    head.weight.mul_(2)
    assert torch.equal(head(hidden), before * 2)


def test_adapter_on_the_head_is_part_of_it() -> None:
    from peft import LoraConfig, get_peft_model

    model = get_peft_model(
        build("llama"),
        LoraConfig(target_modules=["lm_head"], r=2, init_lora_weights=False),
    ).eval()
    ids, mask = batch()
    with torch.no_grad():
        head = head_of(model)
        hidden = hidden_states(model, ids, mask)
        logits = model(input_ids=ids, attention_mask=mask, position_ids=position_ids(mask)).logits
        assert torch.allclose(head(hidden), logits, atol=1e-4)
        assert torch.allclose(hidden @ head.weight.T, logits, atol=1e-3)
        with model.disable_adapter():
            assert not torch.allclose(head(hidden), logits, atol=1e-2)
    head.weight.sum().backward()
    assert sum(p.grad.abs().sum() for n, p in model.named_parameters() if "lora" in n) > 0


@torch.no_grad()
def test_unknown_form_is_answered_by_the_model_itself() -> None:
    model = build("llama")
    original = type(model).forward

    class Odd(type(model)):  # type: ignore[misc]
        def forward(self, *args: object, **kwargs: object) -> object:
            out = original(self, *args, **kwargs)
            out.logits = out.logits.sin()
            return out

    model.__class__ = Odd
    ids, mask = batch()
    head = head_of(model)
    assert not head.exact_form
    hidden = hidden_states(model, ids[:1], mask[:1])
    assert torch.allclose(head(hidden[0]), model(input_ids=ids[:1]).logits[0], atol=1e-4)
    with pytest.raises(InputError, match="linear head"):
        head.weight


def test_models_that_cannot_be_scored_are_refused() -> None:
    config = AutoConfig.for_model(
        "bert",
        vocab_size=97,
        hidden_size=32,
        num_hidden_layers=1,
        num_attention_heads=4,
        intermediate_size=48,
    )
    with pytest.raises(InputError, match="early positions see later tokens"):
        head_of(AutoModelForMaskedLM.from_config(config).eval())
    with pytest.raises(InputError, match="output head"):
        head_of(torch.nn.Linear(3, 3))


def test_position_ids_by_hand() -> None:
    mask = torch.tensor([[0, 0, 1, 1, 1], [1, 1, 1, 0, 0]])
    assert position_ids(mask).tolist() == [[0, 0, 0, 1, 2], [0, 1, 2, 2, 2]]


def test_head_is_differentiable() -> None:
    layer = torch.nn.Linear(4, 7)
    head = Head(layer, layer, 0.5, 3.0)
    hidden = torch.randn(2, 4, requires_grad=True)
    head(hidden).sum().backward()
    assert hidden.grad is not None and layer.weight.grad is not None
