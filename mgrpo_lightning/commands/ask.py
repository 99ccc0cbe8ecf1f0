"""``mgrpo ask RUN [QUESTION ...]``: ask a trained team; it is loaded once, and questions are played together."""

from __future__ import annotations

import argparse
import json
import logging
import sys
import threading
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future
from pathlib import Path
from queue import Queue

from transformers.utils.logging import disable_progress_bar

from mgrpo_lightning.errors import ConfigurationError, DataError
from mgrpo_lightning.serving.chat_format import details
from mgrpo_lightning.team import Answered, Team

TOGETHER = 64
"""Questions in play at a time."""


def main(args: Sequence[str]) -> None:
    """Run ``mgrpo ask``.

    Args:
        args: Command line after ``mgrpo ask``.

    Raises:
        MgrpoError: The run or the file of questions cannot be used.
    """
    parser = argparse.ArgumentParser("mgrpo ask", description=__doc__)
    parser.add_argument("run", type=Path, help="run folder, or a team file")
    parser.add_argument("question", nargs="*", help="questions; without any, one a line from --file or standard input")
    parser.add_argument("--file", type=Path, help="file with one question a line, as text or JSON with a `question`")
    parser.add_argument("--ckpt_path", default="last", help="checkpoint of the adapters; default: last")
    parser.add_argument("--temperature", type=float, help="sampling temperature; default: that of the validation")
    shown = parser.add_mutually_exclusive_group()
    shown.add_argument(
        "--json", action="store_true", help="print one JSON object a line, in the order of the questions"
    )
    shown.add_argument("--tree", action="store_true", help="print all turns, calls and results")
    arguments = parser.parse_args(args)
    if arguments.question and arguments.file:
        parser.error("give questions or --file, not both")
    if arguments.temperature is not None and not 0 <= arguments.temperature <= 10:
        raise ConfigurationError(
            f"--temperature is {arguments.temperature:g}.", hint="give a number from 0 (greedy) to 10."
        )
    with load_team(arguments.run, arguments.ckpt_path) as team:
        for question, rollout in _answers(team, _questions(arguments.question, arguments.file), arguments.temperature):
            if arguments.json:
                line = {"question": question, "answer": rollout.answer, **details(rollout)}
                print(json.dumps(line, ensure_ascii=False), flush=True)
            else:
                print(rollout.tree if arguments.tree else _shown(rollout), flush=True)


def load_team(place: Path, checkpoint: str = "last") -> Team:
    """The team of a run folder or of a team file.

    Args:
        place: The folder or file.
        checkpoint: Checkpoint of the adapters of a run; see ``Team.from_run``.

    Raises:
        MgrpoError: It cannot be used.
    """
    logging.getLogger("lightning").setLevel(logging.WARNING)  # at INFO it says that there is no GPU
    disable_progress_bar()  # of loading weights
    return Team.from_file(place) if place.is_file() else Team.from_run(place, checkpoint=checkpoint)


def _questions(given: Sequence[str], file: Path | None) -> Iterator[str]:
    if given:
        yield from given
    elif file is not None:
        try:
            lines = file.read_text(encoding="utf-8").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            raise DataError(
                f"{file} cannot be read: {error}.", hint="give a text file with one question a line."
            ) from error
        yield from _lines(lines, str(file))
    else:
        if sys.stdin.isatty():
            print("one question a line; Ctrl-D ends", file=sys.stderr)
        yield from _lines(sys.stdin, "standard input")


def _lines(lines: Iterable[str], source: str) -> Iterator[str]:
    """The questions of lines of text, or of JSON objects with a ``question``."""
    for number, line in enumerate(lines, 1):
        text = line.strip()
        if text.startswith("{"):
            try:
                found = json.loads(text)["question"]
            except (ValueError, KeyError) as error:
                raise DataError(
                    f"line {number} of {source} is no JSON object with a `question`: {error}.",
                    hint='write {"question": "..."}, or the question as plain text.',
                ) from error
            text = str(found)
        if text:
            yield text


def _answers(team: Team, questions: Iterable[str], temperature: float | None) -> Iterator[tuple[str, Answered]]:
    """The rollouts in the order of the questions, each as soon as it and those before it are there."""
    playing: Queue[tuple[str, Future[Answered]] | BaseException | None] = Queue(TOGETHER)

    def read() -> None:
        # In a thread: who waits for an answer before the next line is written must get it.
        try:
            for question in questions:
                playing.put((question, team.submit(question, temperature=temperature)))
            playing.put(None)
        except BaseException as error:
            playing.put(error)

    threading.Thread(target=read, name="questions", daemon=True).start()
    while (one := playing.get()) is not None:
        if isinstance(one, BaseException):
            raise one
        text, future = one
        yield text, future.result()


def _shown(rollout: Answered) -> str:
    if rollout.answer is not None:
        return rollout.answer
    return f"(no answer: {', '.join(rollout.main.violations) or 'the team gave none'})"
