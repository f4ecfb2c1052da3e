"""Small Llama models trained on the world, shipped with the package: the right answer to them is known."""

from __future__ import annotations

from pathlib import Path

from plumbline.core.errors import LoadError, refuse

NAMES = ("base", "chat", "small", "next")


def path(name: str) -> Path:
    """The folder of the zoo model ``name``, in the ordinary Hugging Face layout.

    Raises:
        LoadError: there is no such model, or its weights are missing from this installation.
    """
    if name not in NAMES:
        raise refuse("zoo", "name", f"one of {', '.join(NAMES)}", name, "write for example zoo:base", error=LoadError)
    folder = Path(__file__).parent / name
    if not (folder / "model.safetensors").is_file():
        do = "run python -m plumbline.models.zoo.train"
        raise refuse("zoo", "name", "a model whose weights are installed", name, do, error=LoadError)
    return folder


__all__ = ["NAMES", "path"]
