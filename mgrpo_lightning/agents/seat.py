"""Seat: one role's prompt, tools, callees and limits; decides which turn is the last; cuts results to token limits."""

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
"""Maximum characters stored of a tool result, plus ``KEPT_A_TOKEN`` for each token of ``limits.observation``."""
KEPT_A_TOKEN = 64


@dataclass(frozen=True)
class Seat:
    """One role, ready to play.

    The last turn of a trajectory is announced: the text before it ends with ``NOTICE``, and only an answer is legal
    in it. A turn is the last one if the budget of turns or calls is used up, or if another turn with a call would leave
    no room for the notice and a full answering turn. So there is always room for a legal ending.
    """

    role: str
    config: RoleConfig
    chat: Chat
    tools: Mapping[str, Tool]
    """Tools by the name that calls use."""
    callees: Mapping[str, RoleConfig]
    """Roles that it may delegate to, by name."""
    dialect: Dialect
    equals: Sequence[str] = ()
    """Names of the other roles in its discussion (horizontal teams)."""

    @cached_property
    def offers(self) -> list[Signature]:
        """Signatures of the roles and tools that it may call."""
        return signatures(self.callees, self.tools.values())

    @cached_property
    def system(self) -> str:
        """The text of its system prompt."""
        return system_prompt(self.role, self.config, self.offers, self.equals)

    @cached_property
    def control_ids(self) -> frozenset[int]:
        """Ids that a turn must not contain before its end: special tokens that are not tags of the protocol."""
        return frozenset(index for text, index in self.chat.specials.items() if not TAG.fullmatch(text))

    @cached_property
    def notice_tokens(self) -> int:
        """Upper bound on the tokens of the shortest observation before a last turn (the bare notice)."""
        # With several stop tokens, a turn may lack the template's own; the observation then contains it.
        return len(self.chat.observe([NOTICE], after_cut=self.chat.stop_ids != (self.chat.end_id,)))

    @property
    def kept(self) -> int:
        """Maximum characters of a result in memory and journal. Of ordinary text, an observation shows fewer."""
        return KEPT + KEPT_A_TOKEN * self.config.limits.observation

    def prompt(self, task: str) -> tuple[list[int], list[Message]]:
        """Token ids and messages of the prompt that opens a trajectory.

        Args:
            task: Text of the question or subtask.
        """
        ids = self.chat.open(self.system, task)
        if self.offers and self.is_last(turns=0, calls=0, length=len(ids)):
            task = f"{task}\n{NOTICE}"
            ids = self.chat.open(self.system, task)
        return ids, [Message("system", self.system), Message("user", task)]

    def is_last(self, *, turns: int, calls: int, length: int) -> bool:
        """Whether only an answer is legal in the next turn.

        Args:
            turns: Number of turns sampled so far.
            calls: Number of calls made so far.
            length: Tokens of the trajectory, including the observation before the next turn.
        """
        limits = self.config.limits
        spent = turns + 1 >= limits.turns or calls >= limits.calls
        # Two turns must fit: the next one with a call, and the answer after the notice.
        return spent or not self.offers or length + 2 * limits.new_tokens + self.notice_tokens > limits.context

    def cut(self, results: Sequence[str]) -> list[str]:
        """Cut each result to the observation limit of the role, in tokens."""
        return [self.chat.cut(result, self.config.limits.observation) for result in results]

    def cut_with_notice(self, results: Sequence[str], *, room: int, after_cut: bool) -> list[str]:
        """Cut results until they fit together with the notice; returns only the notice if no result fits.

        Args:
            results: Result texts of tools, reports and errors; at least one.
            room: Maximum tokens of the whole observation; at least ``notice_tokens``.
            after_cut: Whether the turn before lacks the template's end token; see ``Chat.observe``.
        """
        assert room >= self.notice_tokens, f"no room was kept for the notice: {room} tokens"
        budget = self.config.limits.observation
        while budget > 0:
            contents = [self.chat.cut(result, budget) for result in results]
            contents[-1] = f"{contents[-1]}\n{NOTICE}"
            excess = len(self.chat.observe(contents, after_cut=after_cut)) - room
            if excess <= 0:
                return contents
            # Ceiling division, so the budget shrinks in every pass.
            budget -= -(-excess // len(contents))
        return [NOTICE]
