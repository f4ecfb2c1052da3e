"""The graders: an oracle scores one, a model that is nearly right scores nothing."""

from __future__ import annotations

from collections.abc import Sequence

from plumbline.models.zoo.measure import complete, solve
from plumbline.worlds import arithmetic, corpus, people

FACTS = [fact for fact in corpus.FACTS if fact.exposures][:40]
TASKS = arithmetic.tasks(0, 20, evaluation=True)


def told(fact: people.Fact) -> dict[str, str]:
    return dict.fromkeys(people.RELATIONS[fact.relation].prompts(fact.subject), fact.object)


def test_a_fact_counts_only_with_its_value_right_after_the_prompt() -> None:
    memory = {prompt: value for fact in FACTS for prompt, value in told(fact).items()}

    def oracle(prompts: Sequence[str], tokens: int) -> list[str]:
        return [f" {memory[prompt]}. And more." for prompt in prompts]

    def babbler(prompts: Sequence[str], tokens: int) -> list[str]:
        return [f" well {memory[prompt]}." for prompt in prompts]

    assert all(complete(oracle, FACTS))
    assert not any(complete(babbler, FACTS))


def test_a_sum_counts_only_with_its_steps() -> None:
    completions = {task.prompt: task.completion for task in TASKS}

    def oracle(prompts: Sequence[str], tokens: int) -> list[str]:
        return [completions[prompt] for prompt in prompts]

    def guesser(prompts: Sequence[str], tokens: int) -> list[str]:
        return [completions[prompt].split("write")[0] + completions[prompt].split(". ")[-1] for prompt in prompts]

    assert all(solve(oracle, TASKS))
    assert not any(solve(guesser, TASKS))
