"""shards: byte-exact round trips, lazy reading, ties, every kind of broken file, and nothing half-written."""

from __future__ import annotations

import json
import resource
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from plumbline.core.errors import InputError, LoadError, PlumblineError
from plumbline.kernels.seeds import generator
from plumbline.kernels.shards import Shards, header, write


def mixed() -> dict[str, Tensor]:
    g = generator(0)
    return {
        "flags": torch.tensor([True, False, True]),
        "bytes": torch.arange(5, dtype=torch.uint8),
        "a.weight": torch.randn(7, 3, generator=g).bfloat16(),
        "b.weight": torch.randn(4, 6, generator=g),
        "scalar": torch.tensor(2.5, dtype=torch.float16),
        "empty": torch.zeros(0, 4),
        "ids": torch.arange(6).reshape(2, 3),
        "f8": torch.randn(9, generator=g).to(torch.float8_e4m3fn),
        "turned": torch.randn(5, 4, generator=g).T,
        "nan": torch.tensor([float("nan"), float("inf"), -0.0]),
    }


def same(one: Tensor, other: Tensor) -> bool:
    if one.dtype != other.dtype or one.shape != other.shape:
        return False
    return torch.equal(*(t.contiguous().reshape(-1).view(torch.uint8) for t in (one, other)))


def leftovers(folder: Path) -> list[str]:
    return [p.name for p in folder.iterdir() if p.name.endswith(".tmp")]


@pytest.mark.parametrize("limit", [10**9, 100, 1])
def test_round_trip_is_byte_exact(tmp_path: Path, limit: int) -> None:
    tensors = mixed()
    out = write(tmp_path / "new", tensors.items(), max_shard_bytes=limit, metadata={"note": "x"})
    assert out.names() == sorted(tensors) and out.metadata == {"format": "pt", "note": "x"}
    for name, tensor in tensors.items():
        assert same(out.get(name), tensor), name
        assert out.shape(name) == tuple(tensor.shape) and out.dtype(name) == tensor.dtype
    files = sorted(p.name for p in out.folder.iterdir())
    assert (files == ["model.safetensors"]) == (limit == 10**9)
    # the peer reads every file as we do
    for file in out.folder.glob("*.safetensors"):
        assert all(same(t, tensors[name]) for name, t in load_file(file).items())
        assert all(i["data_offsets"][0] % 8 == 0 for n, i in header(file).items() if n == "ids")
    if limit < 10**9:
        index = json.loads((out.folder / "model.safetensors.index.json").read_text())
        assert index["metadata"]["total_size"] == sum(t.numel() * t.element_size() for t in tensors.values())
        assert set(index["weight_map"]) == set(tensors)


def test_a_shard_holds_no_more_than_asked(tmp_path: Path) -> None:
    out = write(tmp_path, ((f"t{i}", torch.zeros(10)) for i in range(9)), max_shard_bytes=100)
    sizes = [sum(i["data_offsets"][1] - i["data_offsets"][0] for n, i in header(f).items() if n != "__metadata__")
             for f in sorted(tmp_path.glob("*.safetensors"))]  # fmt: skip
    assert sizes == [80, 80, 80, 80, 40] and len(out.names()) == 9


def test_tensors_are_written_as_they_come(tmp_path: Path) -> None:
    def stream() -> Iterator[tuple[str, Tensor]]:
        for i in range(4):
            yield f"t{i}", torch.full((2**20,), float(i))
            # whatever arrived before is on disk, up to a write buffer, before the next is asked for
            on_disk = sum(p.stat().st_size for p in tmp_path.glob(".*.tmp"))
            if i:
                assert on_disk >= i * 2**22 - 2**17

    write(tmp_path, stream(), max_shard_bytes=10**9)
    assert leftovers(tmp_path) == []


def test_reads_rows_and_one_handle(tmp_path: Path) -> None:
    save_file({"w": torch.arange(12.0).reshape(6, 2)}, tmp_path / "model.safetensors")
    shards = Shards(tmp_path)
    assert shards.get("w", slice(2, 4)).tolist() == [[4, 5], [6, 7]]
    assert "w" in shards and "v" not in shards
    with pytest.raises(InputError, match=r"shards: name must be a tensor of .* got v; see names"):
        shards.get("v")


def test_like_keeps_names_and_skips_ties(tmp_path: Path) -> None:
    base = {"model.embed_tokens.weight": torch.randn(5, 2), "model.norm.weight": torch.ones(2)}
    save_file(base, tmp_path / "model.safetensors", metadata={"format": "pt", "made": "by hand"})
    (tmp_path / "config.json").write_text('{"tie_word_embeddings": true}')
    old = Shards(tmp_path)
    assert old.alias == {"lm_head.weight": "model.embed_tokens.weight"}
    assert torch.equal(old.get("lm_head.weight"), base["model.embed_tokens.weight"]) and "lm_head.weight" in old
    new = write(tmp_path / "new", {**base, "lm_head.weight": base["model.embed_tokens.weight"]}, like=old)
    assert new.names() == old.names() and new.metadata["made"] == "by hand"
    with pytest.raises(InputError, match=r"write: tensors .*model\.norm\.weight"):
        write(tmp_path / "short", {"model.embed_tokens.weight": base["model.embed_tokens.weight"]}, like=old)
    assert not list((tmp_path / "short").iterdir())
    # over itself, while it is being read
    again = write(tmp_path, ((n, old.get(n) * 2) for n in old.names()), like=old)
    assert torch.equal(again.get("model.norm.weight"), torch.full((2,), 2.0))


def test_untied_models_have_no_alias(tmp_path: Path) -> None:
    save_file({"model.embed_tokens.weight": torch.ones(2, 2)}, tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text('{"tie_word_embeddings": false}')
    assert Shards(tmp_path).alias == {}


def test_replacing_removes_what_would_be_read_instead(tmp_path: Path) -> None:
    write(tmp_path, {"a": torch.zeros(3)})
    sharded = write(tmp_path, {"a": torch.ones(3), "b": torch.ones(3)}, max_shard_bytes=12)
    assert sharded.get("a").tolist() == [1, 1, 1] and not (tmp_path / "model.safetensors").exists()
    single = write(tmp_path, {"a": torch.full((3,), 2.0)})
    assert single.names() == ["a"] and [p.name for p in tmp_path.iterdir()] == ["model.safetensors"]


# --- broken input


def two_shards(folder: Path) -> Path:
    write(folder, {"a": torch.arange(100.0), "b": torch.arange(100.0)}, max_shard_bytes=400)
    return folder / "model-00002-of-00002.safetensors"


def test_truncated_or_damaged_shards_are_named(tmp_path: Path) -> None:
    shard = two_shards(tmp_path)
    whole = shard.read_bytes()
    for broken in (whole[:-1], whole[:100], whole[:4], b"", whole + b"x", b"\xff" * len(whole), whole[:8] + b"[" * 500):
        shard.write_bytes(broken)
        with pytest.raises(LoadError, match="model-00002-of-00002.safetensors"):
            Shards(tmp_path)


def test_index_faults(tmp_path: Path) -> None:
    shard = two_shards(tmp_path)
    index = tmp_path / "model.safetensors.index.json"
    good = json.loads(index.read_text())
    index.write_text(json.dumps({"weight_map": {**good["weight_map"], "c": shard.name}}))
    with pytest.raises(LoadError, match=r"model-00002-of-00002.*holding 'c'"):
        Shards(tmp_path)
    index.write_text(json.dumps({"weight_map": {"a": "../outside.safetensors"}}))
    with pytest.raises(LoadError, match="files beside it"):
        Shards(tmp_path)
    for text in ("{", "[]", "{}", '{"weight_map": [1]}'):
        index.write_text(text)
        with pytest.raises(LoadError, match=r"index\.json"):
            Shards(tmp_path)
    index.write_text(json.dumps(good))
    shard.unlink()
    with pytest.raises(LoadError, match="no model-00002-of-00002"):
        Shards(tmp_path)


def test_no_weights_and_pickles(tmp_path: Path) -> None:
    with pytest.raises(LoadError, match="no weights"):
        Shards(tmp_path)
    torch.save({"a": torch.ones(2)}, tmp_path / "pytorch_model.bin")
    with pytest.raises(LoadError, match="allow_pickle=True"):
        Shards(tmp_path)
    shards = Shards(tmp_path, allow_pickle=True)
    assert shards.get("a").tolist() == [1, 1] and shards.shape("a") == (2,)
    torch.save({"a": print}, tmp_path / "pytorch_model.bin")
    with pytest.raises(LoadError, match=r"pytorch_model\.bin"):
        Shards(tmp_path, allow_pickle=True)


# --- broken output


def test_a_full_device_is_one_error_and_leaves_nothing(tmp_path: Path) -> None:
    before = write(tmp_path, {"a": torch.zeros(3)}).get("a").clone()
    old = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2**20, old[1]))
    try:
        with pytest.raises(PlumblineError, match=r"write: folder must be writable .*; free space") as caught:
            write(tmp_path, {"a": torch.ones(10), "b": torch.ones(2**20)}, max_shard_bytes=100)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, old)
        signal.signal(signal.SIGXFSZ, handler)
    assert "\n" not in str(caught.value)
    assert [p.name for p in tmp_path.iterdir()] == ["model.safetensors"]
    assert torch.equal(Shards(tmp_path).get("a"), before)


def test_a_failing_stream_leaves_nothing(tmp_path: Path) -> None:
    def stream() -> Iterator[tuple[str, Tensor]]:
        yield "a", torch.zeros(10)
        yield "b", torch.zeros(10)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write(tmp_path, stream(), max_shard_bytes=40)
    assert list(tmp_path.iterdir()) == []


def test_bad_tensors_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"write: tensors .*'a' twice"):
        write(tmp_path, [("a", torch.zeros(1)), ("a", torch.zeros(1))])
    with pytest.raises(InputError, match="write: a must be a dense tensor"):
        write(tmp_path, {"a": torch.zeros(2, 2).to_sparse()})
    (tmp_path / "file").write_text("")
    with pytest.raises(PlumblineError, match="write: folder"):
        write(tmp_path / "file", {"a": torch.zeros(1)})
