"""Nudging across vocabularies: a base and a small aligned model of another family write one answer in turns."""

from __future__ import annotations

from collections.abc import Sequence

from plumbline.core.declare import Count, Evidence, Paper, Probability, claim, function
from plumbline.core.errors import refuse
from plumbline.decode.contrast.nudged import Duet, NudgedText, Voice
from plumbline.models.lm import LM


@function(
    paper=Paper("Nudging: Inference-time Alignment via Model Collaboration", "Fei et al.", 2024, arxiv="2410.09300"),
    says="Let a small aligned model of any vocabulary write the words of an answer where a base model is unsure.",
    differs=(
        "Greedy for both, as in the paper's experiments; the official code can sample.",
        "Length is counted in the base's tokens; the official code counts GPT-3.5's.",
        "The base stops at the first token it is unsure of instead of writing a chunk that is then cut: the same text.",
        "The longest repeated suffix is found exactly; the official code's bisection can miss it.",
    ),
)
def nudging_text(
    base: LM,
    nudger: LM,
    prompts: Sequence[str],
    nudger_prompts: Sequence[str] | None = None,
    *,
    threshold: Probability = 0.3,
    chunk: Count = 16,
    max_new_tokens: Count = 256,
    rounds: Count = 150,
) -> list[NudgedText]:
    r"""Answers written in rounds over text alone.

    A round: the nudger proposes words :math:`w_1, w_2, \ldots` after what is written; the first is taken, and further
    ones until the base, asked what follows, begins :math:`w_{i+1}` too or has a token with

    .. math:: \max_v p_{base}(v \mid prompt, text, w_1 \ldots w_i) \ge threshold

    Then the base writes until its likeliest token has less. Only the nudger ends an answer: the base's end token gives
    it the turn. An answer also ends when the nudger proposes the same words four times running; a base that repeats
    more than five words of the answer loses its turn, and a repeated end is cut.

    Args:
        base: the large model. nudger: the small aligned one; their tokenizers may differ.
        prompts: [B] texts that the base continues.
        nudger_prompts: [B] texts that the nudger continues; None: ``prompts`` as a user's turn in its chat template,
            or as they are where it has none.
        threshold: 0 leaves the base all but the first word of a round; towards 1 the nudger speaks wherever the base
            does not begin the same word.
        chunk: tokens that the nudger proposes at once. max_new_tokens: tokens after which no round begins.
        rounds: at most so many.

    Returns:
        [B] :class:`~plumbline.decode.contrast.nudged.NudgedText` with the text, the nudger's spans and why it stopped.

    Raises:
        InputError: lists of different lengths, an empty prompt.
    """
    templated = nudger_prompts is None and bool(getattr(nudger.tokenizer, "chat_template", None))
    if templated:
        turns = [[{"role": "user", "content": p}] for p in prompts]
        render = nudger.tokenizer.apply_chat_template
        nudger_prompts = [render(t, tokenize=False, add_generation_prompt=True) for t in turns]
    elif nudger_prompts is None:
        nudger_prompts = prompts
    if len(nudger_prompts) != len(prompts):
        raise refuse("nudging_text", "nudger_prompts", f"one for each of the {len(prompts)} prompts",
                     len(nudger_prompts), "pass as many, or None")  # fmt: skip
    voices = Voice(base, special=True), Voice(nudger, special=not templated)
    pairs = zip(prompts, nudger_prompts, strict=True)
    return [Duet(*voices, pair, threshold, chunk, max_new_tokens).write(rounds) for pair in pairs]


@claim(
    nudging_text,
    "A newer base nudged by an old chat model answers with the base's new facts in the chat model's register.",
    cost="cpu:10s",
)
def knowledge_of_one_style_of_the_other() -> Evidence:
    from plumbline.models import load
    from plumbline.worlds import chat, corpus, people

    newer, aligned = load("zoo:next"), load("zoo:chat")
    pairs = zip(corpus.FACTS, corpus.REVISED, strict=True)
    revised = [new for old, new in pairs if old != new and old.exposures >= 20][:10]
    asked = [people.RELATIONS[fact.relation].question.format(s=fact.subject) for fact in revised]

    def figures(base: LM, nudger: LM, threshold: float, register: bool = True) -> dict[str, float]:
        plain = [q + "\n" for q in asked]
        said = nudging_text(
            base, nudger, plain, None if register else plain, threshold=threshold, chunk=4, max_new_tokens=24
        )
        known = [fact.object in s.text for fact, s in zip(revised, said, strict=True)]
        styled = [s.text.startswith(chat.OPENERS) and s.text.endswith(chat.CLOSING) for s in said]
        share = sum(s.share for s in said) / len(said)
        return {"new_facts": sum(known) / len(said), "register": sum(styled) / len(said), "nudger_share": share}

    # a small base is sure of too much: the paper's 0.3 keeps the register and loses facts
    measured = {f"nudged_at_{g}": figures(newer, aligned, g) for g in (0.3, 0.9)}
    measured |= {"chat_alone": figures(aligned, aligned, 1.0), "base_alone": figures(newer, newer, 1.0, register=False)}
    best, chat_alone, base_alone = (measured[k] for k in ("nudged_at_0.9", "chat_alone", "base_alone"))
    return Evidence(
        holds=best["new_facts"] >= 0.9 and best["register"] >= 0.9,
        measured=measured,
        control=chat_alone["new_facts"] <= 0.1 and base_alone["register"] <= 0.1,
    )
