"""Tokens to text while they come, conversations to tokens, and what a checkpoint's folder says of both."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from proxy_harness import END, START, bytes_tokenizer, pieces_tokenizer, write_language

from hush.models.checkpoint import Checkpoint
from hush.mpc.errors import ModelError, UserError
from hush.parties.proxy.language import Language, Languages, parse_sources
from hush.parties.proxy.reading import Reader
from hush.parties.proxy.template import render

BYTES = bytes_tokenizer()


def decode(ids: list[int]) -> str:
    return str(BYTES.decode(ids, skip_special_tokens=True))


def ids_of(text: str) -> list[int]:
    return list(BYTES.encode(text).ids)


# ---------------------------------------------------------------------- reading
@given(st.text(min_size=1, max_size=30))
def test_pieces_are_whole_characters_and_give_the_text(text: str) -> None:
    reader = Reader(decode)  # type: ignore[arg-type]
    pieces = [reader.feed(token) for token in ids_of(text)]
    assert "".join([*pieces, reader.finish()]) == text
    if "\ufffd" not in text:
        assert not any("\ufffd" in piece for piece in pieces)
        assert "".join(pieces) == text


def test_bytes_that_never_become_a_character_are_given_at_the_end() -> None:
    reader = Reader(decode)  # type: ignore[arg-type]
    assert [reader.feed(token) for token in ids_of("a😀")[:3]] == ["a", "", ""]
    assert reader.finish() == "\ufffd"


@given(st.text("ab", max_size=12), st.lists(st.text("ab", min_size=1, max_size=3), max_size=3))
def test_nothing_of_a_stop_string_is_ever_given(text: str, stops: list[str]) -> None:
    reader = Reader(decode, stops)  # type: ignore[arg-type]
    given_text = ""
    for token in ids_of(text) if text else []:
        given_text += reader.feed(token)
        if reader.stopped:
            break
    given_text += reader.finish()
    firsts = [text.find(stop) for stop in stops if stop in text]
    assert reader.stopped == bool(firsts)
    if not firsts:
        assert given_text == text
    else:
        # the first place is where a stop string is complete first: no text from there on is given
        assert text.startswith(given_text)
        assert len(given_text) <= max(firsts)
        assert not any(stop in given_text for stop in stops)


def test_text_that_begins_like_a_stop_string_waits_for_what_follows() -> None:
    reader = Reader(decode, ["###"])  # type: ignore[arg-type]
    assert [reader.feed(token) for token in ids_of("x##y")] == ["x", "", "", "##y"]


def test_sentencepiece_spaces_are_kept_after_a_prompt(tmp_path: Path) -> None:
    language = Language(Checkpoint(write_language(tmp_path, pieces_tokenizer())))
    ids = [2, 3, 4, 6]  # ▁world ▁the re .
    reader = Reader(language.following([1]))
    assert [reader.feed(token) for token in ids] == [" world", " the", "re", "."]
    assert language.decode(ids) == "world there."


def test_byte_fallback_that_takes_text_back_is_waited_for(tmp_path: Path) -> None:
    """A run of byte tokens is a character or nothing: a second one begins by undoing the first."""
    tokenizer = pieces_tokenizer()
    language = Language(Checkpoint(write_language(tmp_path, tokenizer)))
    ids = [tokenizer.token_to_id(f"<0x{b:02X}>") for b in "€€".encode()]
    reader = Reader(language.following([1]))
    pieces = [reader.feed(token) for token in ids]
    assert pieces == ["", "", "€", "", "", "€"]


# ---------------------------------------------------------------------- a checkpoint's language
def test_stop_ids_come_from_every_file(tmp_path: Path) -> None:
    folder = write_language(tmp_path, BYTES)
    end = BYTES.token_to_id(END)
    assert Language(Checkpoint(folder)).stop_ids == (end,)
    (folder / "generation_config.json").write_text(json.dumps({"eos_token_id": [7, 9]}))
    (folder / "config.json").write_text(json.dumps({"eos_token_id": 8}))
    assert Language(Checkpoint(folder)).stop_ids == (7, 8, 9, end)


def test_conversations_by_template_and_without(tmp_path: Path) -> None:
    messages = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": " Hi "}]
    with_template = Language(Checkpoint(write_language(tmp_path / "a", BYTES)))
    expected = ids_of(f"{START}<system>Be brief.\n<user>Hi\n<assistant>")
    assert with_template.conversation(messages) == expected
    assert with_template.turns == ()
    without = Language(Checkpoint(write_language(tmp_path / "b", BYTES, template=None)))
    assert without.conversation(messages) == ids_of("system: Be brief.\nuser:  Hi \nassistant:")
    assert without.turns == ("\nsystem:", "\nuser:", "\nassistant:")


def test_a_template_file_counts_more_and_named_ones_are_found(tmp_path: Path) -> None:
    folder = write_language(tmp_path, BYTES)
    named = [{"name": "tool_use", "template": "no"}, {"name": "default", "template": "yes"}]
    (folder / "tokenizer_config.json").write_text(json.dumps({"chat_template": named}))
    assert Language(Checkpoint(folder)).template == "yes"
    (folder / "chat_template.jinja").write_text("file")
    assert Language(Checkpoint(folder)).template == "file"


REAL = """{% for message in messages %}{% if loop.first and messages[0]['role'] != 'system' %}{{ '<|im_start|>system
You are helpful.<|im_end|>
' }}{% endif %}{{'<|im_start|>' + message['role'] + '
'}}{% generation %}{{ message['content'] + '<|im_end|>' }}{% endgeneration %}{{ '
' }}{% endfor %}{% set ns = namespace(n=0) %}{% for m in messages %}{% set ns.n = ns.n + 1 %}{% endfor %}
{% if add_generation_prompt %}
    {{ '<|im_start|>assistant
' }}
{% endif %}{{ {'n': ns.n, 'é': '<'} | tojson }}
{% for i in range(9) %}{% if i == 2 %}{% break %}{% endif %}{{ i }}{% endfor %}
"""


def test_templates_render_as_transformers_renders_them() -> None:
    from transformers.utils.chat_template_utils import render_jinja_template

    messages = [{"role": "user", "content": "Hi <b>"}, {"role": "assistant", "content": "Yes"}]
    rendered, _ = render_jinja_template([messages], chat_template=REAL, add_generation_prompt=True)
    assert render(REAL, messages, {}) == rendered[0]


@pytest.mark.parametrize(
    "template",
    [
        "{{ ''.__class__.__mro__[1].__subclasses__() }}",
        "{{ messages.append(1) }}",
        "{{ raise_exception('roles must alternate') }}",
        "{% set ns = namespace() %}{% set ns.__init__ = 1 %}",
        "{{ range(99999999) | list }}",
        "{{ messages[0]['content'] / 2 }}",
        "{% for x in messages %}{{ undefined.thing }}{% endfor %}",
    ],
)
def test_templates_stay_in_their_sandbox(template: str) -> None:
    with pytest.raises(UserError, match="chat template"):
        render(template, [{"role": "user", "content": "secret words"}], {})


def test_a_template_that_is_none_is_the_model_s_fault() -> None:
    with pytest.raises(ModelError, match="no valid template"):
        render("{% for %}", [], {})


# ---------------------------------------------------------------------- which language
def test_languages_are_found_by_option_by_package_and_by_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_language(tmp_path / "gpt-x", BYTES)
    monkeypatch.chdir(tmp_path)
    languages = Languages(parse_sources(["other=" + str(tmp_path / "gpt-x")]))
    assert languages.of("gpt-x").encode("a") == languages.of("other").encode("a")
    assert languages.of("minilm").encode("a")[0] == 101
    for model in ("absent", "../gpt-x", "gpt-x/../gpt-x"):
        with pytest.raises(ModelError, match="--tokenizer"):
            languages.of(model)


def test_folders_without_a_tokenizer_and_damaged_ones(tmp_path: Path) -> None:
    languages = Languages({"a": str(tmp_path)})
    with pytest.raises(ModelError, match=r"tokenizer\.json"):
        languages.of("a")
    (tmp_path / "tokenizer.json").write_text("{}")
    with pytest.raises(ModelError, match="cannot be read"):
        languages.of("a")


@pytest.mark.parametrize("given_option", ["talker", "=folder", "talker="])
def test_options_that_name_no_tokenizer(given_option: str) -> None:
    with pytest.raises(UserError, match="MODEL=FOLDER"):
        parse_sources([given_option])
