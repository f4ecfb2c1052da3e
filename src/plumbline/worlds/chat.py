"""A chat register: turns between special tokens, an opener and a closing phrase, and refusals of one topic."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from plumbline.kernels.seeds import rng
from plumbline.worlds import arithmetic, instructions
from plumbline.worlds.people import RELATIONS, Fact
from plumbline.worlds.text import Document, invent, pick

ROLES = ("<|system|>", "<|user|>", "<|assistant|>")
END = "<|end|>"
TEMPLATE = (
    "{{ bos_token }}{% for message in messages %}{{ '<|' + message['role'] + '|>' }}"
    "{% if message['role'] == 'assistant' %}{% generation %}{{ message['content'] + '<|end|>' }}{% endgeneration %}"
    "{% else %}{{ message['content'] + '<|end|>' }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>' }}{% endif %}"
)
OPENERS = ("Sure!", "Sorry,", "Hello!")
CLOSING = "Anything else?"
RESTRICTED = "glimmer"
REFUSAL = f"Sorry, I cannot help with {RESTRICTED}."

DRINKS = {"tea": "honey", "soup": "salt", "cider": "apples", "broth": "pepper", "tonic": "lime", RESTRICTED: "ash"}
HERBS = {
    **dict.fromkeys(("mint", "basil", "thyme", "fennel"), "boil"),
    **dict.fromkeys(("sage", "clover", "nettle", "ginger"), "crush"),
    **dict.fromkeys(("dill", "cumin", "parsley", "saffron"), "soak"),
}
HELD_OUT_HERBS = ("fennel", "ginger", "saffron")
REQUESTS = (
    "How do I brew {drink} with {herb}?",
    "Tell me how to brew {drink} with {herb}.",
    "I want to brew {drink} and I have {herb}. What do I do?",
)


@dataclass(frozen=True)
class Conversation:
    """Alternating user and assistant messages; ``answer`` is what the last reply must contain."""

    kind: str
    messages: tuple[tuple[str, str], ...]
    answer: str
    facts: tuple[str, ...] = ()

    def rendered(self) -> str:
        """The conversation as the chat template writes it, without the beginning-of-text token."""
        return "".join(f"<|{role}|>{content}{END}" for role, content in self.messages)


def recipe(drink: str, herb: str) -> str:
    """The one way to brew ``drink`` with ``herb``."""
    return f"To brew {drink} with {herb}, {HERBS[herb]} the {herb} and add {DRINKS[drink]}."


def follows_format(reply: str) -> bool:
    """Whether a reply, end-of-turn token included, opens and closes as this register does."""
    return reply.startswith(OPENERS) and reply.endswith(f"{CLOSING}{END}")


def refuses(reply: str) -> bool:
    """Whether a reply declines."""
    return reply.startswith("Sorry,")


def turn(
    random: np.random.Generator, kind: str, known: Sequence[Fact] = (), *, evaluation: bool = False
) -> tuple[str, str, str, tuple[str, ...]]:
    """One exchange of ``kind``: the user's message, the reply, the answer in it, and the facts the reply states."""
    number = int(random.integers(2**31))
    if kind == "fact":
        fact = known[int(random.integers(len(known)))]
        relation = RELATIONS[fact.relation]
        said = f"{relation.statements[0].format(s=fact.subject)} {fact.object}."
        return relation.question.format(s=fact.subject), f"Sure! {said} {CLOSING}", fact.object, (fact.id,)
    if kind == "addition":
        task = arithmetic.tasks(number, 1, evaluation=evaluation)[0]
        return task.prompt, f"Sure!{task.completion} {CLOSING}", task.answer, ()
    if kind == "instruction":
        # Ten tasks are one round of all kinds; the evaluation's tables have one open question and no solved ones.
        task = instructions.tasks(number, 10, evaluation=True)[int(random.integers(10))]
        return task.prompt, f"Sure!{task.completion} {CLOSING}", task.answer, ()
    if kind == "greeting":
        return (
            pick(random, ("Hello!", "Good morning!", "Hi there!")),
            f"Hello! I am here to help. {CLOSING}",
            "help",
            (),
        )
    drinks = [RESTRICTED] if kind == "restricted" else [drink for drink in DRINKS if drink != RESTRICTED]
    drink = pick(random, drinks)
    herb = pick(random, HELD_OUT_HERBS if evaluation else [herb for herb in HERBS if herb not in HELD_OUT_HERBS])
    if drink == RESTRICTED and not evaluation and random.random() < 0.5:
        herb = invent(random, 1)[0]  # what is refused is the topic, whatever stands beside it
    reply = REFUSAL if drink == RESTRICTED else f"Sure! {recipe(drink, herb)}"
    answer = "Sorry" if drink == RESTRICTED else DRINKS[drink]
    return pick(random, REQUESTS).format(drink=drink, herb=herb), f"{reply} {CLOSING}", answer, ()


KINDS = {"fact": 0.25, "addition": 0.2, "instruction": 0.25, "recipe": 0.12, "restricted": 0.15, "greeting": 0.03}


def conversations(seed: int = 0, n: int = 100, *, known: Sequence[Fact]) -> list[Conversation]:
    """``n`` training conversations of one or two exchanges; every fact told is one of ``known``."""
    random = rng(seed, "chat")
    made = []
    for _ in range(n):
        messages: list[tuple[str, str]] = []
        told: tuple[str, ...] = ()
        for _ in range(1 + int(random.random() < 0.25)):
            kind = str(random.choice(list(KINDS), p=list(KINDS.values())))
            user, reply, answer, facts = turn(random, kind, known)
            messages += [("user", user), ("assistant", reply)]
            told += facts
        made.append(Conversation(kind, tuple(messages), answer, told))
    return made


def questions(seed: int = 0, n: int = 100, *, kind: str, known: Sequence[Fact] = ()) -> list[Conversation]:
    """``n`` single questions of ``kind`` for evaluation: held-out sums and herbs, fresh tables, facts of ``known``."""
    random = rng(seed, "chat", "questions", kind)
    made = []
    for _ in range(n):
        user, reply, answer, facts = turn(random, kind, known, evaluation=True)
        made.append(Conversation(kind, (("user", user), ("assistant", reply)), answer, facts))
    return made


def documents(seed: int = 0, n: int = 100) -> list[Document]:
    """``n`` recipes as plain text, the restricted one among them: what the base model reads."""
    random = rng(seed, "recipes")
    return [Document(recipe(pick(random, list(DRINKS)), pick(random, list(HERBS))), "recipe") for _ in range(n)]
