"""The model card of an exported adapter: base, data, figures, licence, and the lines that use it."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from huggingface_hub import ModelCardData

from mgrpo_lightning.policy.adapter_folder import NamedBase, TrainedAdapter
from mgrpo_lightning.policy.base_files import licence_of
from mgrpo_lightning.roles.config import RoleConfig
from mgrpo_lightning.tasks.base import Task

FILE_NAME = "README.md"
ONE_LAYOUT = """for layer in model.modules():
    layer.support_avx512bf16_for_cpu = False
"""
"""Without these lines, bitsandbytes computes in bfloat16 on a CPU that has instructions for it (correctness.md 31)."""
_USE = """import json

{imports}

folder = "{folder}"
role = json.load(open(f"{{folder}}/role.json", encoding="utf-8"))
tokenizer = AutoTokenizer.from_pretrained(folder)
model = {auto}.from_pretrained(folder, **role["load"])
{one_layout}messages = [*role["messages"], {{"role": "user", "content": "What is the capital of Peru?"}}]
prompt = tokenizer.apply_chat_template(messages, add_generation_prompt=True, return_dict=True, return_tensors="pt")
output = model.generate(**prompt.to(model.device), **role["generate"])
print(tokenizer.decode(output[0, prompt["input_ids"].shape[1] :]))
"""


@dataclass(frozen=True)
class Provenance:
    """Where an adapter comes from."""

    run: str
    """Name of the run."""
    role: RoleConfig
    """Configuration of the role that owns the adapter."""
    task: Task
    """The task that it was trained on."""
    records: Sequence[Mapping[str, Any]]
    """Validations of the run's team, oldest first, as in results.json."""


def use_lines(folder: str, *, four_bit: bool, merged: bool = False) -> str:
    """The lines of Python that load an exported folder and ask it, without this package.

    Args:
        folder: Path of the folder.
        four_bit: Whether the base is loaded in 4 bit.
        merged: Whether the folder holds a whole model instead of an adapter.
    """
    auto = "AutoPeftModelForCausalLM"
    imports = f"from peft import {auto}\nfrom transformers import AutoTokenizer"
    if merged:
        auto, imports = "AutoModelForCausalLM", "from transformers import AutoModelForCausalLM, AutoTokenizer"
    return _USE.format(folder=folder, imports=imports, auto=auto, one_layout=ONE_LAYOUT if four_bit else "")


def adapter_card(adapter: TrainedAdapter, base: NamedBase, origin: Provenance, *, merged_into: str = "") -> str:
    """The text of the model card, with the hub's metadata at its head.

    Args:
        adapter: The adapter.
        base: The base that the folder names; of a merged model, the base that it was merged into.
        origin: Where the adapter comes from.
        merged_into: Describes the base that the adapter was merged into; empty for an adapter.
    """
    identity, config = adapter.identity, adapter.config
    trained_on = identity["base_model"]
    licence = licence_of(trained_on["name"])
    head = ModelCardData(
        base_model=base.path if base.on_hub else None,  # the hub accepts its own names only
        library_name="transformers" if merged_into else "peft",
        pipeline_tag="text-generation",
        license=licence,
        tags=["mgrpo_lightning", *([] if merged_into else ["lora"])],
    ).to_yaml()
    how = "on demonstrations" if origin.role.objective.kind == "supervised" else "with M-GRPO (arXiv 2511.13288)"
    kind = f"A model with the LoRA adapter of the role merged into {merged_into}" if merged_into else "A LoRA adapter"
    task = type(origin.task)
    about = (inspect.getdoc(task) or "").split("\n\n")[0].replace("\n", " ")
    four_bit = "quantization_config" in base.load
    return f"""---
{head}
---

# {adapter.role} of {origin.run}

{kind}. It plays the role `{adapter.role}` in a team of agents and was trained {how} by mgrpo_lightning.

| | |
|---|---|
| trained on | {trained_on["name"]}, SHA-256 of its files {trained_on["sha256"] or "unknown"} |
| quantisation in training | {identity["quantization"]}{_settings(base) if four_bit else ""} |
| computed in | {identity["compute_dtype"]} |
| adapter | LoRA, rank {config.rank}, alpha {config.alpha}, on {", ".join(config.target_modules)} |
| updates | {adapter.updates} |

## Use

```python
{use_lines(Path(adapter.role).name, four_bit=four_bit, merged=bool(merged_into))}```

`role.json` has the role's prompt, its tools as JSON schemas, its limits, and how the base is loaded. Text from outside
can contain control tokens of the chat template: remove them before you render it.

## Data

Questions of `{task.__module__}.{task.__qualname__}`. {about}
Licence or terms of the questions: {origin.task.terms or "not stated by the task"}.

## Figures

{_figures(origin.records)}

## Licence

{_licence(trained_on["name"], licence)}
"""


def _settings(base: NamedBase) -> str:
    pairs = base.load["quantization_config"].items()
    return f" ({', '.join(f'`{key}={value}`' for key, value in pairs)})"


def _licence(name: str, licence: str | None) -> str:
    if licence is None:
        return f"The licence of the base applies; see the card of {name}."
    return f"{licence}, that of the base {name}."


def _figures(records: Sequence[Mapping[str, Any]]) -> str:
    """Scores of the whole team, before and after the training."""
    if not records:
        return "The run was not validated."
    runs = {"before": records[0]} if records[0]["step"] == 0 else {}
    if records[-1]["step"] > 0:
        runs[f"after {records[-1]['step']} steps"] = records[-1]
    levels = [{"all": run, **run.get("by_level", {})} for run in runs.values()]
    rows = [
        f"| {level} | {levels[-1][level]['questions']} | "
        + " | ".join(_percent(found.get(level, {}).get("accuracy")) for found in levels)
        + " |"
        for level in levels[-1]
    ]
    return "\n".join(
        [
            "Held-out accuracy of the whole team:",
            "",
            f"| level | questions | {' | '.join(runs)} |",
            f"|---|---|{'---|' * len(runs)}",
            *rows,
        ]
    )


def _percent(share: float | None) -> str:
    return "-" if share is None else f"{share:.1%}"
