"""Names of places in a transformer that hold for every architecture: residual(12), attention_out(3), head(3, 7)."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, cast

from torch import nn
from transformers import PreTrainedModel

from plumbline.core.errors import refuse


@dataclass(frozen=True)
class Layout:
    """Where an architecture keeps its parts: paths relative to the model, then to one block."""

    family: str
    blocks: str
    attention: str
    mlp: str | None
    projection: str

    def fits(self, model: nn.Module) -> bool:
        """Whether the model has a list of blocks there, and a block has these parts."""
        blocks = _find(model, self.blocks)
        if not isinstance(blocks, nn.ModuleList) or len(blocks) == 0:
            return False
        # a hybrid's first block may be recurrent, so any block's attention will do
        return any(_find(block, self.projection) is not None for block in blocks)


LAYOUTS: tuple[Layout, ...] = (
    Layout("Llama, Mistral, Qwen, Gemma, OLMo, Cohere", "model.layers", "self_attn", "mlp", "self_attn.o_proj"),
    Layout("multimodal Llama, Qwen, Gemma", "model.language_model.layers", "self_attn", "mlp", "self_attn.o_proj"),
    Layout("Phi", "model.layers", "self_attn", "mlp", "self_attn.dense"),
    Layout("OPT", "model.decoder.layers", "self_attn", None, "self_attn.out_proj"),
    Layout("GPT-2", "transformer.h", "attn", "mlp", "attn.c_proj"),
    Layout("GPT-J", "transformer.h", "attn", "mlp", "attn.out_proj"),
    Layout("GPT-NeoX, Pythia", "gpt_neox.layers", "attention", "mlp", "attention.dense"),
    Layout("Falcon, Bloom", "transformer.h", "self_attention", "mlp", "self_attention.dense"),
)


@dataclass(frozen=True)
class Site:
    """A place in any model: ``part`` of block ``layer``. Made by the functions below, resolved by ``kernels.hooks``.

    Attributes:
        part: the name of the function that makes it.
        layer: the block, from 0; negative numbers count from the last.
        head: the one head whose columns it is, or None for all.
    """

    part: str
    layer: int
    head: int | None = None

    @property
    def at_input(self) -> bool:
        """Heads meet in the projection's input, the last place where each has its own columns."""
        return self.part == "heads"

    def module(self, model: nn.Module) -> nn.Module:
        """The module that holds the site.

        Raises:
            InputError: an architecture without a known layout, no such layer, or a block without that part.
        """
        inner = unwrapped(model)
        layout = layout_of(inner)
        blocks = inner.get_submodule(layout.blocks)
        if not isinstance(blocks, nn.ModuleList) or not -len(blocks) <= self.layer < len(blocks):
            raise refuse(
                str(self), "layer", f"below {n_layers(model)}, the number of blocks", self.layer, "pick another"
            )
        block = blocks[self.layer]
        paths = {"residual": "", "attention_out": layout.attention, "mlp_out": layout.mlp, "heads": layout.projection}
        path = paths[self.part]
        found = None if path is None else _find(block, path)
        if found is None:
            raise refuse(str(self), "site", "a part of its block that is one module", f"no such part in {_kind(block)}",
                         "pick another layer or part, or pass a module's path as a string")  # fmt: skip
        return found

    def columns(self, model: nn.Module) -> slice:
        """The head's columns of the projection's input, ``[head * d, (head + 1) * d)``; everything without a head."""
        if self.head is None:
            return slice(None)
        count, width = n_heads(model), _width(self.module(model))
        if not 0 <= self.head < count:
            raise refuse(str(self), "head", f"in [0, {count})", self.head, "pick another head")
        return slice(self.head * width // count, (self.head + 1) * width // count)

    def __str__(self) -> str:
        return f"{self.part}({self.layer})" if self.head is None else f"head({self.layer}, {self.head})"


def residual(layer: int) -> Site:
    """The residual stream after block ``layer``: x [B, T, D]."""
    return Site("residual", layer)


def attention_out(layer: int) -> Site:
    """What the attention of block ``layer`` returns, all heads projected together: [B, T, D].

    It is added to the residual stream; Gemma 2 and 3 and OLMo 2 normalise it first.
    """
    return Site("attention_out", layer)


def mlp_out(layer: int) -> Site:
    """What the feed-forward part of block ``layer`` returns: [B, T, D].

    OPT has no such module, and its linear layers work on [B * T, D]: there pass ``"model.decoder.layers.3.fc2"``.
    """
    return Site("mlp_out", layer)


def heads(layer: int) -> Site:
    """All heads' outputs side by side, before the output projection: [B, T, heads * head width]."""
    return Site("heads", layer)


def head(layer: int, head: int) -> Site:
    """The output of one query head before the output projection: [B, T, head width]."""
    return replace(heads(layer), head=head)


def unwrapped(model: nn.Module) -> nn.Module:
    """The transformers model inside a PEFT or data-parallel wrapper, with any adapters in place."""
    if hasattr(model, "get_base_model"):
        model = cast(Any, model).get_base_model()
    inner = None if isinstance(model, PreTrainedModel) else getattr(model, "module", None)
    return unwrapped(inner) if isinstance(inner, nn.Module) else model


def layout_of(model: nn.Module) -> Layout:
    """The layout of a model's architecture, found by looking at its modules.

    Raises:
        InputError: an architecture nobody has described, with what to do instead.
    """
    inner = unwrapped(model)
    for layout in LAYOUTS:
        if layout.fits(inner):
            return layout
    known = "; ".join(layout.family for layout in LAYOUTS)
    raise refuse("sites", "model", f"of a known family ({known})", type(inner).__name__,
                 "pass the module's path as a string instead, for example 'model.layers.3.mlp'")  # fmt: skip


def n_layers(model: nn.Module) -> int:
    """The number of blocks."""
    inner = unwrapped(model)
    return len(list(inner.get_submodule(layout_of(inner).blocks).children()))


def n_heads(model: nn.Module) -> int:
    """The number of query heads of a block."""
    config: Any = unwrapped(model).config
    return int(config.get_text_config(decoder=True).num_attention_heads)


def attention_layers(model: nn.Module) -> tuple[int, ...]:
    """The blocks that have attention: all of them, except in hybrids with recurrent blocks."""
    inner = unwrapped(model)
    layout = layout_of(inner)
    blocks = inner.get_submodule(layout.blocks).children()
    return tuple(i for i, block in enumerate(blocks) if _find(block, layout.attention) is not None)


def _find(module: nn.Module, path: str) -> nn.Module | None:
    for name in path.split(".") if path else ():
        child = getattr(module, name, None)
        if not isinstance(child, nn.Module):
            return None
        module = child
    return module


def _width(projection: Any) -> int:
    """A linear layer's input width: ``Linear`` and adapters name it, GPT-2's ``Conv1D`` keeps its weight [in, out]."""
    return int(projection.in_features if hasattr(projection, "in_features") else projection.weight.shape[0])


def _kind(module: nn.Module) -> str:
    return type(module).__name__
