from __future__ import annotations

import pytest
import torch
from torch import nn
from transformers import (
    BloomConfig,
    BloomForCausalLM,
    Gemma3Config,
    Gemma3ForConditionalGeneration,
    GPTJConfig,
    GPTJForCausalLM,
    OPTConfig,
    OPTForCausalLM,
    PhiConfig,
    PhiForCausalLM,
    PreTrainedModel,
)

from plumbline.core.errors import InputError
from plumbline.kernels.hooks import capture, steered
from plumbline.kernels.seeds import forked, generator
from plumbline.lab.tiny import tiny
from plumbline.models.sites import (
    Site,
    attention_layers,
    attention_out,
    head,
    heads,
    layout_of,
    mlp_out,
    n_heads,
    n_layers,
    residual,
)

IDS = torch.randint(3, 101, (2, 9), generator=generator(0, "ids"))
ZERO = torch.zeros_like


def check(model: nn.Module, ids: torch.Tensor = IDS) -> None:
    """Sites of one model against the equations that tie them together."""
    sites = [residual(0), residual(1), attention_out(1), mlp_out(1), heads(1), *(head(1, h) for h in range(4))]
    none_sites, added = dict.fromkeys(sites[5:], ZERO), {attention_out(1): ZERO, mlp_out(1): ZERO}
    with torch.no_grad():
        with capture(model, sites) as x:
            model(ids)
        with steered(model, none_sites), capture(model, [attention_out(1)]) as none:
            model(ids)
        with steered(model, added), capture(model, [residual(0), residual(1)]) as y:
            model(ids)
    assert all(x[s].shape == (*ids.shape, 32) for s in sites[:5])
    assert torch.equal(torch.cat([x[s] for s in sites[5:]], -1), x[heads(1)])
    # without its heads an attention returns its projection's bias at every position
    headless = none[attention_out(1)]
    assert torch.allclose(headless, headless[:1, :1].expand_as(headless), atol=1e-6)
    assert not torch.allclose(x[attention_out(1)], headless, atol=1e-3)
    # a block adds its two parts to the residual stream and nothing else
    assert torch.allclose(y[residual(1)], y[residual(0)], atol=1e-5)
    assert not torch.allclose(x[residual(1)], x[residual(0)], atol=1e-3)
    assert residual(-1).module(model) is residual(1).module(model)
    assert (n_layers(model), n_heads(model), attention_layers(model)) == (2, 4, (0, 1))


def test_sites_hold_on_every_architecture(tiny_model: PreTrainedModel) -> None:
    check(tiny_model)


def test_zeroing_one_head_leaves_the_others(tiny_model: PreTrainedModel) -> None:
    with steered(tiny_model, {head(0, 2): ZERO}), capture(tiny_model, [heads(0)]) as edited:
        tiny_model(IDS)
    with capture(tiny_model, [heads(0)]) as before:
        tiny_model(IDS)
    changed = (edited[heads(0)] != before[heads(0)]).unflatten(-1, (4, 8)).any(-1).any(0).any(0)
    assert changed.tolist() == [False, False, True, False]


SMALL = dict(vocab_size=101, num_hidden_layers=2, hidden_size=32, num_attention_heads=4, max_position_embeddings=64)


@pytest.mark.parametrize(
    ("make", "config"),
    [
        (PhiForCausalLM, PhiConfig(**SMALL, intermediate_size=48)),
        (GPTJForCausalLM, GPTJConfig(vocab_size=101, n_layer=2, n_embd=32, n_head=4, n_positions=64, rotary_dim=4)),
    ],
)
def test_sites_hold_on_further_families(make: type[PreTrainedModel], config: object) -> None:
    with forked(0):
        model = make(config)
    for parameter in model.parameters():
        if parameter.dim() > 1:
            nn.init.normal_(parameter, std=0.2, generator=generator(1))
    check(model.eval())


def test_a_part_that_is_no_module_is_refused() -> None:
    with forked(0):
        model = OPTForCausalLM(OPTConfig(**SMALL, ffn_dim=48, word_embed_proj_dim=32)).eval()
    with capture(model, [residual(1), attention_out(0), head(1, 3)]) as x:
        model(IDS)
    assert [v.shape for v in x.values()].count((2, 9, 32)) == 2 and x[head(1, 3)].shape == (2, 9, 8)
    with pytest.raises(InputError, match=r"mlp_out\(0\): .*module's path as a string"):
        mlp_out(0).module(model)


def test_blocks_that_add_inside_their_parts_still_have_sites() -> None:
    with forked(0):
        model = BloomForCausalLM(BloomConfig(vocab_size=101, n_layer=2, hidden_size=32, n_head=4)).eval()
    with capture(model, [residual(1), attention_out(0), mlp_out(1), head(1, 3)]) as x:
        model(IDS)
    assert [x[s].shape[-1] for s in (residual(1), attention_out(0), mlp_out(1), head(1, 3))] == [32, 32, 32, 8]


def test_the_text_part_of_a_multimodal_model() -> None:
    text = tiny("gemma3").config.to_dict()
    vision = dict(hidden_size=16, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2, image_size=28)
    with forked(0):
        model = Gemma3ForConditionalGeneration(Gemma3Config(text_config=text, vision_config=vision)).eval()
    assert residual(1).module(model) is model.model.language_model.layers[1]
    assert n_heads(model) == 4


def test_sites_hold_inside_peft_and_data_parallel_wrappers() -> None:
    from peft import LoraConfig, get_peft_model

    inner = tiny("llama")
    block = inner.model.layers[1]
    model = get_peft_model(
        inner, LoraConfig(r=2, target_modules=["o_proj", "down_proj"], init_lora_weights=False)
    ).eval()
    check(model)
    assert residual(1).module(nn.DataParallel(model)) is block


@pytest.mark.parametrize(
    ("site", "says"),
    [
        (residual(2), r"residual\(2\): layer must be below 2"),
        (head(0, 4), r"head\(0, 4\): head must be in \[0, 4\)"),
        (residual(-3), "below 2"),
    ],
)
def test_refuses_what_the_model_does_not_have(site: Site, says: str) -> None:
    model = tiny("llama")
    with pytest.raises(InputError, match=says), capture(model, [site]):
        model(IDS)


def test_an_unknown_architecture_is_refused_with_the_way_out() -> None:
    with pytest.raises(InputError, match=r"Llama.*GPT-2.*Sequential.*module's path as a string"):
        layout_of(nn.Sequential(nn.Linear(2, 2)))
