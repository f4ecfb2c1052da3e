"""Files that are either whole or not there: temporary file, fsync, rename."""

from __future__ import annotations

import errno
import hashlib
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from plumbline.core.errors import PlumblineError


@contextmanager
def atomic(path: Path | str) -> Iterator[Path]:
    """Yields a temporary path beside ``path``; on a clean exit it is synced and takes the name, else it is removed.

    Raises:
        PlumblineError: no space is left, or the folder cannot be written; nothing half-written stays.
    """
    path = Path(path)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield temporary
        with open(temporary, "rb+") as file:
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError as error:
        what = "no space is left on the device" if error.errno == errno.ENOSPC else (error.strerror or str(error))
        told = f"writing {path}: {what}; nothing half-written was left, free room and try again"
        raise PlumblineError(told) from error
    finally:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)


def write_text(path: Path | str, text: str) -> None:
    """Write UTF-8 text atomically."""
    with atomic(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def fingerprint(files: Iterable[Path], edge: int = 1 << 20) -> str:
    """A hash that tells versions of large files apart by their names, sizes, first and last bytes."""
    digest = hashlib.blake2b(digest_size=16)
    for file in sorted(files):
        size = file.stat().st_size
        digest.update(f"{file.name}:{size}".encode())
        with open(file, "rb") as opened:
            digest.update(opened.read(edge))
            opened.seek(max(0, size - edge))
            digest.update(opened.read(edge))
    return digest.hexdigest()
