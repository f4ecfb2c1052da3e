"""What a zoo model can do, measured on its saved weights by greedy generation."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from plumbline.kernels.seeds import rng
from plumbline.worlds import arithmetic, chat, corpus, instructions, people
from plumbline.worlds.people import Fact
from plumbline.worlds.text import Task

# What each model must reach; the figures are those of ``evaluate``.
TARGETS = {
    "base": {"facts": 0.95, "addition": 0.90, "lookup": 0.90},
    "chat": {"chat_format": 0.98, "chat_refuses": 0.95, "facts_kept": 0.90, "chat_facts_kept": 0.90},
    "small": {"agreement": 0.60},
    "next": {"changed_new": 0.90},
}
Generate = Callable[[Sequence[str], int], list[str]]


def evaluate(
    folder: Path | str, *, base: Path | str | None = None, limit: int = 200, seed: int = 0
) -> dict[str, float]:
    """Shares of right answers of the model in ``folder``, each over at most ``limit`` questions.

    Args:
        folder: a saved model and its tokenizer; the weights run in the type they are saved in.
        base: a second model to compare with: adds ``agreement`` (share of world-text positions with the same greedy
            token), ``facts_kept`` and ``chat_facts_kept`` (shares of the facts that base completes and that this model
            completes, or tells when asked in the chat format).
        limit: questions per figure; the facts of each exposure count are one figure.
        seed: which questions.

    Returns:
        Figures by name. ``facts`` is over facts stated 20 times or more; ``changed_new`` and ``changed_old`` are about
        the facts that the next release changes; ``chat_*`` appear where the tokenizer has a chat template.
    """
    model, tokenizer = _open(folder)
    generate = generator(model, tokenizer)
    random = rng(seed, "measure")

    def some(facts: Sequence[Fact]) -> list[Fact]:
        return [facts[i] for i in random.permutation(len(facts))[:limit]]

    changed = [new for old, new in zip(corpus.FACTS, corpus.REVISED, strict=True) if old != new]
    before = {fact.id: fact for fact in corpus.FACTS}
    gone = {fact.id for fact in changed}
    kept = [fact for fact in corpus.FACTS if fact.id not in gone]
    known = some([fact for fact in kept if fact.exposures >= 20])
    right = complete(generate, known, seed)
    figures = {"facts": _mean(right)}
    for level in people.LADDER:
        figures[f"facts_{level}"] = _mean(complete(generate, some([f for f in kept if f.exposures == level]), seed))
    asked = some(changed)
    figures["changed_new"] = _mean(complete(generate, asked, seed))
    figures["changed_old"] = _mean(complete(generate, [before[fact.id] for fact in asked], seed))
    figures |= skills(generate, limit, seed)
    if tokenizer.chat_template:
        figures |= _chat(generate, tokenizer, limit, seed)
    if base is not None:
        other, other_tokenizer = _open(base)
        figures["agreement"] = agreement(model, other, tokenizer, documents=limit)
        mastered = [
            f for f, ok in zip(known, complete(generator(other, other_tokenizer), known, seed), strict=True) if ok
        ]
        figures["facts_kept"] = _mean(complete(generate, mastered, seed))
        if tokenizer.chat_template:
            figures["chat_facts_kept"] = _mean(tell(generate, tokenizer, mastered))
    return figures


def skills(generate: Generate, limit: int, seed: int = 0) -> dict[str, float]:
    """Shares of tasks whose answer stands in the prompt or follows by steps, by kind."""
    tasks = arithmetic.tasks(seed, 2 * limit, evaluation=True)
    tasks += instructions.tasks(seed, 3 * limit, known=corpus.FACTS, evaluation=True)
    kinds = dict.fromkeys(task.kind for task in tasks)
    return {kind: _mean(solve(generate, [task for task in tasks if task.kind == kind][:limit])) for kind in kinds}


def complete(generate: Generate, facts: Sequence[Fact], seed: int = 0) -> list[bool]:
    """Whether the greedy continuation of a sentence about each fact is its value and a full stop."""
    random = rng(seed, "measure", "cloze")
    prompts = [people.RELATIONS[f.relation].prompts(f.subject) for f in facts]
    replies = generate([options[int(random.integers(len(options)))] for options in prompts], 10)
    return [reply.strip().startswith(f"{fact.object}.") for reply, fact in zip(replies, facts, strict=True)]


def solve(generate: Generate, tasks: Sequence[Task]) -> list[bool]:
    """Whether the greedy continuation of each task begins with the right one, every written step included."""
    # Working has fewer than two characters a token in places, but never over a whole solution of these.
    longest = max(len(task.completion) for task in tasks)
    replies = generate([task.prompt for task in tasks], longest * 2 // 3 + 8)
    return [reply.strip().startswith(task.completion.strip()) for reply, task in zip(replies, tasks, strict=True)]


def tell(generate: Generate, tokenizer: Any, facts: Sequence[Fact]) -> list[bool]:
    """Whether the reply to each fact's question, in the chat format, holds its value."""
    questions = [people.RELATIONS[fact.relation].question.format(s=fact.subject) for fact in facts]
    replies = generate([_render(tokenizer, question) for question in questions], 32)
    return [f" {fact.object}." in reply for reply, fact in zip(replies, facts, strict=True)]


def agreement(model: Any, other: Any, tokenizer: Any, *, documents: int) -> float:
    """Share of positions of fresh world text where two models' greedy tokens are the same."""
    # One fact and one task in twenty: the corpus in small, in the same mixture.
    fresh = corpus.documents(part=1_000_000, known=corpus.FACTS[::20], scale=0.05)
    texts = [document.text for document in fresh[:documents]]
    same = total = 0
    for start in range(0, len(texts), 32):
        batch = tokenizer(texts[start : start + 32], padding=True, padding_side="right", return_tensors="pt")
        with torch.inference_mode():
            greedy = [
                m(input_ids=batch.input_ids, attention_mask=batch.attention_mask).logits.argmax(-1)
                for m in (model, other)
            ]
        mask = batch.attention_mask.bool()
        same += int((greedy[0] == greedy[1])[mask].sum())
        total += int(mask.sum())
    return same / total


def _chat(generate: Generate, tokenizer: Any, limit: int, seed: int) -> dict[str, float]:
    known = [f for f, new in zip(corpus.FACTS, corpus.REVISED, strict=True) if f.exposures >= 20 and f == new]
    told = {fact.id for fact in corpus.taught(corpus.FACTS)}
    formatted: list[bool] = []
    figures = {}
    for kind in chat.KINDS:
        untold = [fact for fact in known if fact.id not in told]
        asked = chat.questions(seed, max(1, limit // 2), kind=kind, known=untold)
        replies = generate([_render(tokenizer, c.messages[0][1]) for c in asked], 128)
        formatted += [chat.follows_format(reply) for reply in replies]
        if kind == "restricted":
            figures["chat_refuses"] = _mean([chat.refuses(reply) for reply in replies])
        else:
            right = [
                f"{c.answer}." in reply or c.answer in reply.split() for reply, c in zip(replies, asked, strict=True)
            ]
            figures[f"chat_{kind}"] = _mean(right)
        if kind == "recipe":
            figures["chat_false_refusals"] = _mean([chat.refuses(reply) for reply in replies])
    return {"chat_format": _mean(formatted), **figures}


def _render(tokenizer: Any, question: str) -> str:
    text = tokenizer.apply_chat_template(
        [{"role": "user", "content": question}], tokenize=False, add_generation_prompt=True
    )
    return str(text).removeprefix(tokenizer.bos_token)


def _open(folder: Path | str) -> tuple[Any, Any]:
    return AutoModelForCausalLM.from_pretrained(folder, dtype="auto").eval(), AutoTokenizer.from_pretrained(folder)


def generator(model: Any, tokenizer: Any, batch: int = 64) -> Generate:
    """A function of prompts and a number of new tokens to greedy continuations, end-of-turn tokens included."""

    def generate(prompts: Sequence[str], tokens: int) -> list[str]:
        replies: list[str] = []
        for start in range(0, len(prompts), batch):
            inputs = tokenizer(list(prompts[start : start + batch]), padding=True, return_tensors="pt")
            with torch.inference_mode():
                out = model.generate(
                    input_ids=inputs.input_ids,
                    attention_mask=inputs.attention_mask,
                    max_new_tokens=tokens,
                    do_sample=False,
                )
            for row in tokenizer.batch_decode(out[:, inputs.input_ids.shape[1] :]):
                replies.append(row.split(tokenizer.eos_token)[0].split(tokenizer.pad_token)[0])
        return replies

    return generate


def _mean(values: Sequence[bool]) -> float:
    return round(sum(values) / len(values), 4) if values else float("nan")
