"""Split a chat template into fixed pieces around message texts; check that a new message changes no earlier text.

Tool results are ``tool`` messages if the template knows this role, else user messages with ``<tool_response>`` tags.
All results that follow one turn form one observation.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from jinja2 import TemplateError
from transformers import PreTrainedTokenizerBase

from mgrpo_lightning.errors import ConfigurationError

_HINT = "set `chat_template: chatml` for the role, or a Jinja file that does not change earlier turns."
# Example turns for the check. Templates that rewrite old turns look for thinking or for tool calls.
_TURNS = (
    "plain",
    "<think>\nfirst\n</think>\n\nplain",
    '<think>\nfirst\n</think>\n\n<tool_call>\n{"name": "search", "arguments": {"query": "x"}}\n</tool_call>',
)


# Example result with characters that JSON escapes. A template that writes results as JSON would change the text.
_RESULT = '"quoted"\n\\ and more'
# Templates may ask for today's date. This macro returns a fixed day (of Llama 3.2's release, as Llama's templates do by
# default), because the same prompt must have the same ids on every day and in every process of a run.
_NO_CLOCK = "{%- macro strftime_now(format) -%}26 Jul 2024{%- endmacro -%}"


def _mark(index: int) -> str:
    """The placeholder of the text with this index: a character of Unicode's private use area."""
    return chr(0xE000 + index)


class Template:
    """One Jinja chat template, rendered by its tokenizer.

    Args:
        tokenizer: Renders the template with its own settings, such as special tokens.
        source: Jinja source of the template.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase, source: str) -> None:
        self._tokenizer = tokenizer
        self.source = _NO_CLOCK + source if "strftime_now" in source else source
        """The source as it is rendered: one that asks for the date gets a fixed one."""
        self.has_tool_role = self._knows_tool_role()
        """Whether the template knows ``tool`` messages."""

    def opening(self, *, system: bool) -> list[str]:
        """The pieces around the user text (and the system text), up to the header of the first turn."""
        messages = [("system", _mark(0)), ("user", _mark(1))] if system else [("user", _mark(1))]
        return self._pieces(self._render(messages), [text for _, text in messages])

    def turn_end(self, *, results: int) -> list[str]:
        """The pieces around ``results`` result texts, from the end of a turn to the header of the next turn."""
        # The first three pieces belong to the conversation before the end of the turn.
        texts = [_mark(3 + index) for index in range(results)]
        conversation = [("system", _mark(0)), ("user", _mark(1)), ("assistant", _mark(2)), *self._results(texts)]
        return self._pieces(self._render(conversation), [_mark(0), _mark(1), _mark(2), *texts])[3:]

    def check(self) -> None:
        """Check that a whole rendered conversation equals the concatenation of its pieces and texts.

        Raises:
            ConfigurationError: They differ, or the header of a turn opens a thought.
        """
        header = self.opening(system=True)[-1]
        # The policy would sample a turn whose `<think>` is not among the sampled ids, so its text could not be parsed.
        if header.rfind("<think>") > header.rfind("</think>"):
            raise ConfigurationError(
                f"the chat template begins a turn with {header[-30:]!r}, so that the thought is opened outside of "
                "the turn.",
                hint="set `chat_template: chatml` for the role, or a Jinja file that leaves `<think>` to the model.",
            )
        for turn in _TURNS:
            messages = [("system", "s"), ("user", "u")]
            joined = _fill(self.opening(system=True), ["s", "u"])
            for results in (["one"], ["two", "three"], ["four"]):
                messages += [("assistant", turn), *self._results(results)]
                joined += turn + _fill(self.turn_end(results=len(results)), results)
                rendered = self._render(messages)
                if rendered != joined:
                    at = next(
                        (i for i, (a, b) in enumerate(zip(rendered, joined, strict=False)) if a != b), len(joined)
                    )
                    raise ConfigurationError(
                        "the chat template is not prefix-preserving: with a new message it renders "
                        f"{rendered[max(at - 20, 0) : at + 40]!r} where the conversation so far is "
                        f"{joined[max(at - 20, 0) : at + 40]!r}.",
                        hint=_HINT,
                    )

    def _results(self, texts: Sequence[str]) -> list[tuple[str, str]]:
        if self.has_tool_role:
            return [("tool", text) for text in texts]
        return [("user", "\n".join(f"<tool_response>\n{text}\n</tool_response>" for text in texts))]

    def _knows_tool_role(self) -> bool:
        if not re.search(r"""["']tool["']""", self.source):
            return False
        result = f"{_mark(2)}{_RESULT}{_mark(3)}"
        try:
            text = self._render([("user", _mark(0)), ("assistant", _mark(1)), ("tool", result)])
        except ConfigurationError:
            return False
        # A template that escapes or wraps the result in JSON does not count as knowing the role.
        return result in text

    def _render(self, messages: Sequence[tuple[str, str]]) -> str:
        try:
            rendered = self._tokenizer.apply_chat_template(
                [{"role": role, "content": content} for role, content in messages],
                chat_template=self.source,
                tokenize=False,
                add_generation_prompt=True,
            )
        except (TemplateError, TypeError, ValueError) as error:
            raise ConfigurationError(
                f"the chat template cannot render {[role for role, _ in messages]}: {error}.", hint=_HINT
            ) from error
        assert isinstance(rendered, str)
        return rendered

    def _pieces(self, rendered: str, marks: Sequence[str]) -> list[str]:
        pieces = re.split("|".join(marks), rendered)
        if re.findall("|".join(marks), rendered) != list(marks):
            raise ConfigurationError("the chat template drops, repeats or reorders messages.", hint=_HINT)
        return pieces


def _fill(pieces: Sequence[str], texts: Sequence[str]) -> str:
    return "".join(piece + text for piece, text in zip(pieces, [*texts, ""], strict=True))
