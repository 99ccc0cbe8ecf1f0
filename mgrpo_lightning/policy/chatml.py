"""The package's ChatML templates: prefix-preserving, with tool results as user messages in ``<tool_response>`` tags.

They are what ``chat_template`` selects by name when a tokenizer's own template drops or rewrites earlier turns
(correctness.md 2). ``chatml`` is also what the embedded pocket model was trained with. Under ``chatml_no_think`` every
assistant turn begins behind an empty thought, as Qwen3's template has it for models that can be told not to think;
that template itself has it in the last turn alone. Results that follow each other share one user message, as in the
Hermes/Qwen convention.
"""


def _chatml(thought: str = "") -> str:
    """Jinja source that takes ``messages`` and ``add_generation_prompt``; the thought stands before every turn."""
    head = "{{- '<|im_start|>assistant\\n" + thought + "' -}}"
    return (
        "{%- for message in messages -%}"
        "{%- if message['role'] == 'tool' -%}"
        "{%- if loop.first or messages[loop.index0 - 1]['role'] != 'tool' -%}{{- '<|im_start|>user' -}}{%- endif -%}"
        "{{- '\\n<tool_response>\\n' + message['content'] + '\\n</tool_response>' -}}"
        "{%- if loop.last or messages[loop.index0 + 1]['role'] != 'tool' -%}{{- '<|im_end|>\\n' -}}{%- endif -%}"
        "{%- elif message['role'] == 'assistant' -%}"
        f"{head}{{{{- message['content'] + '<|im_end|>\\n' -}}}}"
        "{%- else -%}"
        "{{- '<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>\\n' -}}"
        "{%- endif -%}"
        "{%- endfor -%}"
        f"{{%- if add_generation_prompt -%}}{head}{{%- endif -%}}"
    )


CHATML = _chatml()
"""The plain one."""
TEMPLATES = {"chatml": CHATML, "chatml_no_think": _chatml("<think>\\n\\n</think>\\n\\n")}
"""By the names that ``chat_template`` takes."""
