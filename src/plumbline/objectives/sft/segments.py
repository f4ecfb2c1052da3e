"""Which tokens of an answer are its judgment and which explain it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from plumbline.core.errors import refuse
from plumbline.kernels.align import spans_of_ids

JUDGMENT, INTERPRETATION = 1, 2


def segment_by_delimiter(ids: Sequence[int], tokenizer: Any, delimiter: str, *, start: int = 0) -> list[int]:
    """The ``segments`` column of one row: 1 up to the end of the first delimiter, 2 behind it, 0 before the answer.

    A token that holds the delimiter's last byte belongs to the judgment, whatever else it holds. Without a delimiter
    all of the answer is judgment. A special token, of no bytes, goes with what precedes it.

    Args:
        ids: the whole row's, [L], as it is trained on. start: the index of the answer's first token.
        delimiter: what ends the judgment, as the answer spells it (``"."``, ``"\\n"``).

    Returns:
        [L] integers, one per id.

    Raises:
        InputError: an empty delimiter, or a start outside the row.
    """
    if not delimiter:
        raise refuse("segment_by_delimiter", "delimiter", "some text", repr(delimiter), "pass '.' or the like")
    if not 0 <= start <= len(ids):
        raise refuse("segment_by_delimiter", "start", f"within 0 and {len(ids)}", start, "pass the prompt's length")
    mark = delimiter.encode()
    spelled, spans = spans_of_ids(tokenizer, ids[start:])
    found = spelled.find(mark)
    end = len(spelled) + 1 if found < 0 else found + len(mark)
    return [0] * start + [JUDGMENT if begin < end else INTERPRETATION for begin in spans.starts.tolist()]
