"""Random generators that are handed down: an independent stream per key path, and never a global seed."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import numpy as np
import torch


def derive(seed: int, *keys: str | int) -> int:
    r"""A 63-bit seed for the stream named by ``keys``.

    .. math:: s = \mathrm{blake2b}_{64}(\mathrm{seed} \,\|\, k_1 \,\|\, k_2 \ldots) \bmod 2^{63}

    Every part is written with its type and length, so ``("a", "b")`` and ``("ab",)``, or ``1`` and ``"1"``, are
    different streams. The result depends on nothing else: not on the machine, the process or the order of calls.

    Args:
        seed: the user's seed (any integer).
        keys: names or numbers that say which stream this is, for example a tensor's name or a prompt's row.

    Returns:
        An integer in [0, 2^63).
    """
    digest = hashlib.blake2b(digest_size=8)
    for part in (int(seed), *keys):
        text = part if isinstance(part, str) else str(int(part))
        data = text.encode("utf-8", "surrogatepass")
        digest.update(f"{'s' if isinstance(part, str) else 'i'}{len(data)}:".encode() + data)
    return int.from_bytes(digest.digest(), "little") >> 1


def generator(seed: int, *keys: str | int, device: torch.device | str = "cpu") -> torch.Generator:
    """A torch generator for the stream ``(seed, *keys)``.

    Args:
        seed: the user's seed.
        keys: the path of the stream, see :func:`derive`.
        device: where the generator draws. Streams of different devices differ, as torch's own do.

    Returns:
        A fresh ``torch.Generator`` on ``device``.
    """
    stream = torch.Generator(device=device)
    stream.manual_seed(derive(seed, *keys))
    return stream


def rng(seed: int, *keys: str | int) -> np.random.Generator:
    """A numpy generator (PCG64) for the stream ``(seed, *keys)``; see :func:`derive`."""
    return np.random.default_rng(derive(seed, *keys))


@contextmanager
def forked(seed: int, *keys: str | int, devices: Sequence[torch.device | str | int] = ()) -> Iterator[None]:
    """Seed torch's global generators inside a block, and put them back as they were after it.

    For code that cannot take a generator (``generate``, dropout, module initialisation). The global state is restored
    after an exception as well.

    Args:
        seed: the user's seed.
        keys: the path of the stream, see :func:`derive`.
        devices: accelerator devices whose generators the block uses as well; the cpu's is always included, and a
            ``cpu`` entry is ignored.
    """
    value = derive(seed, *keys)
    accelerators = [_indexed(torch.device("cuda", d) if isinstance(d, int) else torch.device(d)) for d in devices]
    accelerators = [d for d in accelerators if d.type != "cpu"]
    kind = accelerators[0].type if accelerators else "cuda"
    with torch.random.fork_rng(devices=accelerators, device_type=kind):
        # torch.manual_seed would also reseed accelerators that the fork did not save.
        torch.default_generator.manual_seed(value)
        for device in accelerators:
            stream = torch.Generator(device=device)
            stream.manual_seed(value)
            getattr(torch, kind).set_rng_state(stream.get_state(), device)
        yield


def _indexed(device: torch.device) -> torch.device:
    if device.type == "cpu" or device.index is not None:
        return device
    return torch.device(device.type, getattr(torch, device.type).current_device())
