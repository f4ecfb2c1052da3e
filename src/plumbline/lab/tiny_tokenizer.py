"""A byte-level BPE tokenizer of a few hundred tokens, trained from a fixed text: the same one every time, no files."""

from __future__ import annotations

from typing import Any

_TEXT = (
    "The quick brown fox jumps over the lazy dog. Where does the river go? It goes to the sea, said the child.",
    "Two and two make four; seven times eight makes fifty-six. Add 12 and 30 to get 42.",
    "User: please write a short letter to my friend. Assistant: of course, here is a short letter to your friend.",
    "def area(width, height):\n    return width * height\n",
    "In the morning the sun rises in the east, and in the evening it sets in the west. The moon was there too.",
    "Übung macht den Meister. Où est la gare ? ¿Dónde está la estación? Это река. 川は海へ行く。",
)

CHAT_TEMPLATE = (
    "{{ bos_token }}{% for message in messages %}<|{{ message['role'] }}|>\n{{ message['content'] }}{{ eos_token }}\n"
    "{% endfor %}{% if add_generation_prompt %}<|assistant|>\n{% endif %}"
)


def tiny_tokenizer(
    vocab_size: int = 320, *, chat_template: str | None = None, add_bos: bool = False, pad: bool = True
) -> Any:
    """A transformers fast tokenizer with ``<s>`` (0), ``</s>`` (1), ``<pad>`` (2), all 256 bytes and learned merges.

    Args:
        vocab_size: at least 259 (3 special tokens and 256 bytes); the fixed text gives about 500 tokens at most.
        chat_template: a Jinja template, for instance ``CHAT_TEMPLATE``; None leaves the tokenizer without one.
        add_bos: put ``<s>`` before every text, as Llama's tokenizer does.
        pad: whether to name ``<pad>`` as the pad token.
    """
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=["<s>", "</s>", "<pad>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(_TEXT, trainer)
    if add_bos:
        tokenizer.post_processor = processors.TemplateProcessing(
            single="<s> $A", pair="<s> $A <s> $B", special_tokens=[("<s>", 0)]
        )
    made = PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>")
    if pad:
        made.pad_token = "<pad>"
    if chat_template is not None:
        made.chat_template = chat_template
    return made
