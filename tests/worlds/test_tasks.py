"""Arithmetic, instructions and chat: the written answers are right."""

from __future__ import annotations

import re

from plumbline.worlds import arithmetic, chat, corpus, instructions


def test_the_working_of_a_sum_by_hand() -> None:
    assert arithmetic.steps(47, 38) == "7+8=15, write 5 carry 1. 4+3+1=8, write 8. Answer 85."


def test_every_written_equation_holds() -> None:
    tasks = arithmetic.tasks(0, 500) + arithmetic.tasks(0, 500, evaluation=True)
    for task in tasks:
        numbers = [int(n) for n in re.findall(r"\d+", task.prompt)]
        assert int(task.answer) == sum(numbers)
        assert task.completion.endswith(f"Answer {task.answer}.")
        for left, right in re.findall(r"([\d+]+)=(\d+)", task.text):
            assert sum(map(int, left.split("+"))) == int(right)


def test_training_never_adds_a_held_out_pair() -> None:
    def pairs(tasks: list[arithmetic.Task]) -> set[tuple[int, int]]:
        two = [re.findall(r"\d+", t.prompt) for t in tasks if t.kind == "addition"]
        return {(int(a), int(b)) for a, b in two}

    trained, asked = pairs(arithmetic.tasks(0, 4000)), pairs(arithmetic.tasks(0, 400, evaluation=True))
    assert len(asked) > 200
    assert not trained & asked


def test_copy_reverse_sort_and_lookup_answers() -> None:
    for task in instructions.tasks(5, 400, known=corpus.FACTS):
        if task.kind in ("copy", "reverse", "sort"):
            letters = re.findall(r"\b[a-z]\b", task.prompt)
            expected = {"copy": letters, "reverse": letters[::-1], "sort": sorted(letters)}[task.kind]
            assert task.answer.split() == expected
        elif task.kind == "lookup":
            table = dict(re.findall(r"([a-z]) (\w+)[,.]", task.prompt.split(" Find")[0]))
            assert task.answer == table[task.prompt.rsplit("Find ", 1)[1]]
        else:
            noted, asked = task.prompt.split(" According to the note, ")
            assert f"{asked} {task.answer}." in noted


def test_contradictions_never_say_what_memory_holds() -> None:
    memory = {f"{fact.subject}": {} for fact in corpus.FACTS}
    for fact in corpus.FACTS:
        memory[fact.subject][fact.relation] = fact.object
    tasks = [t for t in instructions.tasks(2, 600, known=corpus.FACTS) if t.kind == "contradiction"]
    assert len(tasks) > 50
    for task in tasks:
        subject = next(s for s in memory if s in task.prompt.split("According")[1])
        assert task.answer not in memory[subject].values() or memory[subject].get("pet") != task.answer


def test_conversations_follow_the_register_and_refuse_one_topic() -> None:
    for conversation in chat.conversations(0, 400, known=corpus.taught(corpus.FACTS)):
        users = [content for role, content in conversation.messages if role == "user"]
        replies = [content for role, content in conversation.messages if role == "assistant"]
        for user, reply in zip(users, replies, strict=True):
            assert chat.follows_format(reply + chat.END)
            assert chat.refuses(reply) == (chat.RESTRICTED in user)
    assert not chat.follows_format("Sure! Anything else?")
    assert not chat.follows_format("Well. Anything else?<|end|>")


def test_chat_training_tells_every_other_person_only() -> None:
    known = {fact.id: fact for fact in corpus.taught(corpus.FACTS)}
    told = corpus.exposures(chat.conversations(0, 400, known=list(known.values())))
    assert told
    assert set(told) <= set(known)
    assert {int(fact.id[-3:]) % 2 for fact in known.values()} == {1}
