from __future__ import annotations

import torch

from plumbline.kernels.notes import note, noted


def test_notes_reach_the_innermost_listener_and_nobody_else():
    note(lost=1.0)
    with noted() as outer:
        note(a=torch.tensor([1.0, 3.0], requires_grad=True), b=2)
        with noted() as inner:
            note(a=5.0)
        note(a=4.0)
    note(a=9.0)
    assert outer == {"a": [2.0, 4.0], "b": [2.0]} and inner == {"a": [5.0]}
