"""The package's own ChatML template: prefix-preserving, with tool results as user messages in ``<tool_response>`` tags.

It is what ``chat_template: chatml`` selects when a tokenizer's own template drops or rewrites earlier turns
(correctness.md 2), and what the embedded pocket model was trained with. Results that follow each other share one user
message, as in the Hermes/Qwen convention.
"""

CHATML = (
    "{%- for message in messages -%}"
    "{%- if message['role'] == 'tool' -%}"
    "{%- if loop.first or messages[loop.index0 - 1]['role'] != 'tool' -%}{{- '<|im_start|>user' -}}{%- endif -%}"
    "{{- '\\n<tool_response>\\n' + message['content'] + '\\n</tool_response>' -}}"
    "{%- if loop.last or messages[loop.index0 + 1]['role'] != 'tool' -%}{{- '<|im_end|>\\n' -}}{%- endif -%}"
    "{%- else -%}"
    "{{- '<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>\\n' -}}"
    "{%- endif -%}"
    "{%- endfor -%}"
    "{%- if add_generation_prompt -%}{{- '<|im_start|>assistant\\n' -}}{%- endif -%}"
)
"""Jinja source; takes ``messages`` and ``add_generation_prompt``."""
