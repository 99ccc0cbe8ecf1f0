"""Silence warnings and tips of Lightning, PEFT and transformers that do not help the user of a team."""

from __future__ import annotations

import logging
import warnings


def quiet() -> None:
    """Filter out advertisements and advice that is wrong for a team."""
    for message in (
        "Using ModelCheckpoint with manual optimization",  # a team checkpoints after the optimizer step, on purpose
        "You're resuming from a checkpoint that ended before the epoch ended",  # the data resume from the step alone
        ".*isinstance.treespec, LeafSpec.. is deprecated",  # lightning 2.6 with torch 2.13
        "The PEFT config's .base_model_name_or_path. was renamed",  # saved adapters carry the team file's name
        ".is_gradient_checkpointing. is deprecated",  # peft 0.21 with transformers 5.23
        "It is recommended to use `self.log",  # logged values are already equal on all ranks
        "Be aware that when using `ckpt_path`, callbacks used",  # a replay needs none of them
        "Checkpoint directory .* exists and is not empty",  # a resumed run writes where it wrote before
    ):
        warnings.filterwarnings("ignore", message=message)
    logging.getLogger("lightning.pytorch.utilities.rank_zero").addFilter(
        lambda record: "Tip:" not in record.getMessage()
    )
