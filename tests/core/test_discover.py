from __future__ import annotations

import subprocess
import sys

import pytest

import plumbline.objectives
from plumbline.core import discover
from plumbline.core.errors import DeclarationError, InputError


def test_the_file_listing_is_the_registry():
    cards = discover.catalogue()
    assert {c.name for c in cards} == set(discover.methods())
    assert discover.get("npo").room == "objectives/unlearn"
    assert [c.name for c in discover.catalogue("objectives/unlearn", kind="objective")] == ["npo"]


def test_rooms_attach_lazily_and_name_what_is_near():
    assert plumbline.objectives.npo is plumbline.objectives.unlearn.npo
    assert "npo" in dir(plumbline.objectives)
    with pytest.raises(AttributeError, match="did you mean npo"):
        _ = plumbline.objectives.npoo


def test_unknown_names_and_rooms():
    with pytest.raises(InputError, match="no method 'nqo'.*npo"):
        discover.get("nqo")
    with pytest.raises(InputError, match="no room 'nowhere'.*objectives/unlearn"):
        discover.catalogue("nowhere")


def test_a_name_declared_twice_is_refused(tmp_path, monkeypatch):
    for room in ("x", "y"):
        (tmp_path / room).mkdir()
        (tmp_path / room / "_same.py").touch()
    monkeypatch.setattr(discover, "HOUSE", tmp_path)
    with pytest.raises(DeclarationError, match="declared twice"):
        discover.methods(tmp_path)


def test_import_is_light():
    code = (
        "import sys, plumbline, plumbline.objectives, plumbline.cli; print({'torch','transformers'} & set(sys.modules))"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.strip() == "set()"
