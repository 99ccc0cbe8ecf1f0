"""Export the adapters of a run from a checkpoint, merge them into their base, and upload folders to the hub.

An adapter's folder is written without the base's weights; only merging loads them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import islice
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Literal

import httpx2
import torch
from huggingface_hub import HfApi
from torch import Tensor

from mgrpo_lightning.agents.players import make_seats
from mgrpo_lightning.agents.role_file import FILE_NAME
from mgrpo_lightning.agents.seat import Seat
from mgrpo_lightning.callbacks.adapter_card import Provenance, adapter_card
from mgrpo_lightning.callbacks.adapter_export import write_about, write_role
from mgrpo_lightning.commands.saved_run import cli_of
from mgrpo_lightning.errors import ConfigurationError, DataError, MgrpoError
from mgrpo_lightning.persistence.atomic import atomic_folder
from mgrpo_lightning.persistence.checkpoints import last_checkpoint, load_checkpoint
from mgrpo_lightning.policy.adapter_folder import NamedBase, TrainedAdapter, named_base
from mgrpo_lightning.policy.chat import Chat
from mgrpo_lightning.policy.exported_base import ORIGIN_NAME, exported_base, write_base
from mgrpo_lightning.policy.identity import OF_A_CHAT, identity_of_chat, refuse_other
from mgrpo_lightning.policy.loading import Base, Quantization, load_base, load_eos_ids, load_tokenizer
from mgrpo_lightning.policy.merged import Row, logprobs, merge
from mgrpo_lightning.policy.policy import Policy
from mgrpo_lightning.protocol.actions import HermesDialect
from mgrpo_lightning.records.batch import TrainingRow
from mgrpo_lightning.records.journal import read_groups, training_files
from mgrpo_lightning.roles.config import RoleConfig, longest_row
from mgrpo_lightning.roles.sharing import adapter_owners
from mgrpo_lightning.tools.base import wanted_tools

ROWS = 16
"""Number of trajectories, or prompts, on which a merged model is compared with the policy."""
_HERE = ("accelerator=cpu", "devices=1", "num_nodes=1", "strategy=auto", "logger=false")
"""Settings of the trainer, which is made with the team but not used; the run's may need another machine."""


class Exporter:
    """The adapters of one run, as a checkpoint has them.

    Args:
        run: Folder of the run.
        ckpt_path: A checkpoint; ``last`` is the last one of the run that loads.

    Raises:
        ConfigurationError: The folder is not a run, or a base or tokenizer is not the one of the training.
        DataError: The checkpoint cannot be read.
    """

    def __init__(self, run: Path, *, ckpt_path: str = "last") -> None:
        cli = cli_of(run, [f"--trainer.{setting}" for setting in _HERE])
        self._module, self._task = cli.model, cli.datamodule.task
        self._journal = Path(cli.config["rollout_log"]["dirpath"] or run / "journal")
        self._name = run.resolve().name
        self._source = last_checkpoint(run / "checkpoints") if ckpt_path == "last" else Path(ckpt_path)
        self._checkpoint = load_checkpoint(self._source)
        if not self._checkpoint.keys() >= {"roles", "identity"}:
            raise DataError(
                f"{self._source} does not say which team it belongs to.",
                hint="give a checkpoint of `mgrpo fit`; if an older version wrote it, resume the run for one step.",
            )
        roles = self._module.roles
        self._owners = {
            name: owner
            for name, owner in adapter_owners(roles).items()
            if name in self._module.local_roles and roles[name].endpoint is None
        }
        chats = {name: _chat(roles[name]) for name in self._owners}
        ours = {name: identity_of_chat(chat) for name, chat in chats.items()}
        refuse_other(self._checkpoint["identity"], ours, source=str(self._source), parts=OF_A_CHAT)
        self._seats = make_seats(roles, chats, wanted_tools(roles, self._task.tools()), HermesDialect())

    def roles(self, wanted: str | None) -> list[str]:
        """The roles whose adapters are exported.

        Args:
            wanted: One role; None: all that own an adapter.

        Raises:
            ConfigurationError: The role has no adapter of its own in this run.
        """
        owners = list(dict.fromkeys(self._owners.values()))
        if wanted is not None and wanted not in owners:
            owner = self._owners.get(wanted)
            raise ConfigurationError(
                f"role {wanted!r} " + ("is not played in this run." if owner is None else "shares an adapter."),
                hint=f"give --role {owner}." if owner else f"use one of {owners}.",
            )
        return owners if wanted is None else [wanted]

    def base(self, role: str, path: str | None) -> NamedBase:
        """The base that the adapter of a role names.

        Args:
            path: An exported base; None: the base of the training.

        Raises:
            ConfigurationError: The exported base is not the one of the training.
        """
        identity = self._checkpoint["identity"][role]
        return named_base(identity) if path is None else exported_base(path, identity)

    def write(self, role: str, target: Path, base: NamedBase) -> None:
        """Write the folder of a role's adapter.

        Args:
            target: The folder; an earlier export is replaced.
            base: The base that it names.

        Raises:
            ConfigurationError: ``target`` holds something else.
        """
        refuse_foreign(target, FILE_NAME)
        with atomic_folder(target) as folder:
            write_role(folder, self._adapter(role), base, self._players(role), self._provenance(role))

    def merge(self, role: str, target: Path, *, onto: Literal["dequantised", "original"]) -> str:
        """Merge the adapter of a role into its base, and write the whole model.

        Args:
            target: The folder; an earlier export is replaced.
            onto: The base as trained on, dequantised; or the original base, on which the adapter was not trained.

        Returns:
            How far the merged model is from the policy, as a sentence.

        Raises:
            ConfigurationError: ``target`` holds something else, or the base is not the one of the training.
        """
        refuse_foreign(target, FILE_NAME)
        adapter, rows, tokens = self._adapter(role), *self._rows(role)
        quantization = self._module.quantization
        with TemporaryDirectory() as folder:
            self.write(role, path := Path(folder) / role, named_base(adapter.identity))
            expected = self._expected(role, path, rows)
            base = self._load(role, "none" if onto == "original" else quantization)
            merged = merge(base, path)
        difference = float((logprobs(merged, rows) - expected).abs().mean())
        merged.generation_config.eos_token_id = list(adapter.chat.stop_ids)
        named = NamedBase(named_base(adapter.identity).path, None, {"dtype": adapter.identity["compute_dtype"]})
        into = f"the {onto} base" if quantization == "nf4" else "its base"
        card = adapter_card(adapter, named, self._provenance(role), merged_into=into)
        with atomic_folder(target) as out:
            merged.save_pretrained(str(out))
            adapter.chat.save(out)
            write_about(out, adapter, self._players(role), named, card)
        return f"Its log-probabilities differ from the policy's by {difference:.2g} nats a token on average ({tokens})."

    def _adapter(self, role: str) -> TrainedAdapter:
        state = self._checkpoint["roles"][role]
        return TrainedAdapter(
            role,
            self._module.roles[role].adapter,
            state["adapter"],
            self._checkpoint["identity"][role],
            self._seats[role].chat,
            state["updates"],
        )

    def _players(self, role: str) -> dict[str, Seat]:
        return {name: self._seats[name] for name, owner in self._owners.items() if owner == role}

    def _provenance(self, role: str) -> Provenance:
        records = self._checkpoint["validation_results"]
        return Provenance(self._name, self._module.roles[role], self._task, records)

    def _load(self, role: str, quantization: Quantization) -> Base:
        name = self._module.roles[role].base_model
        return load_base(
            name,
            quantization=quantization,
            compute_dtype=self._module.compute_dtype,
            device="cuda" if torch.cuda.is_available() else "cpu",
            context=longest_row(self._module.roles, name),
        )

    def _expected(self, role: str, folder: Path, rows: Sequence[Row]) -> Tensor:
        """Log-probabilities of the policy: of the base and the adapter in a folder, as in training."""
        config = self._module.roles[role]
        start = replace(config.adapter, path=str(folder))
        policy = Policy(role, replace(config, adapter=start), self._load(role, self._module.quantization), seed=0)
        saved = {role: self._checkpoint["identity"][role]}
        refuse_other(saved, {role: policy.identity}, source=str(self._source))
        return logprobs(policy, rows)

    def _rows(self, role: str) -> tuple[list[Row], str]:
        """Rows on which a merged model is measured, and what they are.

        These are the sampled tokens of the last trajectories in the journal. Without any, they are the prompts of the
        task's questions.
        """
        players = self._players(role)
        for step, paths in sorted(training_files(self._journal).items(), reverse=True):
            groups = (group for path in paths for group in read_groups(path))
            played = (t for group in groups for one in group.rollouts for t in one.trajectories() if t.role in players)
            found = (row for t in played for row in TrainingRow.of(t, advantage=0.0, coefficient=0.0))
            if rows := [(row.ids, row.mask) for row in islice(found, ROWS)]:
                return rows, f"{int(sum(mask.sum() for _, mask in rows))} sampled tokens of step {step}"
        questions = self._task.questions("validation")[:ROWS] or self._task.questions("train")[:ROWS]
        prompts = [torch.tensor(self._seats[role].prompt(question.text)[0]) for question in questions]
        rows = [(ids, torch.arange(len(ids)) > 0) for ids in prompts]
        return rows, f"{int(sum(mask.sum() for _, mask in rows))} tokens of prompts, as the journal has no trajectory"


def _chat(config: RoleConfig) -> Chat:
    name = config.base_model
    return Chat(load_tokenizer(name), config.chat_template, eos_ids=load_eos_ids(name))


def refuse_foreign(folder: Path, mark: str) -> None:
    """Refuse to replace a folder that is not an earlier export.

    Args:
        folder: The folder to write.
        mark: Name of a file that every export has.

    Raises:
        ConfigurationError: The folder has files, and not this one.
    """
    if folder.exists() and not (folder.is_dir() and (not any(folder.iterdir()) or (folder / mark).is_file())):
        raise ConfigurationError(
            f"{folder} exists and is not an earlier export: it has no {mark}.", hint="give another --out."
        )


def write_exported_base(name: str, target: Path, *, quantization: Quantization, compute_dtype: str) -> None:
    """Write a base into a folder; see ``write_base``.

    Args:
        target: The folder; an earlier export is replaced.

    Raises:
        ConfigurationError: ``target`` holds something else, or the base cannot be loaded.
    """
    refuse_foreign(target, ORIGIN_NAME)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    with atomic_folder(target) as folder:
        write_base(name, folder, quantization=quantization, compute_dtype=compute_dtype, device=device)


def refuse_local(base: NamedBase) -> None:
    """Refuse to upload an adapter whose base is a folder of this machine.

    Raises:
        ConfigurationError: The base has no hub name.
    """
    if not base.on_hub:
        raise ConfigurationError(
            f"the adapter would name its base by a folder of this machine: {base.path}.",
            hint="upload a base that `mgrpo export-base` wrote and give its hub name as --base, or use --merge.",
        )


def push(folders: Mapping[str, Path], repository: str) -> dict[str, str]:
    """Upload exported folders to the hub, each into a repository of its own. A new repository is private.

    Args:
        folders: Folders by role.
        repository: Start of the repositories' names, such as ``me/team``; a hyphen and the role follow.

    Returns:
        Addresses by role.

    Raises:
        MgrpoError: The hub refused it, or was not reached.
    """
    api, found = HfApi(), {}
    for role, folder in folders.items():
        name = f"{repository}-{role}"
        try:
            url = api.create_repo(name, private=True, exist_ok=True)
            api.upload_folder(repo_id=url.repo_id, folder_path=folder, commit_message="Export of mgrpo_lightning")
        # The hub's errors are subclasses of these.
        except (OSError, ValueError, httpx2.HTTPError) as error:
            raise MgrpoError(
                f"{folder} was not uploaded to {name}: {str(error).strip().partition(chr(10))[0]}",
                hint="log in with `hf auth login`, and give OWNER/NAME as --push.",
            ) from error
        found[role] = str(url)
    return found
