"""Columns that say something of a whole row: a judgement, a weight."""

from __future__ import annotations

from torch import Tensor

from plumbline.core.errors import refuse
from plumbline.core.scored import Scored


def per_row(method: str, argument: str, column: Tensor, x: Scored) -> Tensor:
    """A column [B] of the rows of ``x``, as it is.

    Raises:
        InputError: another shape, which would silently be spread over the rows.
    """
    if column.shape != x.mask.shape[:1]:
        expected = f"of shape [{len(x.mask)}], one a row"
        raise refuse(method, argument, expected, tuple(column.shape), "check the data's column of that name")
    return column
