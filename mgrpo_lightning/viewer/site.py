"""Site: the viewer's data as scripts (index, state, search, a query's rollouts), cached until files change."""

from __future__ import annotations

import json
import math
from collections import OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from hashlib import blake2b
from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Any

from mgrpo_lightning.errors import DataError
from mgrpo_lightning.records.ratios import read_ratios, read_steps
from mgrpo_lightning.records.trajectory import Group, Key
from mgrpo_lightning.viewer.detail import Decoders, group_data, read_play
from mgrpo_lightning.viewer.index import Index
from mgrpo_lightning.viewer.journal_rows import Damaged, Row, read_rows
from mgrpo_lightning.viewer.scalars import Curves, phase_curves
from mgrpo_lightning.viewer.search import search
from mgrpo_lightning.viewer.sources import Play, Source
from mgrpo_lightning.viewer.tokens import decoder_of

KEPT = 8
"""Number of plays with groups in memory; the least recently used play is dropped first."""
Stamps = tuple[tuple[str, int, int], ...]
"""(path, modification time in ns, size in bytes) of files. Cached data is valid while the stamps stay equal."""


class Site:
    """All data that the page of some runs can request; it caches what it has read.

    Args:
        sources: The runs to show.
        live: Whether the page polls for new steps.
    """

    def __init__(self, sources: Sequence[Source], *, live: bool) -> None:
        self._sources = sources
        self._live = live
        self._rows: dict[tuple[int, Play], tuple[Stamps, list[Row]]] = {}
        self._groups: OrderedDict[tuple[int, str], tuple[Stamps, dict[int, Group], dict[Key, Row]]] = OrderedDict()
        self._curves: dict[int, tuple[Stamps, Curves]] = {}
        self._steps: dict[Path, tuple[Stamps, set[int]]] = {}
        self._damaged: dict[tuple[int, Path], tuple[Stamps, str]] = {}
        self._decoders: list[Decoders | None] = [None] * len(sources)

    def version(self) -> str:
        """Return a hash that changes when a file of a journal, its ratios, or TensorBoard's log changes."""
        stamps = []
        for source in self._sources:
            stamps += [_stamps(paths) for paths in source.files().values()]
            stamps += [_stamps(source.ratios()), _stamps(source.scalars())]
        return blake2b(repr(stamps).encode(), digest_size=8).hexdigest()

    def state(self) -> str:
        """Return a script with the current version."""
        return _script("state", {"version": self.version()})

    def index(self) -> str:
        """Return a script with all rollouts, curves and tables; unchanged files are not read again."""
        version = self.version()  # before reading: if a file changes meanwhile, the page sees a new version and reloads
        index = Index([(source.name, source.weighed) for source in self._sources])
        for number, source in enumerate(self._sources):
            for play, paths in source.files().items():
                index.add(number, play, self._read(number, play, paths))
            for name, points in self._scalars(number).items():
                index.add_curve(number, name, points)
            for path in source.ratios():
                self._steps_of(number, path)
            for problem in (*source.problems, *self._problems(number)):
                index.add_problem(number, problem)
        return _script("index", {**index.data(), "live": self._live, "version": version})

    def group(self, run: int, slug: str, query: int) -> str | None:
        """Return a script with one query's rollouts, or with the problem if they cannot be read.

        Args:
            run: Index of the run.
            slug: Slug of the play.
            query: Index of the query in its step.

        Returns:
            The script, or None if there is no such query.
        """
        found = self._play(run, slug)
        if found is None:
            return None
        groups, extras = found
        if query not in groups:
            problems = self._problems(run, slug)
            return _script(f"{run}/{slug}/{query}", {"problem": " ".join(problems)}) if problems else None
        ratios = self._ratios(run, groups[query].rollouts[0].main.key.step) if slug.startswith("step-") else {}
        shown = group_data(groups[query], extras, self._decoders_of(run), ratios, self._sources[run].weighed)
        return _script(f"{run}/{slug}/{query}", shown)

    def search(self, number: int, text: str) -> str:
        """Return a script with (run, slug, query, rollout index) of all rollouts that contain a text.

        Args:
            number: Number of this search, so that the page can match the reply.
            text: Text to search for; case does not matter.
        """
        found = [
            (run, play.slug, query, rollout)
            for run, source in enumerate(self._sources)
            for play, paths in source.files().items()
            for query, rollout in sorted(search(paths, text))
        ]
        return _script(f"search/{number}", {"found": found})

    def is_encrypted(self, run: int, slug: str, query: int) -> bool:
        """Whether a query belongs to an encrypted benchmark, whose text must not be published.

        Args:
            run: Index of the run.
            slug: Slug of the play.
            query: Index of the query in its step.
        """
        found = self._play(run, slug)
        return found is not None and query in found[0] and found[0][query].question.encrypted

    def places(self) -> Iterator[tuple[int, str, int]]:
        """Yield (run, slug, query) of all queries."""
        for run, source in enumerate(self._sources):
            for play in source.files():
                found = self._play(run, play.slug)
                yield from ((run, play.slug, query) for query in (found[0] if found else ()))

    def _read(self, run: int, play: Play, paths: Sequence[Path]) -> list[Row]:
        stamps = _stamps(paths)
        known = self._rows.get((run, play))
        if known is None or known[0] != stamps:
            known = self._rows[run, play] = (stamps, read_rows(paths, self._damaged_of(run)))
        return known[1]

    def _scalars(self, run: int) -> Curves:
        stamps = _stamps(self._sources[run].scalars())
        known = self._curves.get(run)
        if known is None or known[0] != stamps:
            known = self._curves[run] = (stamps, phase_curves(self._sources[run].tensorboards(), self._damaged_of(run)))
        return known[1]

    def _play(self, run: int, slug: str) -> tuple[dict[int, Group], dict[Key, Row]] | None:
        if not 0 <= run < len(self._sources):
            return None
        named = {play.slug: (play, paths) for play, paths in self._sources[run].files().items()}
        if slug not in named:
            return None
        play, paths = named[slug]
        stamps = _stamps(paths)
        known = self._groups.pop((run, slug), None)
        if known is None or known[0] != stamps:
            groups = {group.rollouts[0].main.key.query: group for group in read_play(paths, self._damaged_of(run))}
            extras = {Key(*(row[name] for name in Key._fields)): row for row in self._read(run, play, paths)}
            known = (stamps, groups, extras)
        self._groups[run, slug] = known
        while len(self._groups) > KEPT:
            self._groups.popitem(last=False)
        return known[1:]

    def _ratios(self, run: int, step: int) -> dict[Key, list[float]]:
        """Return the log ratios of one step's tokens. A role with lag trains on them later, so look in all files."""
        found: dict[Key, list[float]] = {}
        for path in self._sources[run].ratios():
            if step in self._steps_of(run, path):
                with self._telling(run, path):
                    found |= read_ratios(path, step)
        return found

    def _steps_of(self, run: int, path: Path) -> set[int]:
        """Return the steps whose tokens a file of log ratios covers; empty if the file is damaged."""
        stamps = _stamps([path])
        if self._steps.get(path, ((), set[int]()))[0] != stamps:
            self._steps[path] = (stamps, set())  # stored first: a damaged file is not read again until it changes
            with self._telling(run, path):
                self._steps[path] = (stamps, read_steps(path))
        return self._steps[path][1]

    @contextmanager
    def _telling(self, run: int, path: Path) -> Iterator[None]:
        try:
            yield
        except DataError as error:
            self._damaged_of(run)(path, error.message)

    def _damaged_of(self, run: int) -> Damaged:
        def damaged(path: Path, problem: str) -> None:
            if stamps := _stamps([path]):  # empty: the file has just been removed, so there is nothing to report
                self._damaged[run, path] = (stamps, problem)

        return damaged

    def _problems(self, run: int, slug: str | None = None) -> list[str]:
        """Return the problems of files read so far that have not changed since; of all plays, or of one."""
        plays = {path: play.slug for play, paths in self._sources[run].files().items() for path in paths}
        return [
            problem
            for (number, path), (stamps, problem) in sorted(self._damaged.items())
            if number == run and stamps == _stamps([path]) and slug in (None, plays.get(path))
        ]

    def _decoders_of(self, run: int) -> Decoders:
        found = self._decoders[run]
        if found is None:
            bases = {role: block.get("base_model") for role, block in self._sources[run].roles.items()}
            loaded = {base: decoder_of(base) for base in set(bases.values())}
            found = self._decoders[run] = {role: loaded[base] for role, base in bases.items()}
        return found


def static() -> Traversable:
    """Return the package's folder of static files: HTML, CSS and JavaScript."""
    return files("mgrpo_lightning.viewer") / "static"


def _stamps(paths: Sequence[Path]) -> Stamps:
    found = []
    for path in paths:
        try:
            stat = path.stat()
        except OSError:  # the file was removed after the folder was listed
            continue
        found.append((str(path), stat.st_mtime_ns, stat.st_size))
    return tuple(found)


def _script(name: str, value: Mapping[str, Any]) -> str:
    """Return a script that calls the page's function ``mgrpo.receive`` with a value as JSON.

    The script is pure ASCII, and ``<`` is escaped, so no text of a rollout can end the script element.
    """
    try:
        text = json.dumps(value, separators=(",", ":"), allow_nan=False)
    except ValueError:  # a run that diverged has metrics that are NaN or infinite, which JSON does not allow
        text = json.dumps(_finite(value), separators=(",", ":"), allow_nan=False)
    text = text.replace("<", "\\u003c")
    return f"mgrpo.receive({json.dumps(name)},{text});\n"


def _finite(value: Any) -> Any:
    """Replace NaN and infinities in a nested value by None."""
    if isinstance(value, Mapping):
        return {key: _finite(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(entry) for entry in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
