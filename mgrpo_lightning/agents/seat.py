"""Seat: everything that one role needs to play, whatever the question; and how much context a turn needs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

from mgrpo_lightning.protocol.actions import TAG, Dialect
from mgrpo_lightning.protocol.prompts import NOTICE, Signature, signatures, system_prompt
from mgrpo_lightning.records.trajectory import Message
from mgrpo_lightning.roles.config import RoleConfig
from mgrpo_lightning.tools.base import Tool

if TYPE_CHECKING:
    from mgrpo_lightning.policy.chat import Chat

KEPT = 65_536
"""Characters of a tool's result that are kept, and ``KEPT_A_TOKEN`` more for each token of ``limits.observation``."""
KEPT_A_TOKEN = 64


@dataclass(frozen=True)
class Seat:
    """One role, ready to play.

    The last turn of a trajectory is announced: the text before it ends with ``NOTICE``, and only an answer is legal
    in it. A turn is the last one when the turns or calls are used up, or when after another turn with a call there
    would not be room for the notice and a whole answering turn. So a legal ending always fits.
    """

    role: str
    config: RoleConfig
    chat: Chat
    tools: Mapping[str, Tool]
    """By the name in a call."""
    callees: Mapping[str, RoleConfig]
    """Roles it may delegate to."""
    dialect: Dialect
    equals: Sequence[str] = ()
    """Roles with whom it discusses."""

    @cached_property
    def offers(self) -> list[Signature]:
        """What it may call."""
        return signatures(self.callees, self.tools.values())

    @cached_property
    def system(self) -> str:
        """Its system prompt."""
        return system_prompt(self.role, self.config, self.offers, self.equals)

    @cached_property
    def control_ids(self) -> frozenset[int]:
        """Tokens that no turn may hold before its end: the tokenizer's special ones that are none of the protocol's."""
        return frozenset(index for text, index in self.chat.specials.items() if not TAG.fullmatch(text))

    @cached_property
    def notice_tokens(self) -> int:
        """Length of the shortest observation before a last turn, however the turn before ended."""
        return len(self.chat.observe([NOTICE], after_cut=self.chat.stop_ids != (self.chat.end_id,)))

    @property
    def kept(self) -> int:
        """Characters of a result that memory and journal hold; an observation shows fewer of any usual text."""
        return KEPT + KEPT_A_TOKEN * self.config.limits.observation

    def prompt(self, task: str) -> tuple[list[int], list[Message]]:
        """Ids and messages that open a trajectory.

        Args:
            task: The question or subtask.
        """
        ids = self.chat.open(self.system, task)
        if self.offers and self.is_last(turns=0, calls=0, length=len(ids)):
            task = f"{task}\n{NOTICE}"
            ids = self.chat.open(self.system, task)
        return ids, [Message("system", self.system), Message("user", task)]

    def is_last(self, *, turns: int, calls: int, length: int) -> bool:
        """Whether only an answer is legal in the next turn.

        Args:
            turns: Turns sampled so far.
            calls: Calls made so far.
            length: Tokens of the trajectory, the observation before the next turn included.
        """
        limits = self.config.limits
        spent = turns + 1 >= limits.turns or calls >= limits.calls
        return spent or not self.offers or length + 2 * limits.new_tokens + self.notice_tokens > limits.context

    def cut(self, results: Sequence[str]) -> list[str]:
        """Cut each result to the observation limit.

        Args:
            results: Texts of tools, reports and errors.
        """
        return [self.chat.cut(result, self.config.limits.observation) for result in results]

    def cut_with_notice(self, results: Sequence[str], *, room: int, after_cut: bool) -> list[str]:
        """Cut results further, until they and the notice fit; the bare notice if nothing else does.

        Args:
            results: Texts of tools, reports and errors.
            room: Tokens that the whole observation may have; at least ``notice_tokens``.
            after_cut: Whether the turn lacks the template's end; see ``Chat.observe``.
        """
        assert room >= self.notice_tokens, f"no room was kept for the notice: {room} tokens"
        budget = self.config.limits.observation
        while budget > 0:
            contents = [self.chat.cut(result, budget) for result in results]
            contents[-1] = f"{contents[-1]}\n{NOTICE}"
            excess = len(self.chat.observe(contents, after_cut=after_cut)) - room
            if excess <= 0:
                return contents
            budget -= -(-excess // len(contents))
        return [NOTICE]
