from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from plumbline.core.errors import InputError
from plumbline.kernels.cached_lm import CachedLM
from plumbline.kernels.hooks import attention_maps, capture, steered
from plumbline.kernels.seeds import generator
from plumbline.lab.tiny import tiny

IDS = torch.randint(3, 101, (2, 12), generator=generator(0, "ids"))
BLOCKS = {"gpt2": "transformer.h", "gpt_neox": "gpt_neox.layers"}


def n_hooks(model: nn.Module) -> int:
    return sum(len(m._forward_hooks) + len(m._forward_pre_hooks) for m in model.modules())


class TwoWays(nn.Module):
    """One block that returns a tuple, one that returns a tensor and is called by keyword."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = Pair(), nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        y, extra = self.first(x)
        return self.second(input=y) + extra


class Pair(nn.Module):
    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return 2 * x, torch.ones_like(x)


def test_edits_compose_in_order_by_hand() -> None:
    model, x = TwoWays(), torch.full((1, 1, 3), 5.0)
    with steered(model, {"first": lambda x: x + 1}):  # 2*5 + 1, then + 1 (extra)
        assert model(x)[0, 0, 0] == 12
        with steered(model, {"first": lambda x: x * 3, "second": lambda x: -x}):  # (10 + 1) * 3, negated, + 1
            assert model(x)[0, 0, 0] == -32
        assert model(x)[0, 0, 0] == 12
    assert model(x)[0, 0, 0] == 11 and n_hooks(model) == 0
    assert x.eq(5).all()


def test_capture_sees_what_an_outer_edit_made_and_keeps_the_graph() -> None:
    model, x = TwoWays(), torch.ones(1, 2, 3, requires_grad=True)
    with steered(model, {"first": lambda x: x * 4}), capture(model, ["first", "second"]) as seen:
        model(x)
    assert set(seen) == {"first", "second"} and seen["first"].eq(8).all()
    (grad,) = torch.autograd.grad(seen["second"].sum(), x)
    assert grad.eq(8).all()


def test_replacing_a_block_by_its_captured_output_changes_nothing(tiny_model: PreTrainedModel) -> None:
    block = BLOCKS.get(tiny_model.config.model_type, "model.layers") + ".0"
    want = tiny_model(IDS).logits
    with capture(tiny_model, [block]) as seen:
        tiny_model(IDS)
    with steered(tiny_model, {block: lambda x: torch.zeros_like(x)}):
        wiped = tiny_model(IDS).logits
    with steered(tiny_model, {block: lambda x: seen[block]}):
        got = tiny_model(IDS).logits
    assert torch.equal(got, want) and not torch.allclose(wiped, want, atol=1e-2)
    assert n_hooks(tiny_model) == 0


def test_steering_is_the_same_with_and_without_a_cache(tiny_model: PreTrainedModel) -> None:
    block = BLOCKS.get(tiny_model.config.model_type, "model.layers") + ".1"
    lm = CachedLM(tiny_model)
    with steered(tiny_model, {block: lambda x: x.flip(-1)}):
        lm(IDS[:, :7])
        error = lm(IDS) - tiny_model(IDS).logits[:, -1]
    assert error.abs().max() < 1e-4


def test_hooks_go_after_an_exception() -> None:
    model = tiny("llama")
    with pytest.raises(ZeroDivisionError), steered(model, {"model.layers.0": lambda x: x / (1 // 0)}):
        model(IDS)
    with pytest.raises(InputError), capture(model, ["model.layers.0", "model.layers.7"]):
        model(IDS)
    assert n_hooks(model) == 0


@pytest.mark.parametrize(
    ("edit", "got"),
    [
        (lambda x: x[:, :-1], r"torch.float32 \[2, 11, 32\]"),
        (lambda x: x.double(), r"torch.float64 \[2, 12, 32\]"),
        (lambda x: None, "NoneType"),
    ],
)
def test_an_edit_that_breaks_its_contract_is_named(edit: object, got: str) -> None:
    model = tiny("llama")
    with (
        pytest.raises(InputError, match=rf"'model\.layers\.1\.mlp' must be .*torch.float32 \[2, 12, 32\].*got {got}"),
        steered(model, {"model.layers.1.mlp": edit}),
    ):
        model(IDS)


def test_a_wrong_path_is_refused_with_what_there_is() -> None:
    with (
        pytest.raises(InputError, match=r"below 'model\.layers\.0' there is: .*self_attn, mlp"),
        capture(tiny("llama"), ["model.layers.0.mpl"]),
    ):
        pass


def attention(model: PreTrainedModel) -> list[str]:
    name = {"gpt2": "attn", "gpt_neox": "attention"}.get(model.config.model_type, "self_attn")
    return [f"{BLOCKS.get(model.config.model_type, 'model.layers')}.{i}.{name}" for i in range(2)]


def test_attention_maps_are_the_models_own(tiny_model: PreTrainedModel) -> None:
    sites, before = attention(tiny_model), tiny_model.config._attn_implementation
    with torch.no_grad():
        with attention_maps(tiny_model, {site: lambda a: a.clone() for site in sites}) as maps:
            steered_out = tiny_model(IDS).logits
        assert tiny_model.config._attn_implementation == before == "sdpa" and n_hooks(tiny_model) == 0
        assert torch.allclose(tiny_model(IDS).logits, steered_out, atol=1e-4)
        tiny_model.set_attn_implementation("eager")
        for site, want in zip(sites, tiny_model(IDS, output_attentions=True).attentions, strict=True):
            assert torch.equal(maps[site], want) and maps[site].shape == (2, 4, 12, 12)


def test_attention_maps_put_the_implementation_back_after_an_error() -> None:
    model = tiny("qwen3")
    with pytest.raises(InputError, match="eager"), attention_maps(model, {"model.layers.0.mlp": lambda a: a}):
        model(IDS)
    assert model.config._attn_implementation == "sdpa" and n_hooks(model) == 0
