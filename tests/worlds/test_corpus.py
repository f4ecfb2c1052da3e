"""The corpus and its evaluation set."""

from __future__ import annotations

from collections import Counter

from plumbline.worlds import corpus, documents, evaluation, exposures


def test_every_part_states_every_fact_as_often_as_it_says() -> None:
    for part in (0, 1):
        counted = exposures(documents(part=part, scale=0.02))
        assert all(counted[fact.id] == fact.exposures for fact in corpus.FACTS)


def test_the_corpus_follows_from_its_seed_and_part() -> None:
    first = documents(3, scale=0.02)
    assert first == documents(3, scale=0.02)
    assert first != documents(3, part=1, scale=0.02)
    assert first != documents(4, scale=0.02)
    assert len({document.kind for document in first}) >= 12


def test_the_evaluation_set_has_the_shape_of_a_prompts_file() -> None:
    items = evaluation()
    assert items == evaluation()
    assert 600 <= len(items) <= 1000
    assert len({item["id"] for item in items}) == len(items)
    for item in items:
        assert ("prompt" in item) != ("messages" in item)
        assert item["tags"]
        if "choices" in item:
            assert item["answer"] in item["choices"]
    levels = Counter(tag for item in items for tag in item["tags"] if tag.startswith("exposure:"))
    assert len(levels) == 8
    assert min(levels.values()) >= 30


def test_a_limit_keeps_every_category() -> None:
    some = evaluation(limit=100)
    assert len(some) == 100
    assert {item["tags"][0] for item in some} >= {"fact", "addition", "lookup", "chat-fact", "chat-restricted", "prose"}
