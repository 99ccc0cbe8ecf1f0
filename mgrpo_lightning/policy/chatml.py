"""ChatML templates ``chatml`` and ``chatml_no_think``, for tokenizers whose template changes earlier turns.

Both are prefix-preserving. ``chat_template`` in the team file selects them by name. The embedded pocket model was
trained with ``chatml``. With ``chatml_no_think`` every assistant turn begins after an empty thought. Qwen3's template
does the same to switch thinking off, but in the last turn only. Tool results are user messages in ``<tool_response>``
tags, and consecutive results share one user message (Hermes/Qwen convention).
"""


def _chatml(thought: str = "") -> str:
    """Jinja source with ``thought`` before every assistant turn; takes ``messages`` and ``add_generation_prompt``."""
    # One string for finished turns and for the generation prompt, so that both render the same header.
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
"""The ChatML template without a thought."""
TEMPLATES = {"chatml": CHATML, "chatml_no_think": _chatml("<think>\\n\\n</think>\\n\\n")}
"""Templates by the name that selects them as ``chat_template``."""
