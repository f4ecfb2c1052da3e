"""The same records over a local two-worker Ray cluster as without one."""

from __future__ import annotations

import pytest
from tests.diff.cases import PROMPTS, QA, TEXTS

import plumbline
from plumbline.core.errors import InputError
from plumbline.diff.prepare import Settings

ray = pytest.importorskip("ray")
SETTINGS = Settings(max_new_tokens=8, batch_tokens=100, samples=2)


def test_two_workers_write_the_same_records(pair, tmp_path):
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # as Ray gives its workers; sums then have one order
    given = {"prompts": PROMPTS, "qa": QA, "text": TEXTS, "settings": SETTINGS}
    alone = plumbline.compare(pair / "base", pair / "tuned", records=tmp_path / "alone", **given)
    spread = plumbline.compare(pair / "base", pair / "tuned", records=tmp_path / "spread", ray="local", **given)
    torch.set_num_threads(threads)
    for table in ("tokens", "outputs", "samples", "items"):
        assert alone.path(table).read_bytes() == spread.path(table).read_bytes(), table


def test_loaded_models_cannot_travel(pair, tmp_path):
    base, tuned = (plumbline.load(pair / name) for name in ("base", "tuned"))
    with pytest.raises(InputError, match="models named by folder"):
        plumbline.compare(base, tuned, text=TEXTS, records=tmp_path / "run", ray="local")
