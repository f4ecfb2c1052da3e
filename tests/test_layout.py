"""The shape of the house: one method, one file, one test, one name; rooms that the import contracts know."""

from __future__ import annotations

import ast
import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest

from plumbline.core.discover import HOUSE, methods

ROOT = Path(__file__).resolve().parent.parent
METHODS = {name: Path(*module.split(".")[1:]).with_suffix(".py") for name, module in methods().items()}


def listed_rooms() -> set[str]:
    """Every name in the layers of the floors contract."""
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
    floors = next(c for c in contracts if c["id"] == "floors")
    return set(re.findall(r"\w+", " ".join(floors["layers"])))


def crowded(files: list[Path], limit: int = 25) -> dict[str, int]:
    """Folders that hold more method files than ``limit``, with their count."""
    counts: dict[str, int] = {}
    for file in files:
        counts[file.parent.as_posix()] = counts.get(file.parent.as_posix(), 0) + 1
    return {folder: count for folder, count in counts.items() if count > limit}


def public_names(source: str) -> list[str]:
    """Top-level functions and classes without an underscore, claims aside."""
    found = []
    for node in ast.parse(source).body:
        if isinstance(node, (ast.FunctionDef, ast.ClassDef)) and not node.name.startswith("_"):
            decorators = [d.func if isinstance(d, ast.Call) else d for d in node.decorator_list]
            if not any(isinstance(d, ast.Name) and d.id == "claim" for d in decorators):
                found.append(node.name)
    return found


@pytest.mark.parametrize("name", sorted(METHODS))
def test_method_has_its_test_file(name: str) -> None:
    expected = ROOT / "tests" / METHODS[name].parent / f"test_{name}.py"
    assert expected.is_file(), f"{METHODS[name]} has no {expected.relative_to(ROOT)}"


@pytest.mark.parametrize("name", sorted(METHODS))
def test_method_file_holds_one_public_name(name: str) -> None:
    assert public_names((HOUSE / METHODS[name]).read_text(encoding="utf-8")) == [name]


def test_public_names_sees_a_second_function() -> None:
    claimed = "@claim(f, 'x', cost='cpu:1s')\ndef shown(): pass\n"
    assert public_names("def f(): pass\ndef _g(): pass\n" + claimed) == ["f"]
    assert public_names("def f(): pass\nclass G: pass\n") == ["f", "G"]


def test_folders_split_into_families_before_they_crowd() -> None:
    assert crowded(list(METHODS.values())) == {}
    assert crowded([Path(f"decode/_m{i}.py") for i in range(26)]) == {"decode": 26}
    assert crowded([Path(f"decode/_m{i}.py") for i in range(25)]) == {}


def test_core_is_small() -> None:
    lines = sum(file.read_text(encoding="utf-8").count("\n") for file in (HOUSE / "core").glob("*.py"))
    assert lines < 800, f"core has {lines} lines in all; it stays under 800"


def test_every_room_stands_on_a_floor() -> None:
    there = {p.parent.name for p in HOUSE.glob("*/__init__.py")}
    there |= {p.stem for p in HOUSE.glob("*.py") if p.stem != "__init__"}
    assert there <= listed_rooms(), f"add to the layers in pyproject.toml: {sorted(there - listed_rooms())}"


def test_every_folder_of_methods_is_a_package_that_attaches_them() -> None:
    for folder in {file.parent for file in METHODS.values()}:
        for package in (folder, *folder.parents):
            if package != Path():
                init = HOUSE / package / "__init__.py"
                assert init.is_file(), f"{package} has no __init__.py"
                assert "attach(__name__)" in init.read_text(), f"{package}/__init__.py does not attach its methods"


def test_kernels_import_nothing_of_the_core_but_errors() -> None:
    for file in (HOUSE / "kernels").glob("*.py"):
        for line in re.findall(r"^\s*from plumbline\.(\S+) import", file.read_text(encoding="utf-8"), re.MULTILINE):
            assert line.startswith("kernels") or line == "core.errors", f"{file.name} imports plumbline.{line}"


def test_the_wheel_holds_every_file_of_the_package(tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    names = ("pyproject.toml", "README.md", "LICENSE", ".gitignore")
    shutil.copytree(HOUSE, copy / "src/plumbline", ignore=shutil.ignore_patterns("__pycache__", "*.pyc"))
    for name in names:
        shutil.copy(ROOT / name, copy / name)
    for planted in ("models/zoo/planted/model.safetensors", "measure/__init__.pyi"):
        (copy / "src/plumbline" / planted).parent.mkdir(parents=True, exist_ok=True)
        (copy / "src/plumbline" / planted).touch()
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path)]
    built = subprocess.run(command, cwd=copy, capture_output=True, text=True)
    assert built.returncode == 0, built.stderr
    packed = set(zipfile.ZipFile(next(tmp_path.glob("*.whl"))).namelist())
    there = {file.relative_to(copy / "src").as_posix() for file in (copy / "src").rglob("*") if file.is_file()}
    assert there <= packed, sorted(there - packed)
    assert {"plumbline/py.typed", "plumbline/models/zoo/planted/model.safetensors"} <= packed


def new_method(house: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(ROOT / "tools" / "new_method.py"), f"root={house}", *arguments]
    return subprocess.run(command, capture_output=True, text=True)


@pytest.fixture
def house(tmp_path: Path) -> Path:
    """An empty repository with this one's contracts."""
    (tmp_path / "src/plumbline").mkdir(parents=True)
    (tmp_path / "pyproject.toml").write_bytes((ROOT / "pyproject.toml").read_bytes())
    return tmp_path


def test_make_new_writes_a_method_and_a_test_that_cannot_pass_yet(house: Path) -> None:
    made = new_method(house, "name=simnpo", "room=objectives/unlearn", "kind=")
    assert made.returncode == 0, made.stderr
    method = house / "src/plumbline/objectives/unlearn/_simnpo.py"
    test = house / "tests/objectives/unlearn/test_simnpo.py"
    assert public_names(method.read_text()) == ["simnpo"] and "@objective(" in method.read_text()
    assert "attach(__name__)" in (house / "src/plumbline/objectives/unlearn/__init__.py").read_text()
    assert "attach(__name__)" in (house / "src/plumbline/objectives/__init__.py").read_text()
    assert "TODO" not in method.read_text() + test.read_text()
    assert test.read_text().count("pytest.fail(") == 3
    scope: dict[str, object] = {"__name__": "simnpo_draft"}
    exec(compile(method.read_text(), method, "exec"), scope)
    card = scope["simnpo"].card  # type: ignore[attr-defined]
    evidence = card.claims[0].run()
    assert card.kind.name == "objective" and not evidence.holds and not evidence.control


@pytest.mark.parametrize(
    ("room", "kind"),
    [
        ("measure/shift", "probe"), ("decode", "logit_rule"), ("weights/merge", "weight_rule"), ("steer", "edit"),
        ("laws", "function"),
    ],
)  # fmt: skip
def test_every_kind_of_draft_can_be_declared(house: Path, room: str, kind: str) -> None:
    made = new_method(house, "name=draft", f"room={room}")
    assert made.returncode == 0, made.stderr
    source = (house / "src/plumbline" / room / "_draft.py").read_text()
    scope: dict[str, object] = {"__name__": "a_draft"}
    exec(compile(source, "_draft.py", "exec"), scope)
    assert scope["draft"].card.kind.name == kind  # type: ignore[attr-defined]


@pytest.mark.parametrize("kind", ["sampler", "selector"])
def test_a_kind_that_no_room_implies_can_be_asked_for(house: Path, kind: str) -> None:
    made = new_method(house, "name=draft", "room=decode/search", f"kind={kind}")
    assert made.returncode == 0, made.stderr
    scope: dict[str, object] = {"__name__": "a_draft"}
    exec(compile((house / "src/plumbline/decode/search/_draft.py").read_text(), "_draft.py", "exec"), scope)
    assert scope["draft"].card.kind.name == kind  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("name=NPO", "room=objectives"), "lower case"),
        (("name=class", "room=objectives"), "Python keyword"),
        (("name=npo", "room=nowhere"), "rooms:"),
        (("name=npo", "room=core"), "rooms:"),
        (("name=npo",), "room="),
        (("name=npo", "room=objectives", "kind=loss"), "kinds:"),
        (("name=npo", "room=objectives", "colour=red"), "colour"),
    ],
)
def test_make_new_refuses(house: Path, arguments: tuple[str, ...], says: str) -> None:
    refused = new_method(house, *arguments)
    assert refused.returncode == 2 and says in refused.stderr, refused.stderr
    assert refused.stderr.count("\n") == 1 and not list(house.rglob("*npo*"))


def test_make_new_never_overwrites(house: Path) -> None:
    assert new_method(house, "name=npo", "room=objectives/unlearn").returncode == 0
    method = house / "src/plumbline/objectives/unlearn/_npo.py"
    method.write_text("mine")
    for room in ("objectives/unlearn", "objectives/preference"):
        again = new_method(house, "name=npo", f"room={room}")
        assert again.returncode == 2 and "already" in again.stderr
    assert method.read_text() == "mine"
