"""A run folder: units of work saved one by one, so that a killed run goes on where it stopped."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from plumbline.core.errors import refuse
from plumbline.diff.prepare import Entry, Prepared, Settings
from plumbline.diff.work import Tables, Worker
from plumbline.kernels.files import atomic, write_text

Todo = Sequence[tuple[int, str, list[Entry]]]


class Run:
    """``folder/parts`` holds one set of files per finished unit, ``folder/*.parquet`` the whole when all are done.

    Every file is whole or absent, and a unit counts only when its ``.done`` marker, written last, is there.
    ``spec`` says what decides the records; a folder made with another spec is not resumed.
    """

    def __init__(self, folder: Path, spec: dict[str, Any], *, resume: bool) -> None:
        self.folder, self.parts = folder, folder / "parts"
        self.spec = json.loads(json.dumps(spec))
        found = self._found()
        if resume and found is not None:
            self._same(found["spec"])
            return
        if folder.exists() and any(folder.iterdir()) and found is None:
            raise refuse(
                "diff", "records", "an empty or new folder, or one of an earlier run", f"{folder} with other files",
                "name another folder",
            )  # fmt: skip
        for stale in (self.parts, *folder.glob("*.parquet")):
            shutil.rmtree(stale) if stale.is_dir() else stale.unlink(missing_ok=True)
        write_text(folder / "run.json", json.dumps({"spec": self.spec, "state": "running"}, indent=1))

    def _found(self) -> dict[str, Any] | None:
        try:
            return json.loads((self.folder / "run.json").read_text())
        except FileNotFoundError:
            return None
        except ValueError:
            raise refuse(
                "diff", "records", "a run folder", f"{self.folder} with a broken run.json", "name another folder"
            ) from None

    def _same(self, found: dict[str, Any]) -> None:
        differ = [key for key in sorted({*found, *self.spec}) if found.get(key) != self.spec.get(key)]
        if differ:
            key = differ[0]
            raise refuse(
                "diff --resume", key, f"as in the run to resume ({found.get(key)!r})", repr(self.spec.get(key)),
                "run with the same inputs and options, or without --resume to start anew",
            )  # fmt: skip

    @property
    def finished(self) -> bool:
        return (self._found() or {}).get("state") == "finished"

    def done(self, number: int) -> bool:
        return (self.parts / f"{number:06d}.done").exists()

    def save(self, number: int, tables: Tables) -> None:
        """Write a unit's tables, its marker last."""
        for name, table in tables.items():
            with atomic(self.parts / f"{number:06d}.{name}.parquet") as temporary:
                pq.write_table(table, temporary)
        write_text(self.parts / f"{number:06d}.done", json.dumps(sorted(tables)))

    def finish(self, units: int, **more: pa.Table) -> None:
        """Join the parts, in the order of the units, into one file per table; then the parts may go."""
        held: dict[str, list[Path]] = {}
        for number in range(units):
            for name in json.loads((self.parts / f"{number:06d}.done").read_text()):
                held.setdefault(name, []).append(self.parts / f"{number:06d}.{name}.parquet")
        for name, files in sorted(held.items()):
            with atomic(self.folder / f"{name}.parquet") as temporary:
                with pq.ParquetWriter(temporary, pq.read_schema(files[0])) as writer:
                    for file in files:
                        writer.write_table(pq.read_table(file))
        for name, table in more.items():
            with atomic(self.folder / f"{name}.parquet") as temporary:
                pq.write_table(table, temporary)
        write_text(self.folder / "run.json", json.dumps({"spec": self.spec, "state": "finished"}, indent=1))
        shutil.rmtree(self.parts, ignore_errors=True)


def todo(run: Run, prepared: Prepared, settings: Settings) -> list[tuple[int, str, list[Entry]]]:
    """The units that have no marker yet."""
    units = enumerate(prepared.units(settings))
    return [(n, stage, [prepared.entries[i] for i in which]) for n, (stage, which) in units if not run.done(n)]


def local(worker: Worker, work: Todo) -> Iterator[tuple[int, Tables]]:
    """Units one after the other in this process."""
    for number, stage, entries in work:
        yield number, worker.run(stage, entries, number)


def over_ray(address: str, make: Any, work: Todo) -> Iterator[tuple[int, Tables]]:
    """Units over Ray actors, each holding its own pair of models; ``make()`` builds a Worker in the actor.

    ``address`` is ``local`` (two workers on this machine) or the address of a running cluster (one per node).
    """
    try:
        import ray
        from ray.util import ActorPool
    except ImportError:
        raise refuse("diff", "ray", "installed for --ray", "no ray", "pip install 'plumbline[ray]'") from None
    mine = not ray.is_initialized()
    if mine:
        where = {"num_cpus": 2, "include_dashboard": False} if address == "local" else {"address": address}
        ray.init(log_to_driver=False, logging_level="error", **where)
    try:
        count = max(2, len([n for n in ray.nodes() if n["Alive"]]))
        wanted = {"num_cpus": 1, "num_gpus": 1 if ray.cluster_resources().get("GPU", 0) >= count else 0}
        actor = ray.remote(**wanted)(_Actor)
        pool = ActorPool([actor.remote(make) for _ in range(min(count, max(1, len(work))))])
        yield from pool.map_unordered(lambda a, unit: a.run.remote(*unit), work)
    finally:
        if mine:
            ray.shutdown()


class _Actor:
    """One pair of models on one Ray worker."""

    def __init__(self, make: Any) -> None:
        self.worker: Worker = make()

    def run(self, number: int, stage: str, entries: list[Entry]) -> tuple[int, Tables]:
        return number, self.worker.run(stage, entries, number)
