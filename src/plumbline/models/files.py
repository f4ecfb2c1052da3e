"""What a checkpoint folder must hold before any weight is read; each fault names its file. Reads headers only."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from plumbline.core.errors import LoadError, PlumblineError, refuse

T = TypeVar("T")
CONFIG = "config.json"
ADAPTER_CONFIG = "adapter_config.json"
_WHOLE = "model.safetensors"
_PICKLES = ("pytorch_model.bin", "pytorch_model.bin.index.json")
_BOTH_WAYS = {
    "bert",
    "big_bird",
    "camembert",
    "data2vec-text",
    "electra",
    "ernie",
    "megatron-bert",
    "rembert",
    "roberta",
}
_BOTH_WAYS |= {
    "roberta-prelayernorm",
    "roc_bert",
    "roformer",
    "xlm-roberta",
    "xlm-roberta-xl",
    "xmod",
}  # as encoders do
_HEADER_LIMIT = 100_000_000  # bytes; the limit of the format itself


def fault(argument: str, expected: str, got: Any, do: str) -> PlumblineError:
    return refuse("load", argument, expected, str(got), do, error=LoadError)


def attempt(what: str, expected: str, do: str, call: Callable[[], T]) -> T:
    """One line for whatever transformers, tokenizers and PEFT raise; tokenizers raises bare ``Exception``."""
    try:
        return call()
    except PlumblineError:
        raise
    except Exception as raised:
        text = str(raised)
        if "trust_remote_code" in text:
            do = "read that code, then pass --trust-remote-code (trust_remote_code=True) if you trust its author"
            raise fault(what, "a model of transformers itself", "one that brings its own code", do) from raised
        lines = [line.strip() for line in text.splitlines() if line.strip()] or [type(raised).__name__]
        first = " ".join(lines[: 2 if lines[0].endswith(":") else 1])
        raise fault(what, expected, first, do) from raised


def read_json(path: Path) -> dict[str, Any]:
    """The object in a JSON file of a checkpoint; ``LoadError`` when it is missing, unreadable or something else."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as raised:
        raise fault(str(path), "a readable JSON file", raised, "copy the file again or save the model anew") from raised
    if not isinstance(found, dict):
        raise fault(str(path), "a JSON object", type(found).__name__, "copy the file again or save the model anew")
    return found


def header(path: Path) -> dict[str, Any]:
    """The header of one safetensors file, after checking that the file is as long as its header says.

    The format: 8 bytes with the header's length n, n bytes of JSON with the tensors' offsets, then the data.
    """
    again = "copy or download this file again"
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            start = file.read(8)
            length = int.from_bytes(start, "little")
            if start.startswith(b"version "):
                raise fault(str(path), "a safetensors file", "a Git LFS pointer", "run `git lfs pull` in its folder")
            if size < 8 or length > min(size - 8, _HEADER_LIMIT):
                raise fault(
                    str(path), "a whole safetensors file", f"{size} bytes, cut off in or before its header", again
                )
            found = json.loads(file.read(length))
        ends = [info["data_offsets"][1] for name, info in found.items() if name != "__metadata__"]
        expected = 8 + length + max(ends, default=0)
    except PlumblineError:
        raise
    except OSError as raised:
        raise fault(str(path), "a readable file", raised, "check its permissions") from raised
    except Exception as raised:  # a damaged header can be any JSON value, or none
        raise fault(str(path), "a safetensors file", "a damaged header", again) from raised
    if size != expected:
        raise fault(str(path), f"{expected} bytes, as its header says", f"{size} bytes (truncated or damaged)", again)
    return found


def check_weights(folder: Path, allow_pickle: bool) -> None:
    """Refuse a folder whose weights are absent, incomplete, damaged, or pickled without leave."""
    index = folder / f"{_WHOLE}.index.json"
    if (folder / _WHOLE).exists():
        header(folder / _WHOLE)
    elif index.exists():
        named = read_json(index).get("weight_map")
        if not isinstance(named, dict) or not all(isinstance(file, str) for file in named.values()):
            raise fault(str(index), "an index with a weight_map", "none", "save the model anew")
        for file in sorted(set(named.values())):
            if not (folder / file).exists():
                raise fault(str(index), "an index of files that are there", f"no {file}", "copy the missing shard")
            header(folder / file)
    else:
        _check_pickles(folder, _PICKLES, _WHOLE, allow_pickle)


def check_adapter(folder: Path, allow_pickle: bool) -> None:
    """The same for an adapter folder."""
    path = folder / "adapter_model.safetensors"
    if path.exists():
        header(path)
    else:
        _check_pickles(folder, ("adapter_model.bin",), path.name, allow_pickle)


def _check_pickles(folder: Path, pickles: tuple[str, ...], wanted: str, allow_pickle: bool) -> None:
    there = [name for name in pickles if (folder / name).exists()]
    if not there:
        raise fault(str(folder), f"a folder with {wanted}", "no weights", "name the folder that holds the weights")
    if not allow_pickle:
        do = "convert it with save_pretrained, or pass --allow-pickle (allow_pickle=True) if you trust its author"
        raise fault(str(folder), "a folder with safetensors weights", f"only {there[0]}", do)


def rows(folder: Path) -> int | None:
    """How many tokens the embedding or head in an adapter's own weights has; None when it holds neither."""
    path = folder / "adapter_model.safetensors"
    if not path.exists():
        return None
    ends = ("embed_tokens.weight", "wte.weight", "embed_in.weight", "lm_head.weight", "embed_out.weight")
    found = {name: info for name, info in header(path).items() if name.endswith(ends)}
    return next((info["shape"][0] for info in found.values()), None)


def is_causal(config: Any, names: dict[str, Any]) -> bool:
    """Whether a transformers config is of a left-to-right language model.

    Args:
        config: the loaded config.
        names: model type -> causal class name(s), as transformers maps them.
    """
    if getattr(config, "is_encoder_decoder", False):
        return False
    known = {c for value in names.values() for c in ((value,) if isinstance(value, str) else value)}
    listed = config.architectures or []
    if getattr(config, "is_decoder", None) is False and config.model_type in _BOTH_WAYS:
        return False
    brought = "AutoModelForCausalLM" in (getattr(config, "auto_map", None) or {})
    if not listed:
        return brought or config.model_type in names
    return brought or any(name in known for name in listed)
