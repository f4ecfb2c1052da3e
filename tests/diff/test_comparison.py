"""One comparison end to end on tiny models: tables, identities, resume, errors."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
import torch
from tests.diff.cases import PROMPTS, QA, TEXTS

import plumbline
from plumbline.core.errors import InputError, PlumblineError
from plumbline.diff.prepare import Settings
from plumbline.lab.tiny import tiny
from plumbline.models import load

SETTINGS = Settings(max_new_tokens=8, batch_tokens=200, samples=2)


def run(pair, folder, base="base", tuned="tuned", **how):
    given = {"prompts": PROMPTS, "qa": QA, "text": TEXTS, "settings": SETTINGS} | how
    return plumbline.compare(pair / base, pair / tuned, records=folder, **given)


@pytest.fixture(scope="module")
def comparison(pair, tmp_path_factory):
    return run(pair, tmp_path_factory.mktemp("runs") / "run")


def test_tables_hold_every_input(comparison):
    items = comparison.table("items")
    assert items["id"].tolist() == [r["id"] for r in [*PROMPTS, *QA, *TEXTS]]
    outputs = comparison.table("outputs")
    answered = items[items["kind"].isin(["prompt", "qa"]) & (items["id"] != "given")]["item"]
    assert sorted(outputs["item"]) == sorted([*answered, *answered])
    assert set(comparison.table("tokens", ["source"])["source"]) == {"response", "completion", "text"}
    samples = comparison.table("samples")
    assert len(samples) == 3 * 2 * 2 and all(len(r.ent) == len(r.ids) == len(r.logp) for r in samples.itertuples())


def test_token_records_equal_a_slow_loop(comparison, pair):
    """Each row of one text, recomputed in float64 from the definition."""
    lms = [load(pair / name) for name in ("base", "tuned")]
    ids = lms[0].tokenizer(TEXTS[1]["text"]).input_ids
    rows = comparison.table("tokens")
    item = int(comparison.table("items").query("id == 't1'")["item"].iloc[0])
    rows = rows[rows["item"] == item].set_index("pos")
    assert rows.index.tolist() == list(range(1, len(ids)))
    with torch.no_grad():
        la, lb = (lm.model(torch.tensor([ids])).logits[0].double().log_softmax(-1) for lm in lms)
    for t in range(1, len(ids)):
        a, b, y, row = la[t - 1], lb[t - 1], ids[t], rows.loc[t]
        assert row.token_id == y and row.logp_a == pytest.approx(a[y].item(), abs=1e-4)
        assert row.kl_ab == pytest.approx((a.exp() * (a - b)).sum().item(), abs=1e-5)
        assert row.kl_ba == pytest.approx((b.exp() * (b - a)).sum().item(), abs=1e-5)
        assert row.rank_b == 1 + int((b > b[y]).sum()) and row.argmax_a == int(a.argmax())
        assert row.ent_b == pytest.approx(-(b.exp() * b).sum().item(), abs=1e-4)
    text = TEXTS[1]["text"].encode()
    assert rows["byte_end"].iloc[-1] == len(text) and (rows["byte_start"] <= rows["byte_end"]).all()


def test_greedy_answers_are_generates_own(comparison, pair):
    lm = load(pair / "tuned")
    ids = lm.tokenizer(PROMPTS[0]["prompt"], return_tensors="pt").input_ids
    wanted = lm.model.generate(ids, max_new_tokens=8, do_sample=False, pad_token_id=2)[0, ids.shape[1] :].tolist()
    outputs = comparison.table("outputs").query("arm == 'b' and item == 0").iloc[0]
    assert outputs["ids"].tolist() == wanted
    own = comparison.table("tokens").query("item == 0 and source == 'response'")
    assert (own["rank_b"] == 1).all() and own["pos_in_response"].tolist() == list(range(len(wanted)))
    assert outputs["confidence"] == pytest.approx(math.exp(own["logp_b"].sum()), rel=1e-4)


def test_choices_are_scored_as_continuations(comparison, pair):
    lm = load(pair / "base")
    row = comparison.table("outputs").query("arm == 'a' and finish == 'choice'").iloc[0]
    prompt = lm.tokenizer(QA[0]["question"]).input_ids
    sums = []
    for choice in QA[0]["choices"]:
        ids = prompt + lm.tokenizer(" " + choice, add_special_tokens=False).input_ids
        with torch.no_grad():
            logps = lm.model(torch.tensor([ids])).logits[0].log_softmax(-1)
        sums.append(sum(float(logps[t - 1, ids[t]]) for t in range(len(prompt), len(ids))))
    assert row["choice_logps"] == pytest.approx(sums, abs=1e-3)
    assert row["answer"] == QA[0]["choices"][int(np.argmax(sums))]
    assert row["correct"] == (int(np.argmax(sums)) == 0)


def test_a_model_against_itself_shows_nothing(pair, tmp_path):
    answered = [row for row in PROMPTS if "completion" not in row]
    found = run(pair, tmp_path / "run", tuned="base", prompts=answered).flat()
    for name in ("divergence", "token_shift", "negative_flips", "weight_change"):
        assert found[name].value == 0, name


def test_findings_json_and_report(comparison, tmp_path):
    told = json.loads(comparison.json(tmp_path / "out.json").read_text())
    assert {f["probe"] for f in told["findings"]} >= {"token_shift", "divergence", "branching_factor", "update_flips"}
    page = comparison.report(tmp_path / "report.html").read_text()
    assert "<html" in page and comparison.probes["divergence"].sentence.split(" ")[0] in page
    again = plumbline.Comparison.open(comparison.folder)
    assert [f.name for f in again.findings] == [f.name for f in comparison.findings]
    assert comparison.tokens.count_rows() == comparison.meta["counts"]["positions"]


def test_every_part_was_declared(comparison):
    from plumbline.core.discover import get

    for probe, finding in comparison.probes.items():
        assert set(finding.flat()) <= {probe, *get(probe).gives}


def test_no_probe_fails_on_good_input(comparison):
    assert [s["name"] for s in comparison.meta["skipped"]] == ["span_shift"], comparison.meta["skipped"]


def test_different_tokenizers_are_compared_on_spans(pair, tmp_path):
    comparison = run(pair, tmp_path / "run", tuned="other")
    assert not comparison.has("tokens") and comparison.meta["same_tokenizer"] is False
    spans = comparison.table("spans")
    text = spans[spans["item"] == spans["item"].max()]
    assert "".join(text["text"]) == TEXTS[-1]["text"] and (spans["byte_kl_ab"] >= -1e-6).all()
    assert (spans["logp_a"] <= 0).all() and "span_shift" in comparison.probes
    assert any("byte-aligned" in s["reason"] for s in comparison.meta["skipped"] if s["name"] == "token_shift")


def test_vocabulary_padded_on_one_side_is_compared_on_the_shared_ids(pair, tmp_path):
    lms = []
    for rows in (0, 7):
        model, tokenizer = tiny("gpt2", vocab=400, seed=1), load(pair / "other").tokenizer
        model.transformer.ln_f.bias.data[0] = 10.0
        model.resize_token_embeddings(400 + rows, mean_resizing=False)
        model.lm_head.weight.data[400:] = torch.eye(model.config.hidden_size)[0] * -20  # logits of about -200
        lms.append((model, tokenizer))
    comparison = plumbline.compare(*lms, text=TEXTS, settings=SETTINGS, records=tmp_path / "run")
    tokens = comparison.table("tokens")
    assert 0 <= tokens["outside_b"].max() < 1e-6 and tokens["kl_ab"].max() < 1e-5
    assert np.allclose(tokens["logp_a"], tokens["logp_b"], atol=1e-4)
    lms[1][0].lm_head.weight.data[400:] *= -1
    with pytest.raises(InputError, match="the shared vocabulary"):
        plumbline.compare(*lms, text=TEXTS, settings=SETTINGS, records=tmp_path / "refused")


def test_an_adapter_of_base_shares_its_weights(pair, tmp_path):
    from peft import LoraConfig, get_peft_model

    wearing = get_peft_model(
        load(pair / "base").model, LoraConfig(r=3, target_modules=["q_proj"], init_lora_weights=False)
    )
    wearing.save_pretrained(tmp_path / "adapter")
    file = tmp_path / "adapter" / "adapter_config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"base_model_name_or_path": str(pair / "base")}))
    comparison = plumbline.compare(
        pair / "base", tmp_path / "adapter", text=TEXTS, settings=SETTINGS, records=tmp_path / "run"
    )
    base, tuned = comparison.base.model, comparison.tuned.model
    assert base.get_input_embeddings().weight.data_ptr() == tuned.get_input_embeddings().weight.data_ptr()
    merged_lm = (wearing.merge_and_unload(), comparison.base.tokenizer)
    alone = plumbline.compare(pair / "base", merged_lm, text=TEXTS, settings=SETTINGS, records=tmp_path / "merged")
    merged, worn = (c.table("tokens")["kl_ab"] for c in (alone, comparison))
    assert worn.max() > 1e-4 and np.allclose(merged, worn, atol=1e-5)
    moved = [row["tensor"] for row in comparison.probes["weight_change"].table if row.get("rank")]
    assert {name.split(".")[-2] for name in moved} == {"q_proj"}


def test_bf16_is_near_float32(pair, tmp_path):
    found = [run(pair, tmp_path / d, dtype=d).table("tokens") for d in ("float32", "bfloat16")]
    texts = [t[t["source"] == "text"] for t in found]
    assert np.allclose(texts[0]["logp_a"], texts[1]["logp_a"], atol=0.05)
    assert np.allclose(texts[0]["kl_ab"], texts[1]["kl_ab"], atol=0.02) and texts[1]["kl_ab"].max() > 0


def test_broken_logits_are_named_and_left_out(pair, tmp_path):
    broken = load(pair / "tuned")
    row = broken.tokenizer("x", add_special_tokens=False).input_ids[0]
    broken.model.get_input_embeddings().weight.data[row] = float("nan")
    texts = [*TEXTS, {"id": "bad", "text": "The box x is here"}]
    comparison = plumbline.compare(pair / "base", broken, text=texts, settings=SETTINGS, records=tmp_path / "run")
    (warning,) = [w for w in comparison.meta["warnings"] if "NaN" in w]
    assert warning.startswith("tuned gave") and "bad" in warning and "t1" not in warning
    assert np.isfinite(comparison.table("tokens")[["kl_ab", "logp_b"]].to_numpy()).all()


def test_long_prompts_lose_their_beginning_and_are_counted(pair, tmp_path):
    long = [{"prompt": "The quick brown fox jumps. " * 60}, {"prompt": "Where?"}]
    comparison = plumbline.compare(
        pair / "base", pair / "tuned", prompts=long, settings=SETTINGS, records=tmp_path / "run"
    )
    assert any(w.startswith("1 prompts were longer") for w in comparison.meta["warnings"])
    assert comparison.table("items")["truncated"].tolist() == [True, False]


def test_resume_goes_on_and_refuses_another_run(pair, tmp_path):
    whole = run(pair, tmp_path / "whole")

    class Stop(Exception):
        pass

    from plumbline.diff import run as runs

    saved = runs.Run.save
    count = 0

    def dying(self, number, tables):
        nonlocal count
        count += 1
        if count == 3:
            raise Stop
        saved(self, number, tables)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(runs.Run, "save", dying)
        with pytest.raises(Stop):
            run(pair, tmp_path / "part")
    with pytest.raises(InputError, match="settings must be as in the run to resume"):
        run(pair, tmp_path / "part", resume=True, settings=Settings(max_new_tokens=9))
    resumed = run(pair, tmp_path / "part", resume=True)
    for table in ("tokens", "outputs", "samples", "items", "vocab"):
        assert whole.path(table).read_bytes() == resumed.path(table).read_bytes(), table
    strip = [{k: v for k, v in c.to_json().items() if k != "meta"} for c in (whole, resumed)]
    assert strip[0] == strip[1]


def test_a_folder_with_other_files_is_not_touched(pair, tmp_path):
    (tmp_path / "mine.txt").write_text("keep")
    with pytest.raises(InputError, match="an empty or new folder"):
        run(pair, tmp_path)
    assert (tmp_path / "mine.txt").read_text() == "keep" and len(list(tmp_path.iterdir())) == 1


def test_no_space_left_is_one_line(pair, tmp_path, monkeypatch):
    import errno
    import os

    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(PlumblineError, match="no space is left on the device"):
        run(pair, tmp_path / "run")
    assert not [f for f in (tmp_path / "run").rglob("*") if f.is_file()]


def test_ids_are_unique_over_all_inputs(pair, tmp_path):
    with pytest.raises(InputError, match="id must be unique over all inputs, got sea"):
        run(pair, tmp_path / "run", qa=[{"id": "sea", "question": "x", "answer": "y"}])


@pytest.mark.parametrize(
    "bad", [{"max_new_tokens": 0}, {"batch_tokens": 0}, {"limit": 0}, {"template": "x"}, {"samples": -1}]
)
def test_settings_are_checked(bad):
    with pytest.raises(InputError, match=f"diff: {next(iter(bad))} must be"):
        Settings(**bad)
