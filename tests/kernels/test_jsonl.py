from __future__ import annotations

import gzip

import pytest

from plumbline.core.errors import InputError
from plumbline.kernels.jsonl import rows, shown, stem


def test_lines_keep_their_numbers(tmp_path):
    data = b'\xef\xbb\xbf{"a": 1}\r\n\n[2]\n'
    (tmp_path / "x.jsonl").write_bytes(data)
    (tmp_path / "x.jsonl.gz").write_bytes(gzip.compress(data))
    for name in ("x.jsonl", "x.jsonl.gz"):
        assert list(rows(tmp_path / name)) == [(1, {"a": 1}), (3, [2])] and stem(tmp_path / name) == "x"
    assert (shown("-"), stem("-")) == ("<stdin>", "stdin")


@pytest.mark.parametrize(("data", "told"), [(b"{", ":1: .*malformed"), (b'{"a": NaN}', "NaN"), (b"\xff", "UTF-8")])
def test_bad_lines(tmp_path, data, told):
    (tmp_path / "x.jsonl").write_bytes(data)
    with pytest.raises(InputError, match=told):
        list(rows(tmp_path / "x.jsonl"))
    with pytest.raises(InputError, match="a readable JSONL file"):
        list(rows(tmp_path / "none.jsonl"))
