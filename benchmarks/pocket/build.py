"""Build the pocket model's tokenizer and base from the Factbook alone: ``python -m benchmarks.pocket.build``.

Tokenizer, demonstrations of training countries, a start that can copy, and one run of pretraining on the
demonstrations, most of them retold with other names. Everything is seeded; another machine type or thread count rounds
differently and gives other weights. About half an hour on two cores, more without bf16 instructions. ``make pocket``
also trains its adapters.
"""

from __future__ import annotations

import argparse
import time
from importlib.resources import files
from pathlib import Path

import torch
from transformers import LlamaForCausalLM, PreTrainedTokenizerFast

from benchmarks.pocket.corpus import demonstrations, storyteller, stream, tokenizer_texts
from benchmarks.pocket.induction import induction_model, pocket_config
from benchmarks.pocket.pretraining import Settings, pretrain
from benchmarks.pocket.tokenizer import TAGS, train_tokenizer, twins
from mgrpo_lightning.policy.chat import Chat
from mgrpo_lightning.tasks.factbook import Factbook

WEIGHTS = Path(str(files("mgrpo_lightning.pocket"))) / "weights"
QUESTIONS = 5000
"""Training questions that are played; their hops are most of what there is to look up."""
STEPS = 1700


def build_tokenizer(task: Factbook) -> PreTrainedTokenizerFast:
    """The tokenizer, from training countries only."""
    return train_tokenizer(tokenizer_texts(task.questions("train")[:QUESTIONS]))


def build_model(
    task: Factbook, tokenizer: PreTrainedTokenizerFast, *, steps: int = STEPS, questions: int = QUESTIONS, seed: int = 0
) -> LlamaForCausalLM:
    """The pretrained model, in fp32.

    Args:
        task: The world's questions, with a demonstrator that makes no mistakes.
        tokenizer: From `build_tokenizer`.
        steps: Batches of the pretraining.
        questions: How many training questions are played for demonstrations.
        seed: Of the weights and of the order.
    """
    chat = Chat(tokenizer)
    transcripts = demonstrations(task, task.questions("train")[:questions], chat)
    vocabulary = len(tokenizer) - len(TAGS)
    batches = stream(transcripts, chat, storyteller(list(tokenizer.get_vocab())), vocabulary=vocabulary, seed=seed)
    model = induction_model(pocket_config(len(tokenizer)), twins(tokenizer), seed=seed)
    started = time.monotonic()

    def report(step: int, loss: float, right: list[float]) -> None:
        if step % 25 == 0 or step == steps - 1:
            shares = " ".join(f"{share:.3f}" for share in right)
            print(f"step {step}: loss {loss:.3f}, right {shares}, {time.monotonic() - started:.0f} s", flush=True)

    pretrain(model, batches, Settings(steps=steps, seed=seed), report=report)
    return model


def main() -> None:
    """Build and save."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path, default=WEIGHTS, help="folder for the weights")
    parser.add_argument("--steps", type=int, default=STEPS, help="number of pretraining batches")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=2)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    task = Factbook(hops=[1, 2])
    tokenizer = build_tokenizer(task)
    model = build_model(task, tokenizer, steps=arguments.steps, seed=arguments.seed)
    tokenizer.save_pretrained(arguments.folder)
    model.bfloat16().save_pretrained(arguments.folder)


if __name__ == "__main__":
    main()
