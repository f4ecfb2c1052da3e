"""What alignment resampling returns."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Resampled:
    """What was kept and what it was chosen from, for B prompts and n samples.

    Attributes:
        best: [B] the kept answers. index: [B] which sample each is. rewards: [n, B]. samples: n lists of B answers.
        distinct: [B] how many different answers a prompt got; 1 (the exact Gumbel watermark) leaves nothing to choose.
    """

    best: list[Any]
    index: NDArray[np.int64]
    rewards: NDArray[np.float64]
    samples: list[list[Any]]
    distinct: NDArray[np.int64]
