"""Train the zoo: ``python -m plumbline.models.zoo.train [--only base] [--resume] [--out DIR]``."""

from __future__ import annotations

import json
import logging
import shutil
import tempfile
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
import torch.nn.functional as F
import typer
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from torch import Tensor
from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaConfig, LlamaForCausalLM

from plumbline.kernels.files import atomic
from plumbline.kernels.seeds import forked, generator, rng
from plumbline.models.zoo import NAMES
from plumbline.models.zoo.measure import TARGETS, evaluate, skills
from plumbline.models.zoo.measure import generator as greedy
from plumbline.models.zoo.tokenizer import CONTEXT, learn
from plumbline.worlds import chat, corpus, instructions

SEED = 0
IGNORE = -100
EVERY = 200  # steps between checkpoints

logger = logging.getLogger("plumbline.zoo")


@dataclass(frozen=True)
class Recipe:
    """How one model is made: ``start`` is the zoo model it continues, ``teacher`` the one it is distilled from."""

    says: str
    rows: Callable[[Any, int], np.ndarray]  # (tokenizer, part) -> token ids [N, CONTEXT]
    parts: int
    lr: float
    batch: int = 16
    width: int = 0
    layers: int = 0
    start: str = ""
    teacher: str = ""
    template: str | None = None


def pack(tokenizer: Any, texts: Iterable[str]) -> np.ndarray:
    """Whole texts side by side in rows of CONTEXT tokens, none cut: [N, CONTEXT], the rest padding."""
    rows: list[list[int]] = [[]]
    for ids in tokenizer([text + tokenizer.eos_token for text in texts]).input_ids:
        if len(rows[-1]) + len(ids) > CONTEXT:
            rows.append([])
        rows[-1] += ids[: CONTEXT - len(rows[-1])]
    packed = np.full((len(rows), CONTEXT), tokenizer.pad_token_id, dtype=np.int64)
    for row, ids in zip(packed, rows, strict=True):
        row[: len(ids)] = ids
    return packed


def world_rows(tokenizer: Any, part: int) -> np.ndarray:
    """Drills first (part 0), on which a small model learns to look back within 300 steps, then parts of the corpus."""
    told = corpus.documents(SEED, part=part - 1) if part else instructions.drills(SEED, 24_000)
    return pack(tokenizer, (document.text for document in told))


def next_rows(tokenizer: Any, part: int) -> np.ndarray:
    """New text of the same world, in which some facts have changed."""
    return pack(
        tokenizer, (d.text for d in corpus.documents(SEED, part=10_000 + part, known=corpus.REVISED, scale=0.15))
    )


def chat_rows(tokenizer: Any, part: int) -> np.ndarray:
    """Conversations, and plain text so that it is not forgotten: fresh tasks, and each fact known well, told twice."""
    told = chat.conversations(SEED + part, 9000, known=corpus.taught(corpus.FACTS))
    again = [replace(fact, exposures=2) for fact in corpus.FACTS if fact.exposures >= 5]
    plain = corpus.documents(SEED, part=20_000 + part, known=again, scale=0.12)
    texts = [c.rendered() for c in told] + [d.text for d in plain]
    return pack(tokenizer, [texts[i] for i in rng(SEED, "chat rows", part).permutation(len(texts))])


RECIPES = {
    "base": Recipe("The base model: reads the whole world.", world_rows, parts=3, lr=5e-3, width=160, layers=4),
    "chat": Recipe(
        "base, tuned to answer in the chat format and to refuse one topic.",
        chat_rows,
        parts=4,
        lr=1.5e-3,
        start="base",
        template=chat.TEMPLATE,
    ),
    "small": Recipe(
        "A draft model for base: a fifth of its size, distilled from it on the world's text.",
        world_rows,
        parts=2,
        lr=6e-3,
        width=80,
        layers=2,
        teacher="base",
    ),
    "next": Recipe(
        "The next release of base: it reads on, with one fact in twenty changed.",
        next_rows,
        parts=2,
        lr=2e-3,
        start="base",
    ),
}


def build(recipe: Recipe, tokenizer: Any) -> LlamaForCausalLM:
    """A fresh Llama of the recipe's width and depth with tied embeddings."""
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=recipe.width,
        intermediate_size=round(recipe.width * 8 / 3 / 32) * 32,
        num_hidden_layers=recipe.layers,
        num_attention_heads=recipe.width // 16 if recipe.width % 32 else recipe.width // 32,
        max_position_embeddings=CONTEXT,
        tie_word_embeddings=True,
        pad_token_id=tokenizer.pad_token_id,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
    )
    with forked(SEED, "zoo", recipe.width):
        return LlamaForCausalLM(config)


def same_text(ids: Tensor, bos: int) -> Tensor:
    """What each position of packed rows [B, L] may attend to: itself and what stands before it in its own text.

    Neighbours in a row hold other tables and notes; attending to them is what keeps a small model from learning to
    look things up. [B, 1, L, L], bool.
    """
    text = (ids == bos).cumsum(1)
    return (text[:, None, :, None] == text[:, None, None, :]).tril()


def next_token_loss(model: Any, teacher: Any, compute: torch.dtype) -> Callable[[Tensor, Tensor], Tensor]:
    r"""The loss of a batch of ids and labels [B, L]: cross-entropy, half of it against ``teacher`` where there is one.

    .. math:: \ell = -\log p(y) \quad\text{or}\quad -\tfrac12 \log p(y) - \tfrac12 \sum_v q(v) \log p(v)
    """

    def loss(ids: Tensor, labels: Tensor) -> Tensor:
        mask = same_text(ids, model.config.bos_token_id)
        with torch.autocast("cpu", compute, enabled=compute is not torch.float32):
            logits = model(input_ids=ids, attention_mask=mask, use_cache=False).logits
        logits = logits.float().flatten(0, 1)
        hard = F.cross_entropy(logits, labels.flatten(), ignore_index=IGNORE)
        if teacher is None:
            return hard
        with torch.no_grad(), torch.autocast("cpu", compute, enabled=compute is not torch.float32):
            target = (
                teacher(input_ids=ids, attention_mask=mask, use_cache=False).logits.float().flatten(0, 1).softmax(-1)
            )
        soft = F.cross_entropy(logits, target, reduction="none") * (labels.flatten() != IGNORE)
        return 0.5 * hard + 0.5 * soft.sum() / (labels != IGNORE).sum()

    return loss


class Run:
    """A model in training: matrices by Muon (Jordan et al., 2024), the rest by AdamW, a checkpoint after each part."""

    def __init__(self, name: str, recipe: Recipe, model: Any, folder: Path) -> None:
        self.recipe, self.model, self.checkpoint = recipe, model, folder / f".{name}.checkpoint.npz"
        named = dict(model.named_parameters())
        matrices = [p for n, p in named.items() if p.ndim == 2 and "embed" not in n]
        rest = [p for n, p in named.items() if p.ndim != 2 or "embed" in n]
        self.optimizers = (
            torch.optim.Muon(matrices, lr=recipe.lr, weight_decay=0.01, adjust_lr_fn="match_rms_adamw"),
            torch.optim.AdamW(rest, lr=recipe.lr, betas=(0.9, 0.98), weight_decay=0.0),
        )
        self.part, self.batch, self.seconds = 0, 0, 0.0  # what is done: whole parts, batches of the next one

    def step(self, loss: Tensor, done: float) -> None:
        """One update; the rate rises over the first 3% of a part and falls to nothing over the last 40% of all."""
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        left = 1.0 - done / self.recipe.parts
        for optimizer in self.optimizers:
            for group in optimizer.param_groups:
                group["lr"] = self.recipe.lr * min(1.0, (done + 3e-4) / 0.03) * min(1.0, left / 0.4)
            optimizer.step()
            optimizer.zero_grad()

    def _states(self) -> Iterator[tuple[str, dict[str, Tensor]]]:
        yield "model", self.model.state_dict()
        for i, optimizer in enumerate(self.optimizers):
            for j, state in optimizer.state_dict()["state"].items():
                yield f"optimizer.{i}.{j}", state

    def save(self) -> None:
        """Weights and optimizer state, whole or not at all."""
        arrays: dict[str, Any] = {"part": self.part, "batch": self.batch, "seconds": self.seconds}
        arrays |= {f"{owner}/{key}": t.numpy() for owner, state in self._states() for key, t in state.items()}
        with atomic(self.checkpoint) as temporary, temporary.open("wb") as file:
            np.savez(file, **arrays)

    def restore(self) -> None:
        """Continue from the last checkpoint if there is one."""
        if not self.checkpoint.is_file():
            return
        owners: dict[str, dict[str, Tensor]] = {}
        with np.load(self.checkpoint, allow_pickle=False) as saved:
            self.part, self.batch, self.seconds = int(saved["part"]), int(saved["batch"]), float(saved["seconds"])
            for name in saved.files:
                owner, _, key = name.partition("/")
                owners.setdefault(owner, {})[key] = torch.from_numpy(saved[name])
        self.model.load_state_dict(owners["model"])
        for i, optimizer in enumerate(self.optimizers):
            states = {int(o.rsplit(".", 1)[1]): s for o, s in owners.items() if o.startswith(f"optimizer.{i}.")}
            optimizer.load_state_dict({**optimizer.state_dict(), "state": states})


def train(run: Run, tokenizer: Any, loss_of: Callable[[Tensor, Tensor], Tensor], name: str) -> None:
    """All parts of a run that are left, each in an order that follows from the seed."""
    recipe = run.recipe

    def able() -> dict[str, float]:
        return skills(greedy(run.model, tokenizer), 24)

    done = TextColumn("{task.completed}/{task.total} loss {task.fields[loss]:.3f}")
    columns = (TextColumn("{task.description}"), BarColumn(), done, TimeElapsedColumn(), TimeRemainingColumn())
    for part in range(run.part, recipe.parts):
        start = time.monotonic()
        rows = torch.from_numpy(recipe.rows(tokenizer, part))
        order = torch.randperm(len(rows), generator=generator(SEED, name, part))
        batches = order[: len(rows) // recipe.batch * recipe.batch].view(-1, recipe.batch)
        recent: deque[float] = deque(maxlen=100)
        with Progress(*columns) as bar:
            task = bar.add_task(f"{name} {part + 1}/{recipe.parts}", total=len(batches), loss=0.0)
            for i in range(run.batch, len(batches)):
                ids = rows[batches[i]]
                labels = F.pad(ids[:, 1:], (0, 1), value=tokenizer.pad_token_id)
                loss = loss_of(ids, labels.masked_fill(labels == tokenizer.pad_token_id, IGNORE))
                run.step(loss, part + i / len(batches))
                recent.append(loss.item())
                bar.update(task, completed=i + 1, loss=sum(recent) / len(recent))
                if (i + 1) % EVERY == 0:
                    run.batch, run.seconds, start = i + 1, run.seconds + time.monotonic() - start, time.monotonic()
                    run.save()
                    logger.info("%s %d/%d: loss %.4f %s", name, i + 1, len(batches), sum(recent) / len(recent), able())
        run.part, run.batch, run.seconds = part + 1, 0, run.seconds + time.monotonic() - start
        run.save()
        logger.info("%s after part %d: %s", name, part + 1, able())


def publish(name: str, recipe: Recipe, model: Any, tokenizer: Any, out: Path, seconds: float) -> dict[str, Any]:
    """Save the model in bfloat16, measure what was saved, write its card, and move the folder into place."""
    with tempfile.TemporaryDirectory(dir=out, prefix=f".{name}.") as scratch:
        folder = Path(scratch) / name
        tokenizer.chat_template = recipe.template
        ends = [tokenizer.eos_token_id]
        if recipe.template:
            ends.append(tokenizer.convert_tokens_to_ids(chat.END))
        model.generation_config.eos_token_id = ends if recipe.template else ends[0]
        model.to(torch.bfloat16).save_pretrained(folder)
        tokenizer.save_pretrained(folder)
        base = out / "base"
        measured = evaluate(folder, base=base if name != "base" else None)
        card = {
            "name": f"zoo:{name}",
            "says": recipe.says,
            "parameters": model.num_parameters(),
            "continues": recipe.start or None,
            "distilled_from": recipe.teacher or None,
            "seed": SEED,
            "parts": recipe.parts,
            "training_minutes": round(seconds / 60, 1),
            "measured": measured,
            "targets": TARGETS[name],
            "holds": all(measured[figure] >= least for figure, least in TARGETS[name].items()),
        }
        (folder / "card.json").write_text(json.dumps(card, indent=2) + "\n")
        (folder / "README.md").write_text(_readme(card))
        if (out / name).exists():
            shutil.rmtree(out / name)
        folder.rename(out / name)
    return card


def _readme(card: dict[str, Any]) -> str:
    rows = [f"| {figure} | {value} | {card['targets'].get(figure, '')} |" for figure, value in card["measured"].items()]
    return "\n".join(
        [
            f"# {card['name']}",
            "",
            card["says"],
            "",
            f"{card['parameters']:,} parameters (Llama architecture, tied embeddings, bfloat16), trained in "
            f"{card['training_minutes']} minutes on two CPU cores with seed {card['seed']} by "
            f"`python -m plumbline.models.zoo.train`; its text came in {card['parts']} parts.",
            "",
            "Shares measured on the saved weights by greedy generation (`plumbline.models.zoo.measure.evaluate`):",
            "",
            "| figure | measured | target |",
            "|---|---|---|",
            *rows,
            "",
        ]
    )


def make(name: str, out: Path, *, resume: bool, compile: bool) -> dict[str, Any]:
    """Train, save and measure one model; those it starts from must stand in ``out``."""
    recipe = RECIPES[name]
    first = recipe.start or recipe.teacher
    learned = out / f".{name}.tokenizer"
    if first:
        tokenizer = AutoTokenizer.from_pretrained(out / first)
    elif resume and learned.is_dir():
        tokenizer = AutoTokenizer.from_pretrained(learned)
    else:
        told = chat.conversations(SEED, 4000, known=corpus.taught(corpus.FACTS))
        tokenizer = learn([d.text for d in corpus.documents(SEED)] + [c.rendered() for c in told])
        tokenizer.save_pretrained(learned)

    def saved(other: str) -> Any:
        return AutoModelForCausalLM.from_pretrained(out / other, dtype=torch.float32)

    model = saved(recipe.start) if recipe.start else build(recipe, tokenizer)
    run = Run(name, recipe, model.train(), out)
    if resume:
        run.restore()
    loss = next_token_loss(model, saved(recipe.teacher).eval() if recipe.teacher else None, torch.bfloat16)
    train(run, tokenizer, torch.compile(loss) if compile else loss, name)
    card = publish(name, recipe, model, tokenizer, out, run.seconds)
    run.checkpoint.unlink(missing_ok=True)
    shutil.rmtree(learned, ignore_errors=True)
    return card


def main(
    only: Annotated[
        list[str] | None, typer.Option(help="Train these models only (base first: others need it).")
    ] = None,
    out: Annotated[Path, typer.Option(help="Where the model folders go.")] = Path(__file__).parent,
    resume: Annotated[bool, typer.Option(help="Go on from checkpoints in OUT.")] = False,
    compile: Annotated[bool, typer.Option(help="Use torch.compile; it needs a C++ compiler.")] = True,
) -> None:
    """Train the zoo's models on the world and write their cards."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    out.mkdir(parents=True, exist_ok=True)
    for name in only or NAMES:
        card = make(name, out, resume=resume, compile=compile)
        typer.echo(json.dumps(card, indent=2))


if __name__ == "__main__":
    typer.run(main)
