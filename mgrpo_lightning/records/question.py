"""Question and Evidence: text, accepted answers, level and gold path; whether answers are known or text encrypted."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from mgrpo_lightning.errors import DataError

Split = Literal["train", "validation", "test"]


@dataclass(frozen=True)
class Evidence:
    """One hop of a question's gold path: where the fact is stated, and the fact."""

    url: str
    section: str
    value: str
    subject: str = ""
    relation: str = ""


UNKNOWN = "?"
"""Placeholder for a gold answer that only the authors or their leaderboard know, as in the rows of GAIA's test
split."""


@dataclass(frozen=True)
class Question:
    """A question with one right answer."""

    id: str
    text: str
    answers: tuple[str, ...]
    """Accepted answers; the first one is canonical."""
    level: str = ""
    """Key that splits the result tables, for instance the number of hops."""
    evidence: tuple[Evidence, ...] = ()
    metadata: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        # A plain string would be read as a list of its letters, each an accepted answer.
        answers: object = self.answers
        if isinstance(answers, str):
            raise DataError(
                f"question {self.id!r} has the answers {answers!r}.", hint='give a tuple of text, such as ("Paris",).'
            )

    @property
    def encrypted(self) -> bool:
        """Whether the text is encrypted at its source and must not leave the machine (metadata ``encrypted``).

        The run's journal contains the text, logs do not.
        """
        # Journals of earlier versions have the key ``sealed``; their text must not leave the machine either.
        return "encrypted" in self.metadata or "sealed" in self.metadata

    @property
    def known(self) -> bool:
        """Whether the accepted answers are known."""
        return self.answers != (UNKNOWN,)
