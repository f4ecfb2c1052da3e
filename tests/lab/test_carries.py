from __future__ import annotations

import pytest
import torch

from plumbline.lab.carries import Writer, parsed, right, scored, share_on_errors, states, text, untrained, wrong

ROW = {"prompt": "Add 38 and 47.\n", "initial_reason_steps": "", "chosen": text(right(38, 47)), "kind": "sampled"}
FORGOT = [8, 7, 15, 5, 0, 3, 4, 0, 7]


def test_a_solution_reads_as_it_was_written():
    assert right(38, 47) == [8, 7, 15, 5, 1, 3, 4, 1, 8] and parsed(text(right(38, 47))) == right(38, 47)
    policy = Writer(untrained(0), 0)
    problem = {"prompt": ROW["prompt"], "a": 38, "b": 47}
    assert policy.judge(ROW["chosen"], problem) and not policy.judge(text(FORGOT), problem)
    assert all(parsed(t) != [0] * 9 for t in policy.generate(ROW["prompt"], 3))


def test_only_the_forgotten_carry_counts_as_wrong():
    row = ROW | {"rejected": text(FORGOT)}
    assert wrong(row) == {states(38, 47, FORGOT)[4]}
    table = torch.zeros(8500, 20)
    assert scored(table, row, "rejected").total().item() == pytest.approx(-9 * float(torch.log(torch.tensor(20.0))))


def test_an_edited_step_is_scored_alone():
    first = "Step 1: 8+7=15, write 5 carry 1.\nStep 2:"
    row = ROW | {"initial_reason_steps": first, "chosen": " 3+4+1=8.", "rejected": " 3+4+1=9."}
    assert scored(torch.zeros(8500, 20), row, "rejected").lengths().item() == 4

    def loss(chosen, rejected, chosen_ref, rejected_ref):
        return rejected.total() - chosen.total()

    assert share_on_errors(loss, torch.zeros(8500, 20), row) == (1.0, 1)
