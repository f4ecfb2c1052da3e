from __future__ import annotations

import pandas as pd
import pytest

from plumbline.core.errors import InputError
from plumbline.kernels.records import Records


def test_tables_stream_and_select(tmp_path):
    frame = pd.DataFrame({"item": range(10), "kl_ab": [i / 10 for i in range(10)]})
    records = Records.of(tmp_path, {"seed": 0}, tokens=frame, vocab=pd.DataFrame({"id": [3], "text": [" a"]}))
    assert [len(b) for b in records.batches("tokens", ["item"], rows=4)] == [4, 4, 2]
    assert records.table("tokens", ["kl_ab"]).columns.tolist() == ["kl_ab"]
    assert records.token(3) == " a" and records.token(4) == "<4>"
    assert records.has("tokens") and not records.has("spans")
    with pytest.raises(InputError, match="table 'spans' must exist"):
        records.table("spans")


def test_an_empty_table_keeps_its_columns(tmp_path):
    records = Records.of(tmp_path, tokens=pd.DataFrame({"item": pd.Series([], dtype="int32")}))
    assert records.table("tokens").columns.tolist() == ["item"]
