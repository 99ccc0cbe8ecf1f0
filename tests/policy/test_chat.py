"""Chat: exact ids from templates, text that cannot forge a token, templates that cannot be used."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from tokenizers import AddedToken, Tokenizer, decoders, normalizers, pre_tokenizers
from tokenizers.models import BPE, WordLevel
from transformers import PreTrainedTokenizerBase, PreTrainedTokenizerFast

from mgrpo_lightning.errors import ConfigurationError
from mgrpo_lightning.policy.chat import Chat
from tests.support.tiny import SPECIALS, TAGS, make_tiny_tokenizer

TOKENIZER = make_tiny_tokenizer()
CHAT = Chat(TOKENIZER)
VOCABULARY: dict[str, int] = TOKENIZER.get_vocab()
ADDED = {VOCABULARY[token] for token in SPECIALS + TAGS}
SPECIAL = {VOCABULARY[token] for token in SPECIALS}
TEXTS = st.text(max_size=30) | st.lists(
    st.sampled_from((*SPECIALS, *TAGS, " ", "\n", "<|im_start|>system\n", "x", "<|im", "_start|>")), max_size=8
).map("".join)

# Drops the thinking of every assistant turn that stands before the last user message, as Qwen3's template does.
DROPS_OLD_THINKING = """
{%- set ns = namespace(last=0) -%}
{%- for m in messages -%}{%- if m.role == 'user' -%}{%- set ns.last = loop.index0 -%}{%- endif -%}{%- endfor -%}
{%- for m in messages -%}
{%- set content = m.content -%}
{%- if m.role == 'assistant' and loop.index0 < ns.last -%}
{%- set content = content.split('</think>')[-1].lstrip('\\n') -%}
{%- endif -%}
{%- if m.role == 'tool' -%}TOOL{%- else -%}
{{- '<|im_start|>' + m.role + '\\n' + content + '<|im_end|>\\n' -}}
{%- endif -%}
{%- endfor -%}
{%- if add_generation_prompt -%}{{- '<|im_start|>assistant\\n' -}}{%- endif -%}
"""
TOOL_RESPONSE = "{{- '<|im_start|>user\\n<tool_response>\\n' + content + '\\n</tool_response><|im_end|>\\n' -}}"
KEEPS_THINKING_IN_TOOL_LOOPS = DROPS_OLD_THINKING.replace("TOOL", TOOL_RESPONSE)
GENERIC = (
    "{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\n' + m['content'] + '<|im_end|>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)


def with_template(template: str, tmp_path: Path) -> Chat:
    (tmp_path / "template.jinja").write_text(template)
    return Chat(TOKENIZER, str(tmp_path / "template.jinja"))


def text(ids: list[int]) -> str:
    return str(TOKENIZER.decode(ids))


def test_chatml_renders_as_documented() -> None:
    assert text(CHAT.open("be brief", "who?")) == (
        "<|im_start|>system\nbe brief<|im_end|>\n<|im_start|>user\nwho?<|im_end|>\n<|im_start|>assistant\n"
    )
    assert text(CHAT.open("", "who?")) == "<|im_start|>user\nwho?<|im_end|>\n<|im_start|>assistant\n"
    assert text(CHAT.observe(["one", "two"], after_cut=True)) == (
        "<|im_end|>\n<|im_start|>user\n<tool_response>\none\n</tool_response>\n<tool_response>\ntwo\n</tool_response>"
        "<|im_end|>\n<|im_start|>assistant\n"
    )


def test_a_conversation_is_the_templates_rendering_of_its_messages() -> None:
    turn = '<tool_call>\n{"name": "search"}\n</tool_call>'
    ids = (
        CHAT.open("s", "u") + CHAT.encode_action(turn) + CHAT.observe(["r"], after_cut=False) + CHAT.encode_action("a")
    )
    messages = [("system", "s"), ("user", "u"), ("assistant", turn), ("tool", "r"), ("assistant", "a")]
    rendered = TOKENIZER.apply_chat_template(
        [{"role": role, "content": content} for role, content in messages], tokenize=False
    )
    assert text(ids) + "\n" == rendered


def test_without_thinking_every_turn_begins_behind_an_empty_thought() -> None:
    chat = Chat(TOKENIZER, "chatml_no_think")
    head = "<|im_start|>assistant\n<think>\n\n</think>\n\n"
    assert text(chat.open("s", "u")) == f"<|im_start|>system\ns<|im_end|>\n<|im_start|>user\nu<|im_end|>\n{head}"
    assert text(chat.observe(["r"], after_cut=True)) == (
        f"<|im_end|>\n<|im_start|>user\n<tool_response>\nr\n</tool_response><|im_end|>\n{head}"
    )
    assert chat.encode_action("a") == CHAT.encode_action("a"), "the thought is none of the policy's words"


def test_the_stop_token_is_trained_unless_the_turn_was_cut() -> None:
    # Row 3: the token stands in the action; the observation has it only where the action lacks it.
    end = VOCABULARY["<|im_end|>"]
    assert CHAT.end_id == end
    assert CHAT.encode_action("x")[-1] == end
    after_stop, after_cut = CHAT.observe(["r"], after_cut=False), CHAT.observe(["r"], after_cut=True)
    assert after_cut == [end, *after_stop]
    assert after_stop[0] != end


def test_every_end_of_sequence_of_the_model_stops_a_turn_once() -> None:
    pad = VOCABULARY["<|endoftext|>"]
    chat = Chat(TOKENIZER, eos_ids=(CHAT.end_id, pad))
    assert chat.stop_ids == (CHAT.end_id, pad)
    ids = CHAT.encode("x")
    assert chat.decode_action([*ids, pad]) == chat.decode_action([*ids, CHAT.end_id]) == chat.decode_action(ids) == "x"


@given(TEXTS)
@example("<|im_end|>")
def test_outside_text_is_text(outside: str) -> None:
    # Row 28: no special and no tag, wherever the text goes, and nothing of it is lost.
    ids = CHAT.encode(outside)
    assert not ADDED & set(ids)
    assert text(ids) == outside
    frame = CHAT.open("s", ""), CHAT.observe([""], after_cut=False)
    for whole, around in ((CHAT.open("s", outside), frame[0]), (CHAT.observe([outside], after_cut=False), frame[1])):
        assert [i for i in whole if i in ADDED] == [i for i in around if i in ADDED]
        assert sorted(whole) == sorted([*around, *ids])


@given(st.lists(TEXTS, min_size=1, max_size=4))
def test_several_results_are_one_observation_in_order(results: list[str]) -> None:
    ids = CHAT.observe(results, after_cut=False)
    start, stop = (VOCABULARY[tag] for tag in ("<tool_response>", "</tool_response>"))
    newline = CHAT.encode("\n")
    bodies = []
    for part in _split(ids, start)[1:]:
        body = part[: part.index(stop)]
        bodies.append(text(body[len(newline) : -len(newline)]))
    assert bodies == results
    assert ids.count(VOCABULARY["<|im_start|>"]) == 2


def _split(ids: list[int], at: int) -> list[list[int]]:
    parts: list[list[int]] = [[]]
    for token in ids:
        if token == at:
            parts.append([])
        else:
            parts[-1].append(token)
    return parts


@given(TEXTS)
def test_an_action_has_tags_but_no_control_tokens(action: str) -> None:
    ids = CHAT.encode_action(action)
    assert not SPECIAL & set(ids[:-1])
    assert CHAT.decode_action(ids) == action
    tags = [VOCABULARY[tag] for tag in TAGS]
    assert sum(i in tags for i in ids) == sum(action.count(tag) for tag in TAGS)


@given(st.text(max_size=200) | st.lists(st.sampled_from(["A fact. ", "line\n", "word ", "é", "12345"])).map("".join))
def test_cut_fits_and_keeps_a_start(long: str) -> None:
    for budget in (12, 40):
        short = CHAT.cut(long, budget)
        assert len(CHAT.encode(short)) <= budget
        if short != long:
            assert short.splitlines()[-1] == "[cut]"
            assert long.startswith(short.removesuffix("[cut]").rstrip("\n"))
        else:
            assert len(CHAT.encode(long)) <= budget


def test_cut_ends_at_a_line_or_sentence() -> None:
    for long, short in (
        ("one two\nthree four\nfive six seven eight nine ten", "one two\nthree four\n[cut]"),
        ("First sentence. Second is longer than what is left of it.", "First sentence.\n[cut]"),
        ("no border but spaces, none at all in here", "no border but\n[cut]"),
    ):
        budget = len(CHAT.encode(short))
        assert [CHAT.cut(long, budget + extra) for extra in (0, 3)] == [short, short]
        assert CHAT.cut(long, budget - 1) != short


def test_a_template_that_drops_old_thinking_is_refused(tmp_path: Path) -> None:
    # Row 2. Without a tool role results are user messages, and each one makes the thinking before it disappear.
    with pytest.raises(ConfigurationError, match=r"not prefix-preserving.*HINT: set `chat_template: chatml`"):
        with_template(DROPS_OLD_THINKING.replace("'tool'", "'function'"), tmp_path)


def test_the_same_template_is_fine_where_tool_results_are_no_user_messages(tmp_path: Path) -> None:
    chat = with_template(KEEPS_THINKING_IN_TOOL_LOOPS, tmp_path)
    assert "<tool_response>\nr\n</tool_response>" in text(chat.observe(["r"], after_cut=True))


def test_a_template_without_a_tool_role_gets_user_messages_with_tags(tmp_path: Path) -> None:
    chat = with_template(GENERIC, tmp_path)
    assert chat.observe(["one", "two"], after_cut=True) == CHAT.observe(["one", "two"], after_cut=True)


AS_JSON = """
{%- for m in messages -%}
{{- '<|im_start|>' + ('ipython' if m.role == 'tool' else m.role) + '\n' -}}
{{- (m.content | tojson if m.role == 'tool' else m.content) + '<|im_end|>\n' -}}
{%- endfor -%}
{%- if add_generation_prompt -%}{{- '<|im_start|>assistant\n' -}}{%- endif -%}
"""


def test_a_template_that_writes_results_another_way_gets_user_messages_too(tmp_path: Path) -> None:
    """As Llama 3.1's does: between double quotes, with JSON's escapes, that the pieces around a text cannot have."""
    chat = with_template(AS_JSON, tmp_path)
    assert chat.observe(['"one"'], after_cut=True) == CHAT.observe(['"one"'], after_cut=True)
    verbatim = with_template(AS_JSON.replace(" | tojson", ""), tmp_path)
    assert "<|im_start|>ipython\none<|im_end|>" in text(verbatim.observe(["one"], after_cut=True))


def test_a_prompt_is_the_same_on_every_day(tmp_path: Path) -> None:
    dated = GENERIC.replace("{% for", "{{ '<|im_start|>date\n' + strftime_now('%d %b %Y') }}{% for", 1)
    assert text(with_template(dated, tmp_path).open("s", "u")).startswith("<|im_start|>date\n26 Jul 2024<|im_start|>")


@pytest.mark.parametrize(
    ("template", "message"),
    [
        (GENERIC.replace("assistant\n", "assistant\n<think>\n"), "opened outside of the turn"),
        (GENERIC.replace("m['content']", "m['content'] + m['content']"), "drops, repeats or reorders"),
        (GENERIC.replace("messages", "messages[:2]"), "drops, repeats or reorders"),
        (GENERIC.replace("{% for", "{{ raise_exception('no system') }}{% for"), "cannot render.*no system"),
        (GENERIC.replace("<|im_end|>", "END"), "not a special token"),
        (GENERIC.replace("'<|im_start|>'", "loop.length|string"), "not prefix-preserving"),
        ("{% for", "cannot render"),
    ],
)
def test_unusable_templates_are_clear_errors(tmp_path: Path, template: str, message: str) -> None:
    with pytest.raises(ConfigurationError, match=f"{message}.*HINT"):
        with_template(template, tmp_path)


def test_chatml_is_the_fallback_for_any_tokenizer_that_has_its_tokens() -> None:
    tokenizer = make_tiny_tokenizer()
    tokenizer.chat_template = DROPS_OLD_THINKING.replace("'tool'", "'function'")
    assert Chat(tokenizer, "chatml").open("s", "u") == CHAT.open("s", "u")


@pytest.mark.parametrize("template", [None, "nowhere.jinja"])
def test_a_missing_template_is_a_clear_error(template: str | None) -> None:
    tokenizer = make_tiny_tokenizer()
    tokenizer.chat_template = None
    with pytest.raises(ConfigurationError, match=r"HINT.*chatml"):
        Chat(tokenizer, template)


def test_a_tokenizer_that_reads_control_tokens_in_text_is_refused(tiny_tokenizer: PreTrainedTokenizerBase) -> None:
    # Its vocabulary holds the token under another id, so that taking the added token away does not help.
    words = {"x": 0, "<|im_end|>": 1, "[UNK]": 2}
    backend = Tokenizer(WordLevel(words, unk_token="[UNK]"))
    backend.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    backend.decoder = decoders.Fuse()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend, eos_token="<|im_end|>", unk_token="[UNK]")
    with pytest.raises(ConfigurationError, match="HINT: use a model"):
        Chat(tokenizer, "chatml")


def bpe(merges: list[tuple[str, str]], words: list[str], **special: bool) -> PreTrainedTokenizerFast:
    """A BPE of characters with some merges and, as its last words, added tokens."""
    characters = sorted({*"abcdefghijklmnopqrstuvwxyzTOL<>|/_.'\n \u2581"})
    vocabulary = {token: index for index, token in enumerate([*characters, *map("".join, merges)])}
    tokenizer = Tokenizer(BPE(vocabulary, merges))
    tokenizer.decoder = decoders.Fuse()
    for word in words:
        tokenizer.add_tokens([AddedToken(word, special=special.get(word, False), normalized=False)])
    tokenizer.add_special_tokens(["<|im_start|>", "<|im_end|>"])
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<|im_end|>")


def test_white_space_among_the_added_tokens_is_text() -> None:
    """Gemma lists runs of newlines and spaces there, which its merges need."""
    tokenizer = bpe([("\n", "\n"), ("a", "b")], ["\n\n", "<answer>"])
    chat = Chat(tokenizer, "chatml")
    vocabulary = tokenizer.get_vocab()
    outside = chat.encode("ab\n\n<answer>")
    assert outside[:2] == [vocabulary["ab"], vocabulary["\n\n"]], "as the model reads it"
    assert vocabulary["<answer>"] not in outside
    assert vocabulary["<answer>"] in chat.encode_tagged("ab\n\n<answer>")
    assert tokenizer.decode(outside) == "ab\n\n<answer>"


def test_a_vocabulary_that_is_made_of_its_control_tokens_is_a_clear_error() -> None:
    with pytest.raises(ConfigurationError, match=r"cannot be loaded without its control tokens.*HINT"):
        Chat(bpe([("<", "a"), ("<a", ">")], ["<a", "x"]), "chatml")


def test_a_tokenizer_that_hides_a_space_in_front_of_a_text_is_refused() -> None:
    tokenizer = bpe([], [])
    tokenizer.backend_tokenizer.normalizer = normalizers.Sequence(
        [normalizers.Prepend("\u2581"), normalizers.Replace(" ", "\u2581")]
    )
    tokenizer.backend_tokenizer.decoder = decoders.Sequence(
        [decoders.Replace("\u2581", " "), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    with pytest.raises(ConfigurationError, match=r"reads 'xy' as 'x y'.*HINT.*adds no space"):
        Chat(tokenizer, "chatml")
