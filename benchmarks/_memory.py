"""Time and peak memory of a callable in a process of its own."""

from __future__ import annotations

import multiprocessing
import resource
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import Any


@dataclass(frozen=True)
class Cost:
    """``seconds``: median of the repeats after one warm-up. ``peak_mb``: growth of the peak resident set."""

    seconds: float
    peak_mb: float


def measure(prepare: Callable[..., Callable[[], Any]], *args: Any, repeats: int = 3, threads: int = 2) -> Cost:
    """Run ``prepare(*args)`` and then what it returns, in a fresh process; ``prepare`` must be importable.

    The peak counts what the call adds to the inputs that ``prepare`` made, warm-up included.
    """
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=_child, args=(theirs, prepare, args, repeats, threads))
    process.start()
    theirs.close()
    try:
        return Cost(*ours.recv())
    except EOFError as e:
        process.join()
        raise RuntimeError(f"{prepare.__name__} ended with exit code {process.exitcode}") from e
    finally:
        process.join()


def _child(pipe: Connection, prepare: Callable[..., Any], args: tuple[Any, ...], repeats: int, threads: int) -> None:
    import torch

    torch.set_num_threads(threads)
    run = prepare(*args)
    small = torch.randn(64, 64)
    (small @ small).exp().sum().item()  # libraries allocate their own workspaces on first use
    before = _peak_kb(reset=True)
    run()
    peak = _peak_kb()
    seconds = []
    for _ in range(repeats):
        start = time.perf_counter()
        run()
        seconds.append(time.perf_counter() - start)
    pipe.send((statistics.median(seconds), max(0.0, peak - before) / 1024))
    pipe.close()


def _peak_kb(reset: bool = False) -> float:
    """Peak resident set in kB; with ``reset``, of this moment on where the kernel allows it."""
    if reset:
        try:
            with open("/proc/self/clear_refs", "w") as f:
                f.write("5")
        except OSError:  # without it the inputs' own peak is the base, which only flatters nobody
            pass
    try:
        with open("/proc/self/status") as f:
            return float(next(line.split()[1] for line in f if line.startswith("VmHWM")))
    except OSError:
        return float(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
