import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mgrpo_lightning.protocol.actions import Action, HermesDialect, ToolCall, Violation, parse

CALL = '<tool_call>\n{"name": "search", "arguments": {"query": "France"}}\n</tool_call>'
SEARCH = ToolCall("search", {"query": "France"})
WORDS = ["<think>", "</think>", "<tool_call>", "</tool_call>", "<tool_response>", "</tool_response>", "<answer>"]
WORDS += ["</answer>", "<|im_start|>", '{"name": "search", "arguments": {}}', "{", "null", " ", "\n", "text", "\ud800"]


@pytest.mark.parametrize(
    ("text", "action"),
    [
        (CALL, Action(calls=(SEARCH,))),
        (f"I look.\n{CALL}\n", Action("I look.", calls=(SEARCH,))),
        (f"{CALL}\n {CALL}", Action(calls=(SEARCH, SEARCH))),
        ("<answer>Mont Blanc</answer>", Action(answer="Mont Blanc")),
        ("peak: 4,810\n<answer> Mont Blanc\n</answer>\n\n", Action("peak: 4,810", answer="Mont Blanc")),
        ("<think>hm</think><answer>a</answer>", Action("<think>hm</think>", answer="a")),
        # Tags inside thinking are words.
        (
            f"<think>a <tool_call> or {CALL}?</think>{CALL}",
            Action(f"<think>a <tool_call> or {CALL}?</think>", (SEARCH,)),
        ),
        (
            "<think><answer>x</answer></think><answer>a</answer>",
            Action("<think><answer>x</answer></think>", answer="a"),
        ),
        ("<think><tool_response>x</think><answer>a</answer>", Action("<think><tool_response>x</think>", answer="a")),
        ("a < b and <b>c</b> <answer>a</answer>", Action("a < b and <b>c</b>", answer="a")),
    ],
)
def test_legal_turns(text: str, action: Action) -> None:
    assert parse(text) == action


@pytest.mark.parametrize(
    ("text", "violations"),
    [
        ("", {Violation.NO_ACTION}),
        ("just words", {Violation.NO_ACTION}),
        (f"<think>{CALL}</think>", {Violation.NO_ACTION}),
        ("<think><answer>a</answer></think> so", {Violation.NO_ACTION}),
        ("<think>no end <answer>a</answer>", {Violation.UNCLOSED_THINK}),
        (f"{CALL}<answer>a</answer>", {Violation.CALL_AND_ANSWER}),
        (f"<answer>a</answer>{CALL}", {Violation.CALL_AND_ANSWER}),
        ("<answer>a</answer><answer>b</answer>", {Violation.SEVERAL_ANSWERS}),
        ("<answer>a</answer> done", {Violation.TEXT_AFTER}),
        (f"{CALL} waiting", {Violation.TEXT_AFTER}),
        (f"{CALL} and {CALL}", {Violation.TEXT_AFTER}),
        (f"{CALL}<think>hm</think>", {Violation.TEXT_AFTER}),
        ("<answer>a</answer><think>hm</think>", {Violation.TEXT_AFTER}),
        ("<answer></answer>", {Violation.EMPTY_ANSWER}),
        ("<answer> \n</answer>", {Violation.EMPTY_ANSWER}),
        ("<answer>\u200b \ufeff\u00ad</answer>", {Violation.EMPTY_ANSWER}),
        ("<answer>a", {Violation.UNCLOSED_ANSWER, Violation.TEXT_AFTER}),
        ('<tool_call>{"name": "a", "arguments": {}}', {Violation.UNCLOSED_CALL, Violation.TEXT_AFTER}),
        ("<tool_call>", {Violation.UNCLOSED_CALL}),
        (f"<tool_call>{CALL}", {Violation.UNCLOSED_CALL}),
        ("</answer>", {Violation.STRAY_TAG}),
        ("</think><answer>a</answer>", {Violation.STRAY_TAG}),
        ("<answer>a</answer></answer>", {Violation.STRAY_TAG}),
        ("<tool_call>{}</tool_call>", {Violation.BAD_CALL}),
        ("<tool_call>not json</tool_call>", {Violation.BAD_JSON}),
        ("<tool_call>[1]</tool_call>", {Violation.BAD_JSON}),
        ('<tool_call>{"name": "a", "arguments": {}} x</tool_call>', {Violation.BAD_JSON}),
        ('<tool_call>{"name": "a", "name": "b", "arguments": {}}</tool_call>', {Violation.BAD_JSON}),
        ('<tool_call>{"name": "a", "arguments": {"x": NaN}}</tool_call>', {Violation.BAD_JSON}),
        ('<tool_call>{"name": "a", "arguments": {"x": [-1e999]}}</tool_call>', {Violation.BAD_JSON}),
        ('<tool_call>{"name": "a", "arguments": {"x": "\\ud800"}}</tool_call>', {Violation.BAD_JSON}),
        (f"<tool_call>{'[' * 100_000}</tool_call>", {Violation.BAD_JSON}),
        (f"<tool_call>{'9' * 5_000}</tool_call>", {Violation.BAD_JSON}),
        ('<tool_call>{"name": "a"}</tool_call>', {Violation.BAD_CALL}),
        ('<tool_call>{"name": 3, "arguments": {}}</tool_call>', {Violation.BAD_CALL}),
        ('<tool_call>{"name": "", "arguments": {}}</tool_call>', {Violation.BAD_CALL}),
        ('<tool_call>{"name": "a", "arguments": {}, "id": 1}</tool_call>', {Violation.BAD_CALL}),
        ('<tool_call>{"name": "a", "arguments": "x"}</tool_call>', {Violation.BAD_ARGUMENTS}),
        ('<tool_call>{"name": "a", "arguments": null}</tool_call>', {Violation.BAD_ARGUMENTS}),
        ("<answer>a</answer><|im_end|>", {Violation.CONTROL_TOKEN, Violation.TEXT_AFTER}),
        ("<|im_start|>system\n<answer>a</answer>", {Violation.CONTROL_TOKEN}),
        ("<think><|im_start|></think><answer>a</answer>", {Violation.CONTROL_TOKEN}),
    ],
)
def test_illegal_turns_name_the_rule_and_do_nothing(text: str, violations: set[Violation]) -> None:
    action = parse(text)
    assert set(action.violations) == violations
    assert (action.calls, action.answer) == ((), None)


@pytest.mark.parametrize(
    "text",
    [
        f"{CALL}\n<tool_response>\nMont Blanc\n</tool_response>\n<answer>Mont Blanc</answer>",
        "<tool_response>Mont Blanc</tool_response><answer>Mont Blanc</answer>",
        "<tool_response>Mont Blanc<answer>Mont Blanc</answer>",
        f"<tool_response>x</tool_response>{CALL}",
    ],
)
def test_a_tool_response_written_by_the_policy_is_invalid(text: str) -> None:
    action = parse(text)
    assert Violation.TOOL_RESPONSE in action.violations
    assert (action.calls, action.answer) == ((), None)


@given(st.lists(st.one_of(st.sampled_from(WORDS), st.text(st.characters(), max_size=5)), max_size=12).map("".join))
def test_no_text_makes_the_parser_raise(text: str) -> None:
    action = parse(text)
    assert bool(action.violations) == (not action.calls and action.answer is None)
    assert not (action.calls and action.answer is not None)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(10**9), 10**9) | st.text() | st.sampled_from(WORDS[:-1]),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(), inner, max_size=2),
    max_leaves=5,
)
tool_calls = st.builds(
    ToolCall, st.text(min_size=1), st.dictionaries(st.text() | st.sampled_from(WORDS[:-1]), json_values, max_size=3)
)
plain = st.text().map(lambda text: text.replace("<", "").strip())


@given(plain, st.lists(tool_calls, min_size=1, max_size=3))
def test_rendered_calls_read_back(thought: str, calls: list[ToolCall]) -> None:
    action = Action(thought, tuple(calls))
    assert parse(HermesDialect().render(action)) == action


@given(plain, plain.filter(bool))
def test_rendered_answers_read_back(thought: str, answer: str) -> None:
    action = Action(thought, answer=answer)
    assert parse(HermesDialect().render(action)) == action


@pytest.mark.parametrize(
    "action",
    [
        Action(),
        Action(answer=""),
        Action(answer="a</answer>"),
        Action("<tool_call>", (SEARCH,)),
        Action("", (SEARCH,), "a"),
    ],
)
def test_what_no_legal_turn_says_is_not_rendered(action: Action) -> None:
    with pytest.raises(ValueError, match="cannot be written as a legal turn"):
        HermesDialect().render(action)


def test_calls_are_rendered_as_the_pocket_model_writes_them() -> None:
    text = HermesDialect().render(Action(calls=(ToolCall("search", {"query": "Cote d'Ivoire é"}),)))
    assert text == '<tool_call>\n{"name": "search", "arguments": {"query": "Cote d\'Ivoire é"}}\n</tool_call>'
    assert json.loads(text.split("\n")[1])["name"] == "search"
