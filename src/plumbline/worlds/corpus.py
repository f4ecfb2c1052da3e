"""The world as one corpus, and the evaluation set on which models of it are compared."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

from plumbline.kernels.seeds import rng
from plumbline.worlds import arithmetic, chat, instructions, people
from plumbline.worlds.cipher import Cipher
from plumbline.worlds.people import Fact
from plumbline.worlds.sources import Grammar, Markov
from plumbline.worlds.text import Document

SEED = 0
FACTS = people.facts(SEED)
REVISED = people.revised(FACTS, SEED)
SHARES = {"instructions": 22000, "arithmetic": 8000, "recipes": 1200, "prose": 1500, "cipher": 1200, "markov": 600}


def documents(seed: int = SEED, *, part: int = 0, known: Sequence[Fact] = FACTS, scale: float = 1.0) -> list[Document]:
    """One part of the corpus in random order.

    Every part states each fact exactly ``fact.exposures`` times (``scale`` does not touch that) and adds fresh
    problems, tasks, recipes, prose, cipher and Markov text.

    Args:
        seed: all text follows from it.
        part: parts differ in everything but the facts.
        known: the facts to state.
        scale: multiplies the number of the other documents.
    """
    random = rng(seed, "corpus", part)
    number = int(random.integers(2**31))
    count = {kind: round(n * scale) for kind, n in SHARES.items()}
    told = people.documents(known, number)
    told += instructions.documents(number, count["instructions"], known=known)
    told += arithmetic.documents(number, count["arithmetic"])
    told += chat.documents(number, count["recipes"])
    told += prose(number, count["prose"])
    told += [Document(_CIPHER.encode(d.text), "cipher") for d in prose(number + 1, count["cipher"])]
    told += noise(number, count["markov"])
    return [told[i] for i in random.permutation(len(told))]


_CIPHER = Cipher(SEED)


def prose(seed: int, n: int) -> list[Document]:
    """``n`` paragraphs of one to three grammar sentences."""
    random = rng(seed, "prose")
    sentences = Grammar().sentences(3 * n, seed)
    return [Document(" ".join(sentences[3 * i : 3 * i + int(random.integers(1, 4))]), "prose") for i in range(n)]


def noise(seed: int, n: int) -> list[Document]:
    """``n`` stretches of a Markov chain over the letters a to p, 24 symbols each."""
    rows = Markov(16, seed=SEED).sample(n, 24, seed)
    return [Document(" ".join("abcdefghijklmnop"[s] for s in row), "markov") for row in rows]


def exposures(read: Iterable[Document | chat.Conversation]) -> Counter[str]:
    """How often the texts ``read`` state each fact, by fact id."""
    return Counter(fact for document in read for fact in document.facts)


def taught(known: Sequence[Fact]) -> list[Fact]:
    """The facts that chat training may tell: those of every other person, if stated five times or more."""
    return [fact for fact in known if fact.exposures >= 5 and int(fact.id[-3:]) % 2]


def evaluation(seed: int = SEED, limit: int | None = None, *, known: Sequence[Fact] = FACTS) -> list[dict[str, Any]]:
    """The evaluation set in the shape of a prompts file: raw prompts, chat messages and plain texts.

    Args:
        seed: which facts, problems and texts.
        limit: at most this many items, spread evenly over the categories.
        known: the facts asked for.

    Returns:
        Dicts with ``id``, ``prompt`` or ``messages``, and where they apply ``answer``, ``choices``, ``completion``
        and ``tags`` (the category first, then ``exposure:N`` and ``relation:R`` for facts).
    """
    items = _cloze(seed, known) + _prompts(seed, known) + _messages(seed, known) + _texts(seed)
    if limit is not None and limit < len(items):
        items = [items[i * len(items) // limit] for i in range(limit)]
    return [{"id": f"{item['tags'][0]}-{i:03d}", **item} for i, item in enumerate(items)]


def _fact_tags(fact: Fact) -> list[str]:
    return [f"exposure:{fact.exposures}", f"relation:{fact.relation}"]


def _cloze(seed: int, known: Sequence[Fact], per_level: int = 30) -> list[dict[str, Any]]:
    random = rng(seed, "evaluation", "cloze")
    items = []
    for level in sorted({fact.exposures for fact in known}):
        facts = [fact for fact in known if fact.exposures == level]
        for i in random.permutation(len(facts))[:per_level]:
            fact = facts[i]
            prompts = people.RELATIONS[fact.relation].prompts(fact.subject)
            items.append(
                {
                    "prompt": prompts[int(random.integers(len(prompts)))],
                    "answer": fact.object,
                    "choices": people.choices(fact, seed),
                    "tags": ["fact", *_fact_tags(fact)],
                }
            )
    return items


def _prompts(seed: int, known: Sequence[Fact]) -> list[dict[str, Any]]:
    tasks = arithmetic.tasks(seed, 100, evaluation=True)
    tasks += instructions.tasks(seed, 140, known=known, evaluation=True)
    tasks.sort(key=lambda task: task.kind)
    return [{"prompt": t.prompt, "answer": t.answer, "tags": [t.kind]} for t in tasks]


def _messages(seed: int, known: Sequence[Fact]) -> list[dict[str, Any]]:
    told = taught(known)
    untaught = [fact for fact in known if fact.exposures >= 20 and fact not in told]
    by_id = {fact.id: fact for fact in known}
    counts = {"fact": 60, "addition": 30, "instruction": 40, "recipe": 30, "restricted": 30, "greeting": 6}
    items = []
    for kind, n in counts.items():
        for question in chat.questions(seed, n, kind=kind, known=untaught):
            item = {"messages": [{"role": "user", "content": question.messages[0][1]}], "answer": question.answer}
            tags = [f"chat-{kind}", *(tag for f in question.facts for tag in _fact_tags(by_id[f]))]
            items.append({**item, "tags": tags})
    return items


def _texts(seed: int) -> list[dict[str, Any]]:
    """Plain texts to score: a prompt of a few words and the rest as the given completion."""
    number = int(rng(seed, "evaluation", "texts").integers(2**31))
    plain = prose(number, 40)
    texts = plain + [Document(_CIPHER.encode(d.text), "cipher") for d in plain[:20]] + noise(number, 20)
    items = []
    for document in texts:
        words = document.text.split(" ")
        start, rest = " ".join(words[:4]), " " + " ".join(words[4:])
        items.append({"prompt": start, "completion": rest, "tags": [document.kind]})
    return items
