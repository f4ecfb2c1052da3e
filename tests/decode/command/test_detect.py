from __future__ import annotations

import json

import pytest

from plumbline.core.errors import InputError
from plumbline.decode.command.compose import Cast, compose
from plumbline.decode.command.detect import detect, detector_of, summary, table
from plumbline.decode.command.rows import Row
from plumbline.decode.command.run import Decoder, Settings


def test_detectors_are_found_by_name():
    assert detector_of("kgw").name == detector_of("detect_kgw").name == "detect_kgw"
    assert detector_of("diverse_gumbel_watermark").name == "detect_gumbel_watermark"
    with pytest.raises(InputError, match="a watermark with a detector .*kgw.*, got nudging"):
        detector_of("nudging")


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """Twelve continuations by zoo:base, watermarked with key 5."""
    made = Decoder(Cast("zoo:base", compose(["kgw:key=5,delta=6"]), device="cpu"), Settings(64, 1.0, batch_size=12))
    rows = [Row(f"r{i}", text) for i, text in enumerate(["Repeat: a", "Table: a fox, b", "The river", "Note:"] * 3)]
    file = tmp_path_factory.mktemp("w") / "w.jsonl"
    (done,) = made.run(rows)
    file.write_text("".join(json.dumps(answer.to_json()) + "\n" for answer in done.answers))
    return file


def test_its_own_key_finds_it_and_another_does_not(written):
    right, wrong = (detect(written, f"kgw:key={key},delta=6", level=1e-2) for key in (5, 6))
    assert right["summary"]["watermarked"] > 3 and wrong["summary"]["watermarked"] == 0
    assert right["summary"]["level"] == 1e-2
    columns = table(right)
    assert columns["id"][0] == "r0" and set(columns["verdict"]) <= {"watermarked", "not watermarked", "undecided"}
    assert summary(right).endswith("too short to tell") or "at p < 0.01" in summary(right)


def test_text_needs_a_tokenizer(tmp_path):
    file = tmp_path / "t.jsonl"
    file.write_text(
        '{"text": "The river is the stone. The child sees the fox near the old bridge and the tall tree."}\n'
    )
    found = detect(file, "kgw:key=5", "zoo:base")
    assert found["rows"][0]["id"] == "t:1" and found["rows"][0]["n"] > 10
    theirs = "kgw:key=5,scheme=plumbline.decode.watermark.streams.TransformersGreens"
    assert detect(file, theirs, "zoo:base")["rows"][0]["n"] > 10  # the width of the logits comes with the tokenizer
    with pytest.raises(InputError, match="--tokenizer must be given"):
        detect(file, "kgw:key=5")


@pytest.mark.parametrize(
    ("line", "method", "told"),
    [
        ('{"other": 1}', "kgw", 'an object with "text" or "ids"'),
        ('{"ids": [1, -2]}', "kgw", "ids must be a list of token ids"),
        ('{"ids": [1], "prompt_length": -1}', "kgw", "prompt_length must be"),
        ('{"ids": [1]}', "kgw:kee=5", "did you mean key"),
        ("", "kgw", "an empty file"),
    ],
)
def test_refusals(tmp_path, line, method, told):
    file = tmp_path / "t.jsonl"
    file.write_text(line)
    with pytest.raises(InputError, match=told):
        detect(file, method)
    file.write_text('{"ids": [1, 2, 3]}')
    with pytest.raises(InputError, match="level must be"):
        detect(file, "kgw", level=2.0)
