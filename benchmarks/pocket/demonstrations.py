"""Play the demonstrator through real agents and tools; keep transcripts, and encode them with a loss mask.

They are the last phase of the pretraining (every role, on training countries only), retold with other names most of the
time (`fiction.py`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from jsonargparse import ArgumentParser

from benchmarks.pocket.pretraining import Document
from mgrpo_lightning.agents.play import PlayRequest
from mgrpo_lightning.agents.players import Players
from mgrpo_lightning.commands.config_files import composed
from mgrpo_lightning.policy.chat import Chat
from mgrpo_lightning.policy.sampling.scheduler import Scheduler
from mgrpo_lightning.records.question import Question
from mgrpo_lightning.roles.config import RoleConfig
from mgrpo_lightning.roles.team_file import roles_of
from mgrpo_lightning.tasks.base import Task

TEAM, SINGLE = "quickstart.yaml", "arms/single_agent.yaml"
"""Packaged configs of the team, and of the one agent with all tools, that the pocket model is made for."""


def packaged_roles(config: str) -> dict[str, RoleConfig]:
    """The roles of a packaged team file; their system prompts are what a transcript's role is.

    Args:
        config: Path below ``configs/``.
    """
    parser = ArgumentParser()
    parser.add_argument("--roles", type=dict[str, RoleConfig])
    parsed = parser.parse_object({"roles": roles_of(composed(["--config", f"pkg:{config}"]))})
    roles: dict[str, RoleConfig] = parser.instantiate(parsed).roles
    return roles


@dataclass(frozen=True)
class Transcript:
    """One demonstrated trajectory as text."""

    role: str
    """System prompt: ``main``, ``searcher`` or ``single``."""
    texts: tuple[str, ...]
    """The task, then turns and observations in alternation, ending with a turn."""
    names: tuple[str, ...]
    """What was asked for and about, on the whole gold path."""
    right: bool
    """The answer is the gold one of the question or of a hop."""


def play(
    task: Task,
    questions: Sequence[Question],
    chat: Chat,
    roles: Mapping[str, RoleConfig],
    *,
    rollouts: int = 1,
    seed: int = 0,
) -> list[Transcript]:
    """Let the task's demonstrator play every question, and keep each different trajectory once.

    Args:
        task: Its tools and scripts.
        questions: What main is asked.
        chat: Message format of all roles.
        roles: Who plays, from `packaged_roles`.
        rollouts: Plays of each question; more than one only matters where the demonstrator makes mistakes.
        seed: Of the scripts.
    """
    team = Players(roles, dict.fromkeys(roles, chat), {}, task.tools(), scheduler=Scheduler("rounds"), seed=seed)
    found: dict[Transcript, None] = {}
    for group in team.play(PlayRequest(questions, step=0, rollouts=rollouts, script=task.script)).groups:
        hops = group.question.evidence
        names = tuple(dict.fromkeys(name for hop in hops for name in (hop.subject, hop.value)))
        for rollout in group.rollouts:
            for trajectory in rollout.trajectories():
                golds = group.question.answers if trajectory.parent is None else [hop.value for hop in hops]
                texts = tuple(message.content for message in trajectory.messages[1:])
                role = str(roles[trajectory.role].system_prompt)
                found[Transcript(role, texts, names, trajectory.answer in golds)] = None
    return list(found)


def encode(transcript: Transcript, chat: Chat, texts: Sequence[str] | None = None) -> Document:
    """Token ids as the role's policy would see them; the loss counts the turns, stop tokens included.

    Args:
        transcript: Whose it is.
        chat: Message format.
        texts: Instead of its own, for instance retold ones.
    """
    task, *others = texts or transcript.texts
    ids = chat.open(transcript.role, task)
    mask = [False] * len(ids)
    for i, text in enumerate(others):
        piece = chat.observe([text], after_cut=False) if i % 2 else chat.encode_action(text)
        ids += piece
        mask += [i % 2 == 0] * len(piece)
    return Document(tuple(ids), tuple(mask))
