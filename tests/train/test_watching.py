from __future__ import annotations

from functools import partial
from types import SimpleNamespace

import pytest
import torch

from plumbline.core.errors import InputError
from plumbline.lab.entangled import letter_pairs
from plumbline.models import load
from plumbline.objectives.diagnose import ches, gradient_entanglement, likelihood_displacement
from plumbline.objectives.preference import dpo
from plumbline.train import fit, watch


@pytest.fixture
def base():
    return load("zoo:base", dtype=torch.float32)


def trained(lm, pairs, *callbacks, steps=4, **settings):
    told = dict(max_steps=steps, per_device_train_batch_size=4, logging_steps=1, learning_rate=1e-3, disable_tqdm=True)
    return fit(lm, pairs, loss=dpo, callbacks=callbacks, **(told | settings))


def test_numbers_are_logged_every_few_steps(base):
    pairs = letter_pairs(base.tokenizer, 6, late=True)
    probes = (ches, partial(gradient_entanglement, loss=dpo, project=256), likelihood_displacement)
    history = trained(base, pairs, watch(*probes, rows=pairs, every=2, most=3)).history
    entries = [entry for entry in history if "watch/ches" in entry]
    assert len(entries) >= 2
    for name in ("ches", "gradient_entanglement", "entangled_cosine", "likelihood_displacement", "margin_change"):
        assert all(isinstance(entry[f"watch/{name}"], float) for entry in entries), name
    assert entries[-1]["watch/margin_change"] > 0  # since training began
    losses = [entry["loss"] for entry in history if "loss" in entry]
    assert len(losses) == 4  # no entry of the trainer's own was lost


def test_through_the_trainers_log(base):
    pairs = letter_pairs(base.tokenizer, 4, late=True)
    callback, heard = watch(ches, rows=pairs, every=2), []
    callback.log = heard.append
    history = trained(base, pairs, callback).history
    assert len(heard) == 3 and set(heard[0]) == {"watch/ches", "watch/ches_raw"}  # before the first step, at 2 and 4
    assert len([entry for entry in history if "loss" in entry]) == 4


def test_an_entry_in_between_does_not_swallow_the_trainers_own():
    control, state = SimpleNamespace(should_log=True), SimpleNamespace(global_step=2)
    callback = watch(lambda model, rows: 1, rows={}, every=2)
    callback.log = lambda numbers: setattr(control, "should_log", False)  # as the trainer's log does
    callback.on_step_end(None, state, control, model=torch.nn.Linear(1, 1))
    assert control.should_log


def test_watching_changes_nothing(base):
    pairs = letter_pairs(base.tokenizer, 6, late=False)
    runs = [trained(base, pairs).history, trained(load("zoo:base", dtype=torch.float32), pairs,
            watch(ches, gradient_entanglement, rows=pairs, every=1)).history]  # fmt: skip
    losses = [[entry["loss"] for entry in history if "loss" in entry] for history in runs]
    assert losses[0] == losses[1]


def test_plain_functions_may_watch(base):
    pairs = letter_pairs(base.tokenizer, 4, late=True)

    def rows_seen(model, rows):
        return {"rows": len(rows["chosen"]), "training": float(model.training)}

    history = trained(base, pairs, watch(rows_seen, lambda model, rows: 2, rows=pairs, most=3), steps=1).history
    entry = next(entry for entry in history if "watch/rows" in entry)
    assert entry["watch/rows"] == 3 and 2.0 in entry.values()
    with pytest.raises(InputError, match="result must be a Finding, a number"):
        trained(base, pairs, watch(lambda model, rows: "no", rows=pairs), steps=1)


def test_what_it_refuses():
    for arguments, settings, says in (
        ((), {"rows": {}}, "watch: probes must be functions"), ((3,), {"rows": {}}, "watch: probes"),
        ((ches,), {"rows": []}, "watch: rows must be streams"), ((ches,), {"rows": {}, "every": 0}, "watch: every"),
        ((ches,), {"rows": {}, "most": True}, "watch: most"),
    ):  # fmt: skip
        with pytest.raises(InputError, match=says):
            watch(*arguments, **settings)
