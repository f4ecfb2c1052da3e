"""Look into a model's forward pass, and change it, at named sites: only inside a `with` block, undone after errors."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any, Protocol, TypeVar

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from plumbline.core.errors import refuse

Edit = Callable[[Tensor], Tensor]
T = TypeVar("T")


class Site(Protocol):
    """A place in a model. ``plumbline.models.sites`` makes them; a module's path as a string is one as well."""

    @property
    def at_input(self) -> bool:
        """Whether it is what the module is given, and not what it returns."""

    def module(self, model: nn.Module) -> nn.Module:
        """The module of ``model`` that holds the site."""

    def columns(self, model: nn.Module) -> slice:
        """The part of the last dimension that belongs to it (one head's, for example)."""


AnySite = Site | str
S = TypeVar("S", bound=AnySite)


@contextmanager
def steered(model: nn.Module, edits: Mapping[S, Edit]) -> Iterator[nn.Module]:
    r"""Run ``model`` with activations edited: :math:`x \leftarrow f(x)` at each site, in every forward pass inside.

    Blocks nest: an inner block's edit of the same site gets what the outer's returned. ``generate`` inside a block is
    steered too, with and without a cache (then T is 1 after the prompt); states cached before the block are not
    edited. A backward pass through gradient checkpointing belongs inside the block, which it runs forward again.

    Args:
        model: any torch module.
        edits: site -> ``(x [B, T, D]) -> [B, T, D]``. A site of ``plumbline.models.sites`` (``residual(12)``) or a
            module's path (``"model.layers.12.mlp"``: what it returns, of a tuple the first).

    Yields:
        The model itself.

    Raises:
        InputError: no such module; an edit that returns another shape, dtype or device than it was given.
    """
    with ExitStack() as stack:
        for site, edit in edits.items():
            _install(stack, "steered", model, site, _Apply(model, site, edit))
        yield model


@contextmanager
def capture(model: nn.Module, sites: Sequence[S]) -> Iterator[dict[S, Tensor]]:
    """Keep the activations of the last forward pass: site -> [B, T, D], as the model computed them.

    They keep their graph where gradients are on, and are not copies: clone before writing into one. Inside a
    ``steered`` block opened before this one they are the edited activations.

    Args:
        model: any torch module.
        sites: as for :func:`steered`.

    Yields:
        A dict with the sites as given for keys, filled by each forward pass and left as it is after the block.
    """
    found: dict[S, Tensor] = {}

    def keeper(site: S) -> Callable[[Tensor], None]:
        def keep(x: Tensor) -> None:
            found[site] = x[..., _columns(model, site)]

        return keep

    with ExitStack() as stack:
        for site in sites:
            _install(stack, "capture", model, site, keeper(site))
        yield found


@contextmanager
def adapters_by_row(model: nn.Module, names: Sequence[str]) -> Iterator[nn.Module]:
    """Run a model with PEFT (LoRA) layers so that row b of every batch wears adapter ``names[b]``.

    ``"__base__"`` is no adapter. The layers read one batch of base weights for all rows. A model without such layers is
    left as it is.
    """

    def named(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        return args, {**kwargs, "adapter_names": list(names)}

    with ExitStack() as stack:
        for module in model.modules():
            if hasattr(module, "lora_A") and hasattr(module, "base_layer"):
                stack.callback(module.register_forward_pre_hook(named, with_kwargs=True).remove)  # type: ignore[operator]
        yield model


@contextmanager
def attention_maps(model: nn.Module, sites: Mapping[S, Callable[[Tensor], T]]) -> Iterator[dict[S, T]]:
    r"""Reduce each layer's attention probabilities when they come, and let go of them: one layer's at a time is alive.

    Runs the model with eager attention inside the block (the other implementations never form the probabilities) and
    puts the implementation back as it was after it.

    Args:
        model: a transformers model.
        sites: attention site -> ``reduce(A [B, H, T, S]) -> anything``; rows of A are queries. H counts query heads.

    Yields:
        A dict site -> what ``reduce`` returned in the last forward pass.

    Raises:
        InputError: a module that returns no probabilities (its architecture has no eager attention, or it is not an
            attention module).
    """
    found: dict[S, T] = {}

    def reducer(site: S, reduce: Callable[[Tensor], T]) -> Callable[..., Any]:
        def hook(module: nn.Module, args: Any, output: Any) -> Any:
            weights = output[1] if isinstance(output, tuple) and len(output) > 1 else None
            if not isinstance(weights, Tensor) or weights.dim() != 4:
                raise refuse("attention_maps", f"site {_name(site)}", "an attention module that returns (output, "
                             "probabilities [B, H, T, S])", _shown(weights), "load the model with attn_implementation="
                             "'eager' and name its attention modules")  # fmt: skip
            found[site] = reduce(weights)
            return (output[0], None, *output[2:])

        return hook

    with _eager_attention(model), ExitStack() as stack:
        for site, reduce in sites.items():
            handle = find_module("attention_maps", model, site).register_forward_hook(reducer(site, reduce))
            stack.callback(handle.remove)
        yield found


@contextmanager
def _eager_attention(model: nn.Module) -> Iterator[None]:
    parts = [m for m in model.modules() if isinstance(m, PreTrainedModel)]
    before = [part.config._attn_implementation for part in parts]
    try:
        for part in parts:
            part.set_attn_implementation("eager")
        yield
    finally:
        for part, implementation in zip(parts, before, strict=True):  # outermost first: parts may differ from the whole
            part.set_attn_implementation(implementation)


def find_module(where: str, model: nn.Module, site: AnySite) -> nn.Module:
    """The module of a site, refused in the name of ``where`` if the model has none of that path."""
    if not isinstance(site, str):
        return site.module(model)
    try:
        return model.get_submodule(site)
    except AttributeError:
        pass
    parent = site
    while parent and not _has(model, parent):
        parent = parent.rpartition(".")[0]
    below = ", ".join(name for name, _ in model.get_submodule(parent).named_children()) or "nothing"
    raise refuse(where, "site", f"a module of {type(model).__name__}", site, f"below '{parent}' there is: {below}")


def _has(model: nn.Module, path: str) -> bool:
    try:
        model.get_submodule(path)
    except AttributeError:
        return False
    return True


class _Apply:
    """An edit, held to its contract."""

    def __init__(self, model: nn.Module, site: AnySite, edit: Edit) -> None:
        self.model, self.site, self.edit = model, site, edit

    def __call__(self, whole: Tensor) -> Tensor:
        columns = _columns(self.model, self.site)
        x = whole[..., columns]
        y = self.edit(x)
        if not isinstance(y, Tensor) or (y.shape, y.dtype, y.device) != (x.shape, x.dtype, x.device):
            raise refuse("steered", f"the edit at {_name(self.site)}", f"a function that returns {_shown(x)}",
                         _shown(y), "return a tensor like the one it was given")  # fmt: skip
        if columns == slice(None):
            return y
        return torch.cat([whole[..., : columns.start], y, whole[..., columns.stop :]], dim=-1)


def _install(
    stack: ExitStack, where: str, model: nn.Module, site: AnySite, fn: Callable[[Tensor], Tensor | None]
) -> None:
    """Call ``fn`` on the site's activation in every forward pass; what it returns, if anything, takes its place."""
    module = find_module(where, model, site)

    def first(values: Any) -> Tensor:
        x = values[0] if isinstance(values, (tuple, list)) and len(values) else values
        if not isinstance(x, Tensor):
            raise refuse(where, f"site {_name(site)}", "a module whose first value is a tensor [B, T, D]", _shown(x),
                         "name a block, an attention, an mlp or a linear module")  # fmt: skip
        return x

    def replaced(values: Any, y: Tensor | None) -> Any:
        if y is None:
            return None
        return (y, *values[1:]) if isinstance(values, (tuple, list)) else y

    def before(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        if args:
            new = replaced(args, fn(first(args)))
            return None if new is None else (new, kwargs)
        name = next(iter(kwargs), "")
        y = fn(first(kwargs.get(name)))
        return None if y is None else (args, {**kwargs, name: y})

    def after(_: nn.Module, args: Any, output: Any) -> Any:
        return replaced(output, fn(first(output)))

    if _at_input(site):
        handle = module.register_forward_pre_hook(before, with_kwargs=True)
    else:
        handle = module.register_forward_hook(after)
    stack.callback(handle.remove)


def _at_input(site: AnySite) -> bool:
    return not isinstance(site, str) and site.at_input


def _columns(model: nn.Module, site: AnySite) -> slice:
    return slice(None) if isinstance(site, str) else site.columns(model)


def _name(site: AnySite) -> str:
    return f"'{site}'" if isinstance(site, str) else str(site)


def _shown(x: object) -> str:
    return f"{x.dtype} {list(x.shape)} on {x.device}" if isinstance(x, Tensor) else type(x).__name__
