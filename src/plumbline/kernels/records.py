"""Records: what one comparison of two models leaves on disk, and what a probe receives."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from plumbline.core.errors import InputError

if TYPE_CHECKING:
    import pandas as pd


class Records:
    """The tables of one comparison, read lazily from Parquet; arm a is the base, arm b the tuned model.

    Tables: ``items`` (one row per input), ``outputs`` (per item and arm), ``tokens`` (per scored position),
    ``samples`` (per item, arm and sample), ``spans`` (models with different tokenizers), ``vocab`` (id, text).
    Natural logarithms throughout.

    Attributes:
        folder: where the tables and ``run.json`` lie.
        meta: how the run was made (names, versions, seed, hashes, counts).
        base, tuned: the models, or None when a finished run is read without them.
    """

    def __init__(self, folder: Path | str, meta: dict[str, Any], *, base: Any = None, tuned: Any = None) -> None:
        self.folder = Path(folder)
        self.meta = meta
        self.base = base
        self.tuned = tuned
        self._vocab: dict[int, str] | None = None

    @classmethod
    def of(
        cls,
        folder: Path | str,
        meta: dict[str, Any] | None = None,
        *,
        base: Any = None,
        tuned: Any = None,
        **tables: Any,
    ) -> Records:
        """Records written by hand: ``Records.of(tmp, tokens=DataFrame, outputs=DataFrame)``."""
        import pyarrow as pa
        import pyarrow.parquet as pq

        Path(folder).mkdir(parents=True, exist_ok=True)
        for name, frame in tables.items():
            pq.write_table(pa.Table.from_pandas(frame, preserve_index=False), Path(folder) / f"{name}.parquet")
        return cls(folder, meta or {}, base=base, tuned=tuned)

    def path(self, table: str) -> Path:
        return self.folder / f"{table}.parquet"

    def has(self, table: str) -> bool:
        """Whether the run wrote this table."""
        return self.path(table).exists()

    def batches(self, table: str, columns: Sequence[str] | None = None, rows: int = 65_536) -> Iterator[pd.DataFrame]:
        """The table in blocks of at most ``rows`` rows, so that memory stays bounded whatever its length."""
        import pyarrow.parquet as pq

        if not self.has(table):
            raise InputError(
                f"records: table {table!r} must exist in {self.folder}, got none; run the comparison first"
            )
        with pq.ParquetFile(self.path(table)) as file:
            for batch in file.iter_batches(batch_size=rows, columns=list(columns) if columns else None):
                yield batch.to_pandas()

    def table(self, table: str, columns: Sequence[str] | None = None) -> pd.DataFrame:
        """The whole table, or some of its columns, in memory."""
        import pandas as pd

        frames = list(self.batches(table, columns))
        if frames:
            return pd.concat(frames, ignore_index=True)
        import pyarrow.parquet as pq

        return pq.read_table(self.path(table), columns=list(columns) if columns else None).to_pandas()

    def token(self, id: int) -> str:
        """The token's text as the tokenizer decodes it alone; ``<id>`` where the run kept no vocabulary."""
        if self._vocab is None:
            frame = self.table("vocab") if self.has("vocab") else None
            self._vocab = {} if frame is None else dict(zip(frame["id"].tolist(), frame["text"].tolist(), strict=True))
        return self._vocab.get(int(id), f"<{int(id)}>")
