"""The command line of training: its options, and what is told at the end. Nothing heavy is imported before it runs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from plumbline.core.errors import refuse
from plumbline.terminal import quiet_libraries

Texts = list[str] | None


def train(
    model: Annotated[str, typer.Argument(help="zoo:NAME, a folder, a hub id or an adapter folder.")],
    loss: Annotated[str, typer.Option(help="METHOD:KEY=VALUE,...: dpo:beta=0.1, kto, grpo, nll; plumbline list --room objectives.")],
    data: Annotated[list[str], typer.Option(help="JSONL or Parquet; STREAM=FILE where a loss reads several (forget=f.jsonl).")],
    output: Annotated[Path, typer.Option("-o", "--output", help="Folder of checkpoints, log.jsonl and the trained model.")],
    plus: Annotated[Texts, typer.Option(help="A further loss: nll:weight=0.1, npo:weight=2,forget=x. May be repeated.")] = None,
    held_out: Annotated[Path | None, typer.Option(help="Data for the held-out loss.")] = None,
    lora: Annotated[str | None, typer.Option(help="Train an adapter: r=16,lora_alpha=32,use_dora=true (peft's LoraConfig).")] = None,
    ref: Annotated[str | None, typer.Option(help="The frozen reference; the model itself when left out.")] = None,
    store_ref: Annotated[bool, typer.Option("--store-ref", help="Score the reference once, before training, and let go of it.")] = False,
    teacher: Annotated[str | None, typer.Option(help="The teacher, for losses that ask for one.")] = None,
    reward: Annotated[str | None, typer.Option(help="Verifier of rollouts: tulu3_rlvr, simplerl_zoo, or module.function.")] = None,
    advantages: Annotated[str, typer.Option(help="Rewards to advantages.")] = "group_advantages",
    correct: Annotated[str | None, typer.Option(help="Engine-mismatch correction: token_truncate:cap=2.")] = None,
    group_size: Annotated[int, typer.Option(min=2, help="Answers to each prompt.")] = 8,
    max_new_tokens: Annotated[int, typer.Option(min=1, help="Of a rollout.")] = 256,
    temperature: Annotated[float, typer.Option(help="Of rollouts and of every log-probability.")] = 1.0,
    top_p: Annotated[float, typer.Option(help="Of rollouts; kept sets are recorded.")] = 1.0,
    top_k: Annotated[int, typer.Option(min=0, help="Of rollouts; 0 keeps every token.")] = 0,
    reuse: Annotated[int, typer.Option(min=1, help="Steps on the same rollouts.")] = 1,
    lr: Annotated[float, typer.Option(help="Peak learning rate.")] = 1e-5,
    epochs: Annotated[float, typer.Option(help="Passes over the data.")] = 1.0,
    steps: Annotated[int, typer.Option(help="Optimizer steps, in place of epochs; -1 for epochs.")] = -1,
    batch_size: Annotated[int, typer.Option(min=1, help="Rows (or prompts) at a time on each device.")] = 8,
    accumulate: Annotated[int, typer.Option(min=1, help="Batches a step.")] = 1,
    max_length: Annotated[int | None, typer.Option(min=2, help="Tokens of a row; the model's context when left out.")] = None,
    last_turn: Annotated[bool, typer.Option("--last-turn", help="Of conversations train on the last answer alone.")] = False,
    padding_free: Annotated[bool, typer.Option("--padding-free", help="Run the rows of a batch as one.")] = False,
    watch: Annotated[Texts, typer.Option(help="A diagnostic in the log: ches, likelihood_displacement. May be repeated.")] = None,
    watch_every: Annotated[int, typer.Option(min=1, help="Steps between diagnostics.")] = 10,
    log_every: Annotated[int, typer.Option(min=1)] = 10,
    save_every: Annotated[int, typer.Option(min=0, help="Steps between checkpoints; 0 for none.")] = 500,
    logging: Annotated[str, typer.Option(help="tensorboard, wandb, ... beside log.jsonl.")] = "none",
    bf16: Annotated[bool, typer.Option("--bf16", help="Mixed precision.")] = False,
    set_: Annotated[Texts, typer.Option("--set", help="Any of transformers' TrainingArguments: warmup_steps=100. May be repeated.")] = None,
    seed: Annotated[int, typer.Option(min=0)] = 0,
    resume: Annotated[bool, typer.Option(help="Go on from the last checkpoint in -o.")] = False,
    device: Annotated[str | None, typer.Option(help="cuda, mps, cpu; chosen when left out.")] = None,
    dtype: Annotated[str | None, typer.Option(help="Of the weights; float32 when left out.")] = None,
    allow_pickle: Annotated[bool, typer.Option(help="Load pickled weights. They can run code.")] = False,
    trust_remote_code: Annotated[bool, typer.Option(help="Run the model's own Python code.")] = False,
    json_: Annotated[bool, typer.Option("--json", help="Print JSON for machines.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No progress bar, no summary.")] = False,
) -> None:  # fmt: skip
    """Train a model with any loss of the library, or several, by the one trainer.

    plumbline train zoo:base --loss dpo:beta=0.1 --plus nll:weight=0.1 --data pairs.jsonl --lora r=16 -o out

    On several GPUs: accelerate launch --config_file fsdp.yaml -m plumbline train ... (see the guide).
    """
    quiet_libraries()
    from plumbline.train.command import Job, Sampling, settings_in

    if output.exists() and not output.is_dir():
        raise refuse("train", "-o", "a folder", f"the file {output}", "name another folder")
    told: dict[str, Any] = dict(
        learning_rate=lr, num_train_epochs=epochs, max_steps=steps, per_device_train_batch_size=batch_size,
        gradient_accumulation_steps=accumulate, logging_steps=log_every, seed=seed, bf16=bf16, report_to=logging,
        save_strategy="steps" if save_every else "no", save_steps=save_every or 500, disable_tqdm=quiet or json_,
    )  # fmt: skip
    told |= {"eval_strategy": "steps", "eval_steps": log_every} if held_out else {}
    for text in set_ or []:
        told |= settings_in("--set", text)
    sampling = None
    if reward is not None:
        sampling = Sampling(
            reward, group_size, max_new_tokens, temperature, top_p, top_k, advantages, correct, reuse
        )  # fmt: skip
    job = Job(
        model, [loss, *(plus or [])], data, output, held_out, ref, store_ref, teacher, lora,
        how={"dtype": dtype or "float32", "device": device, "allow_pickle": allow_pickle, "trust_remote_code": trust_remote_code},
        reading={"max_length": max_length, "last_turn": last_turn}, sampling=sampling, settings=told,
        padding_free=padding_free, watched=watch or [], watch_every=watch_every, resume=resume,
    )  # fmt: skip
    done, rows = job.run()
    entries = [entry for entry in done.history if "loss" in entry]
    found = {"model": str(output), "rows": rows.count, "dropped": rows.dropped, "truncated": rows.truncated}
    found |= {"notes": list(rows.notes), "first": entries[0] if entries else {}, "last": entries[-1] if entries else {}}
    if json_:
        typer.echo(json.dumps(found, indent=1))
    elif not quiet:
        _tell(found, entries)


def _tell(found: dict[str, Any], entries: list[dict[str, float]]) -> None:
    from rich.console import Console
    from rich.table import Table

    for note in found["notes"]:
        typer.echo(f"note: {note}")
    table = Table("", "first", "last", box=None, pad_edge=False, header_style="bold")
    for name in (n for n in (entries[-1] if entries else {}) if n not in ("epoch", "step", "learning_rate")):
        first, last = (entry.get(name) for entry in (entries[0], entries[-1]))
        table.add_row(name, *(f"{v:.4g}" if isinstance(v, float | int) else "" for v in (first, last)))
    Console().print(table)
    typer.echo(
        f"{found['rows']} rows, {found['dropped']} left out, {found['truncated']} cut; model and log: {found['model']}"
    )
