from __future__ import annotations

from plumbline.lab.explained import judgment_accuracy


def test_only_the_judgments_loss_teaches_it():
    def part(which):
        return lambda x, segments: -x.logps * (segments == which) * 31

    assert judgment_accuracy(part(1), seed=0, steps=100) > 0.75
    assert judgment_accuracy(part(2), seed=0, steps=30) < 0.65
