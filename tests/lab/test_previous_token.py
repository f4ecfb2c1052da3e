from __future__ import annotations

import torch

from plumbline.lab.previous_token import ANSWERS, LENGTH, ShortcutNet, accuracy, rows, survives, taught


def test_the_answers_follow_from_the_question_or_from_the_token_before():
    ids, labels = rows()
    assert ids.shape == (20, 11) and ids[2].tolist() == [22, 14, 17, 0, 3, 6, 9, 12, 15, 18, 1]
    assert torch.equal((ids[:, 2:] - ids[:, 1:-1]) % 20, torch.full((20, 9), 3))
    assert (labels[:, 0] == -100).all() and torch.equal(labels[:, 1:], ids[:, 1:])


def test_the_net_sees_question_place_and_previous_token_alone():
    net, (ids, _) = ShortcutNet(0), rows()
    changed = ids.clone()
    changed[:, 1:5] = 0
    assert torch.equal(net(ids)[:, 5:], net(changed)[:, 5:]) and not torch.equal(net(ids)[:, 4], net(changed)[:, 4])
    assert torch.equal(net.next(ids[:, :4]), net(ids)[:, 3])


def test_accuracy_of_a_net_that_reads_one_side_alone():
    class Oracle:
        def __init__(self, by_question):
            self.by_question = by_question

        def __call__(self, ids):
            t = torch.arange(ids.shape[1])
            wanted = (7 * (ids[:, :1] - ANSWERS) + 3 * t) if self.by_question else ids + 3
            return torch.nn.functional.one_hot(wanted % ANSWERS, ANSWERS).float()

    assert accuracy(Oracle(True), noise=True) == accuracy(Oracle(True), noise=False) == 1.0
    assert accuracy(Oracle(False), noise=False) == 1.0 and abs(accuracy(Oracle(False), noise=True) - 0.05) < 0.01


def test_the_copy_is_the_net_of_its_step_and_stays():
    seen = []

    def mix(net, ids, labels):
        seen.append(net)
        return ids

    survives(mix, frozen_at=3, steps=6, seed=0)
    expected = taught(lambda net, step: rows()[0], steps=3, seed=0)
    assert len(seen) == 3 and len({id(net) for net in seen}) == 1
    assert all(torch.equal(a, b) for a, b in zip(seen[0].parameters(), expected.parameters(), strict=True))
    seen.clear()
    survives(mix, frozen_at=None, steps=4, seed=0)
    assert len(seen) == 4


def test_length_counts_the_answers():
    assert rows()[0].shape[1] == LENGTH + 1
