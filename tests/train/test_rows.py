from __future__ import annotations

import copy
import gzip
import json
import warnings

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from plumbline.core.errors import InputError
from plumbline.lab.tiny_tokenizer import CHAT_TEMPLATE, tiny_tokenizer
from plumbline.models import load
from plumbline.train.rows import read
from plumbline.train.templates import encode_all, encode_continuations

TALK = [
    {"role": "system", "content": "Be short."},
    {"role": "user", "content": "One?"},
    {"role": "assistant", "content": "Uno."},
    {"role": "user", "content": "Two?"},
    {"role": "assistant", "content": "Dos."},
]


@pytest.fixture(scope="module")
def chat():
    return load("zoo:chat").tokenizer


@pytest.fixture(scope="module")
def bare(chat):
    """The same template without its marks."""
    tokenizer = copy.deepcopy(chat)
    tokenizer.chat_template = chat.chat_template.replace("{% generation %}", "").replace("{% endgeneration %}", "")
    return tokenizer


@pytest.fixture(scope="module")
def tiny():
    return tiny_tokenizer(add_bos=True, chat_template=CHAT_TEMPLATE)


def said(row, tokenizer):
    """The text of what is trained on."""
    return tokenizer.decode([i for i in row["labels"] if i != -100], clean_up_tokenization_spaces=False)


def aligned(row):
    return all(label in (-100, i) for i, label in zip(row["input_ids"], row["labels"], strict=True))


# ---- raw text


def test_a_completion_begins_where_its_prompt_ends(tiny):
    (row,) = read([{"prompt": "Add 12", "completion": " and 30"}], tiny)["x"]
    head, tail = (tiny(text, add_special_tokens=False).input_ids for text in ("Add 12", " and 30"))
    assert row["input_ids"] == [0, *head, *tail, 1]  # one BOS, one EOS
    assert row["labels"] == [-100] * (1 + len(head)) + [*tail, 1]


def test_eos_is_asked_for_and_never_doubled(tiny):
    (step,) = read([{"prompt": "a", "completion": "b"}], tiny, eos=False)["x"]
    assert step["input_ids"][-1] != 1
    (ended,) = read([{"prompt": "a", "completion": "b</s>"}], tiny)["x"]
    assert ended["labels"].count(1) == 1


def test_a_bos_that_the_text_brings_is_not_doubled(tiny):
    (row,) = read([{"prompt": "<s>a", "completion": "b"}], tiny)["x"]
    assert row["input_ids"][:2] == [0, tiny("a", add_special_tokens=False).input_ids[0]]


def test_text_is_trained_on_whole(tiny):
    (row,) = read([{"text": "The sun rises."}], tiny)["x"]
    assert row["labels"] == row["input_ids"] and row["input_ids"][0] == 0 and row["input_ids"][-1] == 1


def test_many_at_once_is_as_one_by_one(tiny):
    from plumbline.models.prompts import encode

    texts = ["a", "The quick", "<s>fox", "", "Übung", "a"]
    found = encode_all(texts, tiny, special=True)
    assert found == {text: encode(text, tiny, special=True) for text in texts}


def test_a_continuation_has_no_space_that_its_text_has_not():
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    letters = [*"▁abcxQ:\n", "<unk>", "▁a", "</s>"]
    made = Tokenizer(models.BPE({c: i for i, c in enumerate(letters)}, [("▁", "a")], unk_token="<unk>"))
    made.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first", split=False)
    made.decoder = decoders.Metaspace(prepend_scheme="first", split=False)
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=made, eos_token="</s>", unk_token="<unk>")
    assert encode_continuations(["abc"], tokenizer) == {"abc": [1, 2, 3]}
    (row,) = read([{"prompt": "Q:", "completion": "abc"}], tokenizer)["x"]
    assert tokenizer.decode(row["input_ids"][:-1]) == "Q:abc"
    (row,) = read([{"prompt": "Q:", "completion": " abc"}], tokenizer)["x"]
    assert tokenizer.decode(row["input_ids"][:-1]) == "Q: abc"


# ---- conversations


@pytest.mark.parametrize("marks", [True, False])
def test_the_assistants_turns_are_trained_on(chat, bare, marks):
    tokenizer = chat if marks else bare
    (row,) = read([{"messages": TALK}], tokenizer)["x"]
    assert aligned(row) and said(row, tokenizer) == "Uno.<|end|>Dos.<|end|>"
    (row,) = read([{"messages": TALK}], tokenizer, last_turn=True)["x"]
    assert said(row, tokenizer) == "Dos.<|end|>"
    (row,) = read([{"prompt": TALK[:4], "completion": TALK[4:]}], tokenizer)["x"]
    assert said(row, tokenizer) == "Dos.<|end|>"
    assert row["input_ids"] == bare.apply_chat_template(TALK, return_dict=False)
    (row,) = read([{"prompt": TALK[:2], "completion": TALK[2:]}], tokenizer)["x"]
    assert said(row, tokenizer) == "Uno.<|end|>Dos.<|end|>"


def test_white_space_behind_the_end_of_a_turn_is_not_trained_on(tiny):
    (row,) = read([{"messages": TALK}], tiny)["x"]
    assert said(row, tiny) == "Uno.</s>Dos.</s>"


def test_strings_through_the_template(chat):
    (row,) = read([{"prompt": "One?", "completion": "Uno."}], chat, as_chat=True)["x"]
    (same,) = read([{"messages": TALK[1:3]}], chat)["x"]
    (mixed,) = read([{"prompt": TALK[1:2], "completion": "Uno."}], chat)["x"]
    assert row == same == mixed


FORGETS = (
    "{% for m in messages %}[{{ m['role'] }}]{% if m['role'] == 'assistant' and not loop.last %}(gone)"
    "{% else %}{{ m['content'] }}{% endif %}</s>{% endfor %}{% if add_generation_prompt %}[assistant]{% endif %}"
)


def test_a_template_that_rewrites_the_past_is_refused_but_for_the_last_turn():
    tokenizer = tiny_tokenizer(chat_template=FORGETS)
    rows = [{"messages": TALK[1:3]}, {"messages": TALK}]
    with pytest.raises(InputError, match=r"^row 2: the chat template must be one that only ever appends.*last_turn"):
        read(rows, tokenizer)
    row = read(rows, tokenizer, last_turn=True)["x"][1]
    assert said(row, tokenizer) == "Dos.</s>"


def test_a_template_without_a_system_role_gets_it_with_the_first_question(chat):
    for template in (chat.chat_template, CHAT_TEMPLATE):
        picky = "{% if messages[0]['role'] == 'system' %}{{ raise_exception('no system role') }}{% endif %}" + template
        tokenizer = tiny_tokenizer(chat_template=picky)
        rows = read([{"messages": TALK}], tokenizer)
        assert "Be short.\n\nOne?" in tokenizer.decode(rows["x"][0]["input_ids"])
        assert any("no system role" in note for note in rows.notes)
        with pytest.raises(InputError, match=r"row 2: messages must be a conversation the chat template accepts"):
            read([{"messages": TALK}, {"messages": [TALK[0], TALK[2]]}], tokenizer)


def test_a_turn_that_nothing_ends_is_told():
    tokenizer = tiny_tokenizer(chat_template="{% for m in messages %}{{ m['role'] + m['content'] }}{% endfor %}")
    assert any("may not stop" in note for note in read([{"messages": TALK[1:3]}], tokenizer).notes)


def test_tools_reach_the_template():
    template = "{% if tools %}{{ tools | length }} tools{% endif %}" + CHAT_TEMPLATE
    tokenizer = tiny_tokenizer(chat_template=template)
    call = {"role": "assistant", "content": None, "tool_calls": [{"function": {"name": "f", "arguments": {}}}]}
    talk = [TALK[1], call, {"role": "tool", "content": "1"}, TALK[2]]
    for tools in ([{"type": "function"}], '[{"type": "function"}]'):
        (row,) = read([{"messages": talk, "tools": tools}], tokenizer)["x"]
        assert tokenizer.decode(row["input_ids"]).startswith("1 tools") and said(row, tokenizer) == "</s>Uno.</s>"


WORDS = st.text(st.characters(codec="utf-8", exclude_categories=["Cs", "Cc"], exclude_characters="<|>"), max_size=24)
QUICK = settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))


@QUICK
@given(WORDS, WORDS)
def test_what_is_trained_on_of_raw_text_is_the_completion(tiny, prompt, completion):
    (row,) = read([{"prompt": prompt, "completion": completion}], tiny)["x"]
    bos = 0 if prompt else 1  # without a prompt everything has a label, the BOS too
    assert aligned(row) and said(row, tiny) == "<s>" * bos + completion + "</s>"
    assert tiny.decode(row["input_ids"]) == f"<s>{prompt}{completion}</s>"


@QUICK
@given(st.lists(st.tuples(WORDS.map(lambda w: f"{w}?"), WORDS.map(lambda w: f"{w}.")), min_size=1, max_size=4))
def test_what_is_trained_on_of_a_conversation_is_what_the_assistant_said(tiny, chat, bare, turns):
    talk = [{"role": role, "content": t} for pair in turns for role, t in zip(("user", "assistant"), pair)]
    for tokenizer, end in ((tiny, "</s>"), (chat, "<|end|>"), (bare, "<|end|>")):
        (row,) = read([{"messages": talk}], tokenizer)["x"]
        assert aligned(row) and said(row, tokenizer) == "".join(answer + end for _, answer in turns)
    ids = [read([{"messages": talk}], tokenizer)["x"][0] for tokenizer in (chat, bare)]
    assert ids[0] == ids[1]  # marks and prefixes agree


@QUICK
@given(WORDS, WORDS, WORDS, st.integers(2, 30), st.sampled_from(["left", "right"]))
def test_cut_rows_stay_aligned(tiny, prompt, chosen, rejected, limit, cut):
    full = read([{"prompt": prompt, "chosen": chosen, "rejected": rejected}], tiny)
    try:
        with warnings.catch_warnings(action="ignore"):
            found = read([{"prompt": prompt, "chosen": chosen, "rejected": rejected}], tiny, max_length=limit, cut=cut)
    except InputError as error:
        assert "cut away" in str(error) and cut == "right"
        return
    for stream, (row,) in found.items():
        (whole,) = full[stream]
        n = min(limit, len(whole["input_ids"]))
        assert aligned(row) and len(row["input_ids"]) == n and row["input_ids"][0] == 0
        side = slice(0, n) if cut == "right" else slice(len(whole["labels"]) - n + 1, None)
        assert row["labels"][0 if cut == "right" else 1 :] == whole["labels"][side]


# ---- preferences, verdicts, prompts


def test_preferences_share_their_prompt(chat):
    raw = {"prompt": "One?", "chosen": " Uno", "rejected": " Eins", "margin": 0.5, "source": "web"}
    rows = read([raw], chat)
    assert rows.form == "preference" and list(rows) == ["chosen", "rejected"]
    (chosen,), (rejected,) = rows["chosen"], rows["rejected"]
    n = chosen["labels"].count(-100)
    assert chosen["input_ids"][:n] == rejected["input_ids"][:n] and chosen["margin"] == 0.5
    assert said(chosen, chat) == " Uno<|eos|>" and said(rejected, chat) == " Eins<|eos|>"
    assert "source" in rows.notes[0]


def test_the_prompt_of_two_conversations_is_what_they_share(chat):
    other = [*TALK[:4], {"role": "assistant", "content": "Zwei."}]
    explicit = read([{"prompt": TALK[:4], "chosen": TALK[4:], "rejected": other[4:]}], chat)
    implicit = read([{"chosen": TALK, "rejected": other}], chat)
    binarized = read([{"prompt": "Two?", "chosen": TALK, "rejected": other, "messages": TALK}], chat)
    assert explicit == implicit == binarized
    assert said(implicit["chosen"][0], chat) == "Dos.<|end|>" and said(implicit["rejected"][0], chat) == "Zwei.<|end|>"
    same = read([{"chosen": TALK, "rejected": TALK}], chat)
    assert said(same["chosen"][0], chat) == "Dos.<|end|>"


def test_the_prompt_of_two_texts_ends_with_a_whole_word(tiny):
    rows = read([{"chosen": "Human: One? Assistant: Unity", "rejected": "Human: One? Assistant: Unit"}], tiny)
    assert said(rows["chosen"][0], tiny) == " Unity</s>" and said(rows["rejected"][0], tiny) == " Unit</s>"


def test_implicit_prompts_as_in_trl(chat):
    trl = pytest.importorskip("trl")
    other = [*TALK[:2], {"role": "assistant", "content": "Ein."}]
    theirs = trl.extract_prompt({"chosen": TALK[:3], "rejected": other})
    assert read([theirs], chat) == read([{"chosen": TALK[:3], "rejected": other}], chat)


def test_a_pair_that_loses_an_answer_is_left_out(tiny):
    rows = [{"prompt": "a b c d", "chosen": "e", "rejected": "f"}, {"prompt": "a", "chosen": "e", "rejected": "f"}]
    with pytest.warns(UserWarning, match="1 of 2 rows were left out: nothing to train on is left within 5 tokens"):
        found = read(rows, tiny, max_length=5)
    assert found.dropped == 1 and len(found["chosen"]) == len(found["rejected"]) == 1


def test_verdicts_and_mismatched_completions(tiny):
    rows = [{"prompt": f"q{i}", "completion": f"a{i}", "label": i != 1} for i in range(3)]
    found = read(rows, tiny, mismatched=True)
    assert [row["desirable"] for row in found["x"]] == [True, False, True]
    texts = [tiny.decode(row["input_ids"]) for row in found["mismatched"]]
    assert texts == ["<s>q1a0</s>", "<s>q2a1</s>", "<s>q0a2</s>"]
    assert said(found["mismatched"][1], tiny) == "a1</s>"
    assert "mismatched" not in read(rows, tiny)
    talks = [{**row, "prompt": TALK[1:2], "completion": [{"role": "assistant", "content": f"a{i}"}]}
             for i, row in enumerate(rows)]  # fmt: skip
    assert said(read(talks, tiny, mismatched=True)["mismatched"][0], tiny) == "a0</s>"
    plain = [{k: v for k, v in row.items() if k != "label"} for row in rows]
    assert read(plain, tiny, mismatched=True)["mismatched"] == found["mismatched"]


def test_prompts_bring_their_row(chat, tiny):
    row = {"prompt": "Add 12 and 30.", "answer": "42", "level": 3}
    found = read([row], tiny)
    assert found.form == "prompts" and found["prompts"] == [
        {"input_ids": [0, *tiny("Add 12 and 30.", add_special_tokens=False).input_ids], "row": row}
    ]
    asked = chat.apply_chat_template(TALK[:4], add_generation_prompt=True, return_dict=False)
    for messages in (TALK[:4], TALK):
        (found,) = read([{"messages": messages, "answer": "Dos"}], chat, form="prompts")["prompts"]
        assert found["input_ids"] == asked
    assert read([{"messages": TALK[:4], "answer": "Dos"}], chat).form == "prompts"
    assert read([{"messages": TALK, "answer": "Dos"}], chat).form == "messages"
    assert read([{"question": "One?", "answer": "1"}], tiny).form == "prompts"
    with pytest.warns(UserWarning, match="1 of 2"):
        long = read([row, {"prompt": "a", "answer": "1"}], tiny, max_length=5)
    assert len(long["prompts"]) == 1
    (left,) = read([row], tiny, max_length=5, cut="left")["prompts"]
    assert len(left["input_ids"]) == 5 and left["input_ids"][0] == 0


# ---- tokenized


def test_tokenized_rows_keep_their_columns_aligned(tiny):
    row = {"input_ids": [5, 6, 7, 8, 9, 10], "labels": [-100, -100, 7, 8, 9, 10], "advantages": 0.5}
    row |= {"sampler_logps": [0, 0, -1, -2, -3, -4], "vector": [1.0, 2.0]}
    other = {**row, "input_ids": [5, 6], "labels": [-100, 6], "sampler_logps": [0, -9]}
    found = read([row, other], tiny, max_length=4)["x"]
    assert found[0]["input_ids"] == [5, 6, 7, 8] and found[0]["labels"] == [-100, -100, 7, 8]
    assert found[0]["sampler_logps"] == [0, 0, -1, -2] and found[0]["vector"] == [1.0, 2.0]
    assert found[1] == other
    left = read([row, other], tiny, max_length=4, cut="left")["x"][0]
    assert left["input_ids"] == [7, 8, 9, 10] and left["sampler_logps"] == [-1, -2, -3, -4]


def test_tokenized_rows_lose_their_padding_and_may_lack_labels(tiny):
    padded = {"input_ids": [2, 2, 5, 6, 7], "attention_mask": [0, 0, 1, 1, 1], "completion_mask": [0, 0, 0, 1, 1]}
    assert read([padded], tiny)["x"] == [{"input_ids": [5, 6, 7], "labels": [-100, 6, 7]}]
    assert read([{"input_ids": [5, 6]}], tiny)["x"] == [{"input_ids": [5, 6], "labels": [5, 6]}]


# ---- sources


def test_every_source_gives_the_same_rows(tiny, tmp_path):
    import pyarrow as pa
    import pyarrow.parquet as pq

    rows = [{"prompt": f"q{i}", "completion": f"a{i}", "weight": i / 2} for i in range(5)]
    plain, packed, parquet = tmp_path / "a.jsonl", tmp_path / "a.jsonl.gz", tmp_path / "a.parquet"
    text = "\n".join(json.dumps(row) for row in rows)
    plain.write_text(text)
    with gzip.open(packed, "wt") as file:
        file.write(text)
    pq.write_table(pa.Table.from_pylist(rows), parquet)
    sources = [rows, iter(rows), plain, str(packed), parquet]
    try:
        import datasets
    except ImportError:
        pass
    else:
        sources += [datasets.Dataset.from_list(rows), datasets.Dataset.from_list(rows).with_format("numpy")]
    wanted = read(rows, tiny)
    assert all(read(source, tiny) == wanted for source in sources[1:])
    assert wanted["x"][3]["weight"] == 1.5


def test_arrow_fills_messages_with_nothing_and_that_does_not_matter(chat, tmp_path):
    import pyarrow as pa
    import pyarrow.parquet as pq

    named = [{**TALK[1], "name": "Ada"}, TALK[2]]
    rows = [{"messages": TALK[1:3]}, {"messages": named}]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "m.parquet")
    assert read(tmp_path / "m.parquet", chat) == read(rows, chat)


# ---- refusals


@pytest.mark.parametrize(
    ("rows", "says"),
    [
        ([], "rows: the data must be at least one row"),
        ([{"foo": 1}], "row 1: columns must be prompt and completion.*got only 'foo'"),
        ([{}], "row 1: columns .* got an empty object"),
        (["text"], "row 1: the row must be an object"),
        ([{"prompt": "a", "completion": "b"}, {"prompt": "a"}], "row 2: completion must be in every row"),
        ([{"prompt": "a", "completion": 3}], "row 1: completion must be text or a list of messages, got 3"),
        ([{"prompt": "a", "completion": "\ud800"}], "row 1: completion must be valid"),
        ([{"messages": [{"role": "user"}]}], "row 1: messages must be objects with role and content"),
        ([{"messages": TALK[1:2]}], "row 1: messages must be with a turn of the assistant"),
        ([{"chosen": "a", "rejected": TALK}], "row 1: chosen and rejected must be both text"),
        ([{"chosen": TALK[:2], "rejected": TALK[3:]}], "row 1: .* conversations that begin alike"),
        ([{"prompt": "a", "completion": "b", "label": "yes"}], "row 1: label must be true"),
        ([{"input_ids": [1, "a"]}], "row 1: input_ids must be a list of token ids"),
        ([{"input_ids": [1, 9999]}], r"row 1: input_ids must be in \[0, 320\), got 9999"),
        ([{"input_ids": [1, 2], "labels": [1]}], "row 1: labels must be a list with one entry per id, got 1 for 2 ids"),
        ([{"messages": TALK, "tools": "["}], "row 1: tools must be a list"),
        ({"train": []}, "read: source must be a path, rows, or one split"),
        (3, "read: source must be a path"),
    ],
)  # fmt: skip
def test_one_line_says_what_is_wrong_and_where(tiny, rows, says):
    with pytest.raises(InputError, match=says) as found:
        read(rows, tiny)
    assert "\n" not in str(found.value)


def test_files_are_named_with_their_line(tiny, tmp_path):
    import pyarrow as pa
    import pyarrow.parquet as pq

    file = tmp_path / "a.jsonl"
    file.write_text('{"prompt": "a", "completion": "b"}\n\n{"prompt": "a"}\n')
    with pytest.raises(InputError, match=r"a\.jsonl:3: completion"):
        read(file, tiny)
    pq.write_table(pa.Table.from_pylist([{"text": "a"}, {"text": None}]), tmp_path / "a.parquet")
    with pytest.raises(InputError, match=r"a\.parquet, row 2: text must be in every row"):
        read(tmp_path / "a.parquet", tiny)
    (tmp_path / "b.parquet").write_text("no")
    with pytest.raises(InputError, match=r"b\.parquet: the file must be a readable Parquet file"):
        read(tmp_path / "b.parquet", tiny)
    with pytest.raises(InputError, match="none.jsonl: the file must be a readable"):
        read(tmp_path / "none.jsonl", tiny)


def test_arguments_are_refused_by_name(tiny):
    rows = [{"prompt": "a", "completion": "b"}]
    for wrong, says in (
        ({"cut": "middle"}, "read: cut"), ({"max_length": 1}, "read: max_length"), ({"form": "sft"}, "read: form"),
        ({"mismatched": True}, "read: mismatched"),
    ):  # fmt: skip
        with pytest.raises(InputError, match=says):
            read(rows, tiny, **wrong)
    with pytest.raises(InputError, match="tokenizer must be one with a chat template"):
        read([{"messages": TALK}], tiny_tokenizer())


def test_nothing_left_to_train_on_is_refused(tiny):
    with pytest.raises(InputError, match=r"rows: the data must be .* none of 1 \(1 cut away.*raise max_length"):
        read([{"prompt": "a b c d e f g h", "completion": "i"}], tiny, max_length=4)
    with pytest.raises(InputError, match="give completions that are not empty"):
        read([{"prompt": "a", "completion": ""}], tiny, eos=False)


def test_the_first_token_cannot_be_trained_on(tiny):
    with pytest.warns(UserWarning, match="1 of 2 rows were left out: nothing to train on"):
        found = read([{"input_ids": [5, 6], "labels": [5, -100]}, {"input_ids": [5, 6]}], tiny)
    assert found["x"] == [{"input_ids": [5, 6], "labels": [5, 6]}] and found.dropped == 1
