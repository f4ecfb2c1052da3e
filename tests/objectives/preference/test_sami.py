from __future__ import annotations

import math

import pytest
import torch
from tests.short_training import base, scored, trained

from plumbline.core.errors import InputError
from plumbline.core.scored import Scored
from plumbline.kernels.notes import noted
from plumbline.objectives.preference import sami
from plumbline.objectives.preference.squares import spread_squares, square_row
from plumbline.objectives.sft import nll


def of(tables: torch.Tensor) -> Scored:
    """Rows whose mean log-probabilities are the tables' entries [Q, n, n]: one or two tokens each."""
    flat = tables.flatten()
    mask = torch.ones(len(flat), 2, dtype=torch.bool)
    mask[::3, 1] = False
    logps = torch.stack([flat, flat], -1) + torch.tensor([0.25, -0.25])
    logps[::3, 0] -= 0.25
    return Scored(logps, mask)


def slow(table: list[list[float]]) -> float:
    n, total = len(table), 0.0
    for i in range(n):
        total -= math.log(math.exp(table[i][i]) / sum(math.exp(table[i][j]) for j in range(n)))
        total -= math.log(math.exp(table[i][i]) / sum(math.exp(table[j][i]) for j in range(n)))
    return total / (2 * n)


@pytest.mark.parametrize("n", [2, 3])
def test_against_a_slow_loop(n):
    tables = torch.randn(4, n, n, generator=torch.Generator().manual_seed(n))
    assert sami(of(tables), n=n).tolist() == pytest.approx([slow(t) for t in tables.tolist()], abs=1e-5)


def test_by_hand():
    # answer 0 is e times likelier under its own constitution in both directions: log(1 + 1/e)
    assert sami(of(torch.tensor([[[-1.0, -2.0], [-2.0, -1.0]]]))).item() == pytest.approx(math.log(1 + math.exp(-1)))


def test_a_constant_table_tells_nothing():
    with noted() as found:
        assert sami(of(torch.full((2, 3, 3), -1.7)), n=3).tolist() == pytest.approx([math.log(3)] * 2, abs=1e-6)
    assert found["mutual_information"][0] == pytest.approx(0, abs=1e-6)


def test_the_loss_is_symmetric_and_its_bound_at_most_log_n():
    tables = torch.randn(5, 2, 2, generator=torch.Generator().manual_seed(0)) * 4
    loss = sami(of(tables))
    assert torch.allclose(loss, sami(of(tables.mT)), atol=1e-5)
    assert bool((loss > 0).all())


def test_a_fluent_constitution_does_not_change_which_answer_it_picks():
    table = torch.tensor([[[-1.0, -2.0], [-1.5, -0.5]]])
    shifted = table + torch.tensor([[3.0], [0.0]])
    rows = [t.log_softmax(2).diagonal(dim1=1, dim2=2) for t in (table, shifted)]
    assert torch.allclose(*rows) and sami(of(shifted)).item() == pytest.approx(slow(shifted[0].tolist()), abs=1e-5)


def test_rows_that_make_no_square_are_refused():
    with pytest.raises(InputError, match=r"sami: x must be a multiple of n\*n = 4 rows, got 6"):
        sami(Scored(torch.zeros(6, 2)))
    with pytest.raises(InputError, match="sami: n must be"):
        sami(Scored(torch.zeros(4, 2)), n=1)


def test_a_square_is_every_answer_under_every_prompt():
    row = square_row([[1, 2], [3]], [[7], [8, 9]])
    assert row["input_ids"] == [1, 2, 7] and row["labels"] == [-100, -100, 7]
    batch = {"x": {"input_ids": torch.zeros(1, 3), "square": [row["square"]]}, "y": {}}
    found = spread_squares(batch, pad=5)["x"]
    assert found["input_ids"].tolist() == [[1, 2, 7, 5], [1, 2, 8, 9], [3, 7, 5, 5], [3, 8, 9, 5]]
    assert found["labels"].tolist() == [[-100, -100, 7, -100], [-100, -100, 8, 9], [-100, 7, -100, -100],
                                        [-100, 8, 9, -100]]  # fmt: skip
    assert found["attention_mask"].sum(-1).tolist() == [3, 4, 2, 3]
    with pytest.raises(InputError, match="square_row: answers must be one answer"):
        square_row([[1]], [[]])
    with pytest.raises(InputError, match="spread_squares: stream x must be rows made by square_row"):
        spread_squares({"x": {"input_ids": torch.zeros(1, 3)}})


def test_twenty_steps_make_principles_tell_of_answers_more_than_likelihood_does():
    lm = base()
    sums = ((12, 30), (45, 11), (27, 38), (50, 19), (33, 33), (18, 71), (64, 22), (81, 15))
    texts = ("Answer loudly. Add {a} and {b}.", "Answer softly. Add {a} and {b}.", " IT IS {c}!", " it may be {c}.")
    ids = [
        [lm.tokenizer(t.format(a=a, b=b, c=a + b), add_special_tokens=False).input_ids for t in texts] for a, b in sums
    ]
    rows = [square_row(four[:2], four[2:]) for four in ids]
    flat = [{"input_ids": i, "labels": y} for row in rows for i, y in row["square"]]
    own = [row for i, row in enumerate(flat) if i % 4 in (0, 3)]

    def information(model) -> float:
        return math.log(2) - float(sami(scored(model, flat)).mean())

    how = {"steps": 20, "lr": 3e-4}
    ours = trained(sami, {"x": rows}, prepare=lambda model, batch, step: spread_squares(batch), batch_size=4, **how)
    copied = trained(nll, {"x": own}, batch_size=8, **how)
    before = information(lm)
    assert information(ours.model) > before + 0.05
    assert information(ours.model) > information(copied.model) + 0.02
