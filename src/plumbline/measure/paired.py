"""The outputs of both arms side by side: one row per item, columns with _a (BASE) and _b (TUNED)."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from plumbline.core.errors import refuse
from plumbline.kernels.records import Records
from plumbline.measure.text import items_of

if TYPE_CHECKING:
    import pandas as pd

COLUMNS = ("text", "finish", "n_tokens", "answer", "correct", "confidence")


def paired_outputs(comparison: Records) -> pd.DataFrame:
    """``outputs`` joined on the item: item, id, prompt, tags, answer and, for each arm, text, finish, said (the
    canonical answer), correct, confidence. Token ids are left on disk.

    Raises:
        InputError: an item is there for one arm only.
    """
    frame = comparison.table("outputs", columns=["item", "arm", *COLUMNS]).rename(columns={"answer": "said"})
    arms = [frame[frame["arm"].astype(str) == arm].drop(columns="arm").set_index("item") for arm in "ab"]
    lone = np.setxor1d(arms[0].index.to_numpy(), arms[1].index.to_numpy())
    if len(lone):
        raise refuse(
            "paired outputs", "items", "there for both models", f"{len(lone)} in one arm only: {lone[:5].tolist()}",
            "run the comparison again with --resume",
        )  # fmt: skip
    pairs = arms[0].add_suffix("_a").join(arms[1].add_suffix("_b"), validate="one_to_one")
    told = items_of(comparison)
    pairs = pairs.join(told, how="left").reset_index()
    return pairs.assign(id=pairs["id"].fillna(pairs["item"].astype(str)))
