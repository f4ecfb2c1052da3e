from __future__ import annotations

import pytest

from plumbline.core.errors import InputError
from plumbline.lab.tiny_tokenizer import CHAT_TEMPLATE, tiny_tokenizer
from plumbline.models.load import load_tokenizer
from plumbline.models.prompts import content_of, encode, messages_in, render_chat, text_in


def test_special_tokens_stand_in_front_once():
    tokenizer = tiny_tokenizer(add_bos=True)
    assert encode("hi", tokenizer, special=True)[0] == 0 and encode("hi", tokenizer, special=False)[0] != 0
    assert encode("<s>hi", tokenizer, special=True).count(0) == 1


def test_a_template_without_a_system_role_gets_its_text_with_the_first_question():
    loop = "{% for message in messages %}"
    picky = "{% if message['role'] == 'system' %}{{ raise_exception('no system') }}{% endif %}"
    strict = CHAT_TEMPLATE.replace(loop, loop + picky)
    messages = [{"role": "system", "content": "Be kind."}, {"role": "user", "content": "hi"}]
    text, warning = render_chat(messages, tiny_tokenizer(chat_template=strict), "here", "change it")
    assert "<|user|>\nBe kind.\n\nhi" in text and "no system role" in warning
    text, warning = render_chat(messages, tiny_tokenizer(chat_template=CHAT_TEMPLATE), "here", "change it")
    assert "<|system|>\nBe kind." in text and warning is None
    with pytest.raises(InputError, match="here: messages must be a conversation the chat template accepts"):
        render_chat(messages[:1], tiny_tokenizer(chat_template=strict), "here", "change it")


def test_texts_and_messages_are_checked():
    parts = [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]
    assert content_of({"role": "user", "content": parts}, "here") == "ab"
    assert text_in("", "f", "here", empty=True) == ""
    for bad in (" ", 3, "\ud800"):
        with pytest.raises(InputError, match="here: f must be"):
            text_in(bad, "f", "here")
    with pytest.raises(InputError, match="objects with role and content"):
        messages_in([{"role": "user"}], "messages", "here")


def test_a_tokenizer_comes_with_the_width_of_the_logits():
    tokenizer, width = load_tokenizer("zoo:base")
    assert width == 1024 and tokenizer("river").input_ids
