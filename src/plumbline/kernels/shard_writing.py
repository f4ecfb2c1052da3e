"""Writing checkpoints as a stream. Re-exported by ``kernels.shards``."""

from __future__ import annotations

import errno
import json
import os
import re
import secrets
from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, BinaryIO

import torch
from torch import Tensor

from plumbline.core.errors import PlumblineError, refuse
from plumbline.kernels.shard_reading import DTYPES, Shards

_NAMES = {dtype: name for name, dtype in DTYPES.items()}
_OURS = re.compile(r"model(-\d{5}-of-\d{5})?\.safetensors(\.index\.json)?")


class _Part:
    """One shard being written: the data first, at a place that leaves room for the header."""

    def __init__(self, folder: Path, room: int) -> None:
        self.path = folder / f".{secrets.token_hex(6)}.safetensors.tmp"
        self.room = (room + 7) // 8 * 8
        self.entries: list[tuple[str, torch.dtype, list[int], int, int]] = []
        self.size = 0
        self.file: BinaryIO = self.path.open("w+b")
        self.file.seek(8 + self.room)

    def add(self, name: str, tensor: Tensor) -> None:
        data = tensor.detach().cpu().contiguous().reshape(-1)
        if data.numel():
            self.file.write(data.view(torch.uint8).numpy().data)
        count = data.numel() * data.element_size()
        self.entries.append((name, tensor.dtype, list(tensor.shape), self.size, count))
        self.size += count

    def finish(self, metadata: Mapping[str, str]) -> None:
        """Write the header. Readers want every tensor aligned to its own width: reorder where it is not."""
        aligned = all(start % dtype.itemsize == 0 for _, dtype, _, start, _ in self.entries)
        order = self.entries if aligned else sorted(self.entries, key=lambda e: (-e[1].itemsize, e[0]))
        head: dict[str, Any] = {"__metadata__": dict(metadata)}
        at = 0
        for name, dtype, shape, _, count in order:
            head[name] = {"dtype": _NAMES[dtype], "shape": shape, "data_offsets": [at, at + count]}
            at += count
        text = json.dumps(head, separators=(",", ":")).encode()
        if not aligned or len(text) > self.room:
            self._copy(order, (len(text) + 7) // 8 * 8)
        self.file.seek(0)
        self.file.write(self.room.to_bytes(8, "little") + text.ljust(self.room))
        self.file.flush()
        os.fsync(self.file.fileno())
        self.file.close()

    def _copy(self, order: list[tuple[str, torch.dtype, list[int], int, int]], room: int) -> None:
        old, base = self.file, 8 + self.room
        self.file, self.room = None, room  # type: ignore[assignment]
        with old:
            os.unlink(self.path)  # the open handle keeps the data until it is copied
            self.file = self.path.open("w+b")
            self.file.seek(8 + room)
            for *_, start, count in order:
                old.seek(base + start)
                while count:
                    block = old.read(min(count, 2**24))
                    self.file.write(block)
                    count -= len(block)

    def discard(self) -> None:
        with suppress(OSError):  # flushing what did not fit fails again
            self.file.close()
        self.path.unlink(missing_ok=True)


def write(
    folder: Path | str,
    tensors: Iterable[tuple[str, Tensor]] | Mapping[str, Tensor],
    *,
    max_shard_bytes: int = 5_000_000_000,
    metadata: Mapping[str, str] | None = None,
    like: Shards | None = None,
) -> Shards:
    """Write a checkpoint as tensors arrive; weights already in the folder stay until all of the new ones are on disk.

    One tensor is held at a time. Temporary files, fsync, then renames, the index last; older weights of the same
    naming are removed after that. With ``like`` its names must come back exactly, tied names are skipped, and its
    headers say how much room to leave, so that every byte is written once.

    Args:
        folder: made if absent.
        tensors: (name, tensor) pairs, any device and layout.
        max_shard_bytes: a tensor larger than that is a shard of its own.
        metadata: for ``__metadata__``; "format" is "pt" unless given.
        like: the checkpoint this one replaces or derives from.

    Raises:
        InputError: a repeated, missing or unknown name, a dtype without a safetensors name.
        PlumblineError: the device is full, or cannot be written. Temporary files are removed.
    """
    target = Path(folder)
    told = {"format": "pt"} | (like.metadata if like else {}) | dict(metadata or {})
    room = 256 + sum(len(n) + 160 for n in like.names()) + len(json.dumps(told)) if like else 0
    parts: list[_Part] = []
    try:
        target.mkdir(parents=True, exist_ok=True)
        where = _fill(target, tensors, parts, max_shard_bytes, told, like, room)
        _publish(target, parts, where)
    except OSError as error:
        full = error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
        do = "free space or choose another folder" if full else "check the folder"
        reason = error.strerror or str(error)
        raise refuse("write", "folder", f"writable ({target})", reason, do, error=PlumblineError) from error
    finally:
        for part in parts:
            part.discard()
    return Shards(target)


def _fill(
    target: Path, tensors: Any, parts: list[_Part], limit: int, told: dict[str, str], like: Shards | None, room: int
) -> dict[str, int]:
    where: dict[str, int] = {}
    for name, tensor in tensors.items() if isinstance(tensors, Mapping) else tensors:
        if like is not None and name in like.alias:
            continue
        if name in where:
            raise refuse("write", "tensors", "distinct names", f"{name!r} twice", "yield each name once")
        if tensor.dtype not in _NAMES or tensor.layout != torch.strided or tensor.is_meta:
            raise refuse("write", name, "a dense tensor in a safetensors dtype", str(tensor.dtype), "convert it first")
        size = tensor.numel() * tensor.element_size()
        if not parts or (parts[-1].entries and parts[-1].size + size > limit):
            if parts:
                parts[-1].finish(told)
            parts.append(_Part(target, room))
        parts[-1].add(name, tensor)
        where[name] = len(parts) - 1
    if like is not None and set(where) != set(like.names()):
        odd = sorted(set(where) ^ set(like.names()))[:3]
        raise refuse(
            "write", "tensors", f"the names of {like.folder}", f"a difference in {odd}", "yield every name once"
        )
    if not parts:
        parts.append(_Part(target, room))
    parts[-1].finish(told)
    return where


def _publish(target: Path, parts: list[_Part], where: dict[str, int]) -> None:
    n = len(parts)
    names = [f"model-{i + 1:05d}-of-{n:05d}.safetensors" for i in range(n)] if n > 1 else ["model.safetensors"]
    old = {path.name for path in target.iterdir() if _OURS.fullmatch(path.name)}
    for part, name in zip(parts, names, strict=True):
        os.replace(part.path, target / name)
    if n > 1:
        total = sum(part.size for part in parts)
        index = {"metadata": {"total_size": total}, "weight_map": {k: names[i] for k, i in sorted(where.items())}}
        names.append("model.safetensors.index.json")
        fresh = target / f".{secrets.token_hex(6)}.json.tmp"
        try:
            with fresh.open("w", encoding="utf-8") as file:
                json.dump(index, file, indent=2)
                file.flush()
                os.fsync(file.fileno())
            os.replace(fresh, target / names[-1])
        finally:
            fresh.unlink(missing_ok=True)
    for name in old - set(names):
        (target / name).unlink(missing_ok=True)
    if os.name == "posix":
        handle = os.open(target, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
