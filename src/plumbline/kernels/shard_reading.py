"""Reading checkpoints lazily, tensor by tensor. Re-exported by ``kernels.shards``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors import safe_open
from torch import Tensor

from plumbline.core.errors import LoadError, PlumblineError, refuse

DTYPES: dict[str, torch.dtype] = {
    "F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16, "BOOL": torch.bool,
    "I64": torch.int64, "I32": torch.int32, "I16": torch.int16, "I8": torch.int8, "U8": torch.uint8,
    "U16": torch.uint16, "U32": torch.uint32, "U64": torch.uint64, "C64": torch.complex64,
    "F8_E4M3": torch.float8_e4m3fn, "F8_E5M2": torch.float8_e5m2,
}  # fmt: skip
_INPUT = ("embed_tokens.weight", "wte.weight", "embed_in.weight", "word_embeddings.weight", "tok_embeddings.weight")
_OUTPUT = ("lm_head.weight", "embed_out.weight")
_AGAIN = "copy or download this file again"


def _fault(path: Path, expected: str, got: Any, do: str) -> PlumblineError:
    return refuse("shards", str(path), expected, str(got), do, error=LoadError)


class _Entry(NamedTuple):
    file: Path
    dtype: torch.dtype | None  # None: pickled, not known before loading
    shape: tuple[int, ...]


class Shards:
    """A checkpoint on disk. Names, shapes and dtypes come from the headers; values are read one tensor at a time.

    Reads a single safetensors file, a sharded index, an adapter's file, or (with ``allow_pickle``) PyTorch pickles.

    Attributes:
        folder: where it lies.
        alias: names that are absent because the model ties them, and the stored name each equals.
        metadata: the ``__metadata__`` of the first file.

    Raises:
        LoadError: no weights, a missing shard or index entry, a truncated or damaged file (named), pickles without
            leave.
    """

    def __init__(self, folder: Path | str, *, allow_pickle: bool = False) -> None:
        path = Path(folder)
        self.folder = path if path.is_dir() else path.parent
        self.metadata: dict[str, str] = {}
        self._entries: dict[str, _Entry] = {}
        self._open: tuple[Path, Any] | None = None  # one handle (or one unpickled file) at a time
        source = _find(path, allow_pickle)
        if source.name.endswith(".index.json"):
            self._read_index(source)
        else:
            self._entries = self._read(source)
        self.alias = _ties(self.folder, set(self._entries))

    def _read_index(self, source: Path) -> None:
        try:
            wanted = json.loads(source.read_text(encoding="utf-8"))["weight_map"]
            files = {str(file) for file in wanted.values()}
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise _fault(source, "an index with a weight_map", repr(error), "save the model anew") from error
        held: dict[str, dict[str, _Entry]] = {}
        for file in sorted(files):
            if Path(file).name != file:
                raise _fault(source, "an index of files beside it", file, "save the model anew")
            if not (self.folder / file).is_file():
                raise _fault(source, "an index of files that are there", f"no {file}", "copy the missing shard")
            held[file] = self._read(self.folder / file)
        for name, file in wanted.items():
            if name not in held[file]:
                raise _fault(self.folder / file, f"holding {name!r}, as the index says", "a file without it", _AGAIN)
            self._entries[name] = held[file][name]

    def _read(self, path: Path) -> dict[str, _Entry]:
        if path.suffix in (".bin", ".pt", ".pth"):
            return {name: _Entry(path, t.dtype, tuple(t.shape)) for name, t in self._handle(path).items()}
        found = header(path)
        self.metadata = self.metadata or dict(found.pop("__metadata__", {}))
        found.pop("__metadata__", None)
        return {name: _Entry(path, DTYPES.get(i["dtype"]), tuple(i["shape"])) for name, i in found.items()}

    def names(self) -> list[str]:
        """The stored names, sorted; tied names that are absent are in ``alias`` only."""
        return sorted(self._entries)

    def __contains__(self, name: str) -> bool:
        return self.alias.get(name, name) in self._entries

    def _entry(self, name: str) -> _Entry:
        try:
            return self._entries[self.alias.get(name, name)]
        except KeyError:
            known = ", ".join(self.names()[:3])
            raise refuse("shards", "name", f"a tensor of {self.folder} ({known}, ...)", name, "see names()") from None

    def shape(self, name: str) -> tuple[int, ...]:
        """The tensor's shape, without reading it."""
        return self._entry(name).shape

    def dtype(self, name: str) -> torch.dtype:
        """The tensor's stored dtype, without reading it."""
        entry = self._entry(name)
        if entry.dtype is None:
            raise _fault(entry.file, f"{name} in a dtype torch has", "another", "convert it first")
        return entry.dtype

    def get(self, name: str, rows: slice | None = None) -> Tensor:
        """The tensor on the cpu in its stored dtype, or ``rows`` of its first dimension."""
        entry = self._entry(name)
        stored = self.alias.get(name, name)
        handle = self._handle(entry.file)
        if isinstance(handle, dict):
            whole: Tensor = handle[stored]
            return whole if rows is None else whole[rows]
        try:
            found: Tensor = handle.get_tensor(stored) if rows is None else handle.get_slice(stored)[rows]
            return found
        except Exception as error:  # safetensors has no public base class for its errors
            raise _fault(entry.file, f"a file from which {name} can be read", error, _AGAIN) from error

    def _handle(self, path: Path) -> Any:
        if self._open is None or self._open[0] != path:
            self._open = None
            try:
                opened: Any
                if path.suffix == ".safetensors":
                    opened = safe_open(path, framework="pt", device="cpu")
                else:
                    opened = dict(torch.load(path, map_location="cpu", weights_only=True, mmap=True))
            except Exception as error:  # as above; unpickling can raise anything
                raise _fault(path, "a readable weight file", error, _AGAIN) from error
            self._open = (path, opened)
        return self._open[1]


def header(path: Path) -> dict[str, Any]:
    """The header of a safetensors file: name -> {dtype, shape, data_offsets}; the file must be exactly that long."""
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
            if size < 8 or length > size - 8:
                raise _fault(path, "a whole safetensors file", f"{size} bytes, cut off in its header", _AGAIN)
            found: dict[str, Any] = json.loads(file.read(length))
        ends = [info["data_offsets"][1] for name, info in found.items() if name != "__metadata__"]
        expected = 8 + length + max(ends, default=0)
    except OSError as error:
        raise _fault(path, "a readable file", error.strerror, "check its path and permissions") from error
    except (ValueError, KeyError, TypeError, AttributeError, IndexError, RecursionError) as error:
        raise _fault(path, "a safetensors file", "a damaged header", _AGAIN) from error
    if size != expected:
        raise _fault(path, f"{expected} bytes, as its header says", f"{size} bytes (truncated or damaged)", _AGAIN)
    return found


def _find(path: Path, allow_pickle: bool) -> Path:
    if path.is_file():
        candidates = [path]
    else:
        fixed = ("model.safetensors", "model.safetensors.index.json", "adapter_model.safetensors")
        candidates = [path / name for name in fixed]
        candidates += [*sorted(path.glob("*.safetensors.index.json")), *sorted(path.glob("*.safetensors"))]
        candidates += [
            path / name for name in ("pytorch_model.bin", "pytorch_model.bin.index.json", "adapter_model.bin")
        ]
    found = next((c for c in candidates if c.is_file()), None)
    if found is None:
        raise _fault(
            path, "a folder with model.safetensors", "no weights", "pass the folder that save_pretrained wrote"
        )
    if ".safetensors" not in found.name and not allow_pickle:
        do = "save it as safetensors, or pass allow_pickle=True if you trust its author"
        raise _fault(found, "safetensors", "pickled weights", do)
    return found


def _ties(folder: Path, names: set[str]) -> dict[str, str]:
    """Whichever of input embedding and output head is absent, where config.json does not say that they are untied."""
    try:
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        inner = config.get("text_config") or {}
        tied = config.get("tie_word_embeddings", inner.get("tie_word_embeddings", True))
    except (OSError, ValueError, AttributeError):
        return {}
    inputs = [n for n in names if n.endswith(_INPUT)]
    outputs = [n for n in names if n.endswith(_OUTPUT)]
    if not tied or len(inputs) + len(outputs) != 1:
        return {}
    if inputs:
        return {("embed_out.weight" if inputs[0].endswith("embed_in.weight") else "lm_head.weight"): inputs[0]}
    return {"model.embed_tokens.weight": outputs[0]}
