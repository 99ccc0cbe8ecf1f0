"""Question: what a team is asked, what is right, and where that stands."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from mgrpo_lightning.errors import DataError

Split = Literal["train", "validation", "test"]


@dataclass(frozen=True)
class Evidence:
    """One hop of a question's gold path: where the fact stands and what it says."""

    url: str
    section: str
    value: str
    subject: str = ""
    relation: str = ""


UNKNOWN = "?"
"""The gold answer where only the authors, or their leaderboard, know it; GAIA's test split has it in its rows."""


@dataclass(frozen=True)
class Question:
    """A question with one right answer."""

    id: str
    text: str
    answers: tuple[str, ...]
    """Accepted answers; the first one is canonical."""
    level: str = ""
    """What tables are split by, for instance the number of hops."""
    evidence: tuple[Evidence, ...] = ()
    metadata: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        # A text alone would be taken for the list of its letters, each of them a right answer.
        answers: object = self.answers
        if isinstance(answers, str):
            raise DataError(
                f"question {self.id!r} has the answers {answers!r}.", hint='give a tuple, such as ("Paris",).'
            )

    @property
    def sealed(self) -> bool:
        """Whether its text must not leave the machine (metadata ``sealed``): the run's journal has it, and no log."""
        return "sealed" in self.metadata

    @property
    def known(self) -> bool:
        """Whether anybody here knows what is right."""
        return self.answers != (UNKNOWN,)
