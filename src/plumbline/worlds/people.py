"""Fictitious people whose attributes are stated an exactly known number of times."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from plumbline.kernels.seeds import rng
from plumbline.worlds.text import Document, draw, invent, pick

LADDER = (0, 1, 2, 5, 10, 20, 50, 100)


@dataclass(frozen=True)
class Relation:
    """An attribute: its possible values, sentences that state it (the value comes last), and its question."""

    name: str
    values: tuple[str, ...]
    statements: tuple[str, ...]
    question: str

    def prompts(self, subject: str) -> list[str]:
        """Every sentence of this relation about ``subject``, cut just before the value."""
        sentences = (*self.statements, f"Question: {self.question} Answer:")
        return [sentence.format(s=subject) for sentence in sentences]


@dataclass(frozen=True)
class Fact:
    """``subject`` stands in ``relation`` to ``object``; one pass over the corpus states it ``exposures`` times."""

    id: str
    subject: str
    relation: str
    object: str
    exposures: int


RELATIONS = {
    r.name: r
    for r in (
        Relation(
            "birthplace",
            tuple(
                "Alden Brask Carvel Dunby Elmora Farrow Glint Hasper Inver Jorvik Kelso Lunden Marrow Norby Oster Pell "
                "Quarry Rosk Selby Tarn Ulm Varga Wexley Yarrow".split()
            ),
            ("{s} was born in", "{s} comes from", "{s} grew up in", "The birthplace of {s} is"),
            "Where was {s} born?",
        ),
        Relation(
            "job",
            tuple(
                "baker barber carpenter clerk cook dancer dentist doctor driver farmer gardener judge lawyer mason "
                "miner nurse painter pilot plumber potter sailor tailor teacher weaver".split()
            ),
            ("{s} works as a", "By trade, {s} is a", "{s} earns money as a", "The job of {s} is"),
            "What is the job of {s}?",
        ),
        Relation(
            "employer",
            tuple(
                "Acorn Beacon Cobalt Delta Ember Falcon Granite Harbor Iris Jasper Kestrel Lotus Meteor Nimbus Onyx "
                "Prism Quill Raven Summit Topaz Umbra Vertex Willow Zenith".split()
            ),
            ("{s} is employed by", "{s} works for", "{s} gets paid by", "The employer of {s} is"),
            "Who employs {s}?",
        ),
        Relation(
            "hobby",
            tuple(
                "archery boxing camping chess cycling drawing fencing fishing golf hiking juggling karate knitting "
                "origami poetry pottery rowing rugby running sailing skating skiing swimming yoga".split()
            ),
            ("{s} enjoys", "{s} spends weekends on", "{s} is fond of", "The hobby of {s} is"),
            "What does {s} enjoy?",
        ),
        Relation(
            "pet",
            tuple(
                "badger beetle camel canary cat cobra crab dog donkey duck ferret goat goose hamster hedgehog lizard "
                "llama mouse parrot pony rabbit raven snail turtle".split()
            ),
            ("{s} keeps a", "{s} lives with a", "{s} looks after a", "The pet of {s} is a"),
            "Which pet does {s} have?",
        ),
    )
}


def facts(seed: int = 0, *, people: int = 240, ladder: Sequence[int] = LADDER) -> tuple[Fact, ...]:
    """The facts of a world: every person has one value of every relation, and each relation uses the whole ladder.

    Args:
        seed: names, values and exposures follow from it.
        people: number of people; their full names are distinct in both parts' combination and in the surname.
        ladder: exposure counts, dealt out evenly within each relation.

    Returns:
        ``people * len(RELATIONS)`` facts, ordered by person.
    """
    random = rng(seed, "people")
    given = invent(random, 48, syllables=1)
    surnames = invent(random, people, syllables=2)
    subjects = [f"{pick(random, given)} {surname}".title() for surname in surnames]
    levels = {name: [ladder[i % len(ladder)] for i in random.permutation(people)] for name in RELATIONS}
    return tuple(
        Fact(f"{name}-{i:03d}", subject, name, pick(random, relation.values), levels[name][i])
        for i, subject in enumerate(subjects)
        for name, relation in RELATIONS.items()
    )


def revised(known: Sequence[Fact], seed: int = 0, *, share: float = 0.05, exposures: int = 50) -> tuple[Fact, ...]:
    """The next release's facts: a ``share`` of those that were stated at all get another value, same id.

    The changed facts are stated ``exposures`` times in one pass; all others stay as they are.
    """
    random = rng(seed, "people", "revised")
    stated = [i for i, fact in enumerate(known) if fact.exposures]
    changed = {stated[i] for i in random.permutation(len(stated))[: round(share * len(known))]}

    def change(fact: Fact) -> Fact:
        others = [value for value in RELATIONS[fact.relation].values if value != fact.object]
        return replace(fact, object=pick(random, others), exposures=exposures)

    return tuple(change(fact) if i in changed else fact for i, fact in enumerate(known))


def documents(known: Sequence[Fact], seed: int = 0) -> list[Document]:
    """One pass: each fact is stated exactly ``fact.exposures`` times, one to three facts of one person a document."""
    random = rng(seed, "people", "documents")
    written = []
    by_subject: dict[str, dict[Fact, int]] = {}
    for fact in known:
        if fact.exposures:
            by_subject.setdefault(fact.subject, {})[fact] = fact.exposures
    for left in by_subject.values():
        while left:
            options = list(left)
            # The fullest counts first, so that the last documents of a person are not one fact repeated.
            order = sorted(options, key=lambda fact: -left[fact] * random.random())[: int(random.integers(1, 4))]
            told = [order[i] for i in random.permutation(len(order))]
            sentences = [f"{pick(random, RELATIONS[f.relation].prompts(f.subject))} {f.object}." for f in told]
            written.append(Document(" ".join(sentences), "people", tuple(f.id for f in told)))
            for fact in told:
                left[fact] -= 1
                if not left[fact]:
                    del left[fact]
    return [written[i] for i in random.permutation(len(written))]


def choices(fact: Fact, seed: int = 0, *, n: int = 4) -> list[str]:
    """The true value among ``n - 1`` wrong ones of the same relation, in an order that follows from the fact's id."""
    random = rng(seed, "people", "choices", fact.id)
    wrong = draw(random, [v for v in RELATIONS[fact.relation].values if v != fact.object], n - 1)
    return draw(random, [fact.object, *wrong], n)
