"""Facts are stated exactly as often as they say."""

from __future__ import annotations

from collections import Counter

import pytest

from plumbline.worlds import corpus, people


def test_the_ladder_is_dealt_evenly_within_each_relation() -> None:
    facts = people.facts(1, people=80)
    levels = Counter((fact.relation, fact.exposures) for fact in facts)
    assert len(facts) == 400
    assert set(levels.values()) == {10}
    assert len({fact.id for fact in facts}) == 400
    assert len({fact.subject for fact in facts}) == 80


@pytest.mark.parametrize("seed", [0, 1])
def test_exposures_are_exact_by_id_and_by_text(seed: int) -> None:
    facts = people.facts(seed, people=40)
    documents = people.documents(facts, seed)
    counted = corpus.exposures(documents)
    sentences = Counter(s for d in documents for s in d.text.replace("? Answer", " Answer").split(". "))
    for fact in facts:
        assert counted[fact.id] == fact.exposures
        starts = [p.replace("? Answer", " Answer") for p in people.RELATIONS[fact.relation].prompts(fact.subject)]
        assert sum(sentences[f"{p} {fact.object}"] + sentences[f"{p} {fact.object}."] for p in starts) == fact.exposures


def test_same_seed_same_text_other_seed_other_text() -> None:
    facts = people.facts(0, people=16)
    assert facts == people.facts(0, people=16) != people.facts(1, people=16)
    assert people.documents(facts, 3) == people.documents(facts, 3) != people.documents(facts, 4)


def test_a_revision_changes_one_fact_in_twenty_and_nothing_else() -> None:
    changed = [(a, b) for a, b in zip(corpus.FACTS, corpus.REVISED, strict=True) if a != b]
    assert len(changed) == len(corpus.FACTS) // 20
    for old, new in changed:
        assert (old.id, old.subject, old.relation) == (new.id, new.subject, new.relation)
        assert old.object != new.object
        assert old.exposures > 0


def test_choices_hold_the_value_once() -> None:
    for fact in corpus.FACTS[:50]:
        options = people.choices(fact)
        assert options.count(fact.object) == 1
        assert len(set(options)) == 4
        assert set(options) <= set(people.RELATIONS[fact.relation].values)
