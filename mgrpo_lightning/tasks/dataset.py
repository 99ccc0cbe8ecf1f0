"""DatasetTask: a task from a data set that the package ``datasets`` loads: a name on the hub, a folder or a file."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, get_args

from mgrpo_lightning.errors import ConfigurationError, DataError
from mgrpo_lightning.records.question import Question, Split
from mgrpo_lightning.tasks.judge import Judge
from mgrpo_lightning.tasks.rows import Columns, Row, RowsTask, questions_of
from mgrpo_lightning.tools.sets import ToolSet

SPLITS: tuple[Split, ...] = get_args(Split)


class DatasetTask(RowsTask):
    """Questions from a data set on the hub or on disk, scored like those of ``JsonlTask``.

    Code of a data set never runs. A column may be inside of another one: ``answer: answers.text``.

    Args:
        path: Name on the hub (``owner/name``), a folder, or one file of rows (Parquet, CSV, JSON, ...).
        name: Configuration of the data set, if it has several.
        split: Splits of the data set for ``train``, ``validation`` and ``test``, also slices such as ``train[:1000]``.
            None: the splits of these names that it has.
        question: Column of the question: text, or a list of chat messages, of which the last user message is the
            question; system text and earlier messages stand above it.
        answer: Column of the accepted answer, or of a list of accepted answers; numbers are converted to text.
        id: Column of unique ids; None: the numbers of the rows.
        level: Column of the level, by which result tables are split; None: there are no levels.
        tools: Dotted paths of functions, or sets of tools; roles call them by their bare names.
        judge: Judge of answers that do not match exactly; None: such answers are wrong.
        expert: Judge of sub-agents' reports; None: their expert reward is 0.
        table_by: More columns by which result tables are split.

    Raises:
        ConfigurationError: The package ``datasets`` is missing, a key of ``split`` is unknown, a tool does not exist,
            or two tools have the same name.
        DataError: The data set cannot be loaded, has no such split or column, or a row has a wrong value.
    """

    def __init__(
        self,
        path: str,
        name: str | None = None,
        split: dict[str, str] | None = None,
        question: str = "question",
        answer: str = "answer",
        id: str | None = None,
        level: str | None = None,
        tools: Sequence[str | ToolSet] = (),
        judge: Judge | None = None,
        expert: Judge | None = None,
        table_by: Sequence[str] = (),
    ) -> None:
        columns = Columns(question, answer, id, level)
        questions = {
            key: self._read(f"{path}, split {key}", rows, columns, table_by)
            for key, rows in _splits(path, name, split).items()
        }
        super().__init__(questions, tools, judge, expert, table_by)

    def row(self, row: Mapping[str, Any]) -> Mapping[str, Any]:
        """Return a row as it is read. A subclass may change values, or make columns from others.

        Args:
            row: Values of the data set by column.
        """
        return row

    def _read(self, place: str, rows: Any, columns: Columns, table_by: Sequence[str]) -> list[Question]:
        wanted = [one for one in (columns.question, columns.answer, columns.id, columns.level, *table_by) if one]
        if type(self).row is DatasetTask.row:
            # Other columns, such as images, are not even decoded.
            rows = rows.select_columns(_roots(place, wanted, rows.column_names))

        def read() -> Iterator[Row]:
            for number, values in enumerate(rows, start=1):
                row = self.row(values)
                _roots(place, wanted, row)
                yield Row(row, f"row {number}", partial(_bad, place, number))

        return questions_of(read(), columns, table_by)


def _splits(path: str, name: str | None, split: Mapping[str, str] | None) -> dict[Split, Any]:
    """Load the rows of each split."""
    if unknown := sorted({*(split or {})} - {*SPLITS}):
        raise ConfigurationError(
            f"split of {path} has the key {unknown[0]!r}.", hint=f"its keys are {', '.join(SPLITS)}."
        )
    if split is not None:
        return {key: _load(path, name, split[key]) for key in SPLITS if key in split}
    found = _load(path, name, None)
    if "train" not in found:
        raise DataError(
            f"{path} has no split 'train', but {sorted(found)}.", hint="name its splits: split: {train: NAME}."
        )
    return {key: found[key] for key in SPLITS if key in found}


def _load(path: str, name: str | None, split: str | None) -> Any:
    try:
        import datasets
    except ImportError as error:
        raise ConfigurationError(
            f"DatasetTask reads {path} with the package datasets, which is not installed.",
            hint="run pip install 'mgrpo-lightning[datasets]'.",
        ) from error
    file = Path(path)
    # datasets takes a folder with names of files in it, and tells their format by their endings.
    source = {"path": str(file.parent), "data_files": file.name} if file.is_file() else {"path": path}
    try:
        return datasets.load_dataset(**source, name=name, split=split)
    except Exception as error:  # its errors have no common class
        reasons = [" ".join(str(one).split()).rstrip(".") for one in (error, error.__cause__) if one is not None]
        raise DataError(
            f"{path} cannot be loaded{f' (split {split})' if split else ''}: {'; '.join(filter(None, reasons))}.",
            hint="give the name of a data set on the hub, a folder or a file; name and split must be its own.",
        ) from error


def _roots(place: str, wanted: Sequence[str], columns: Collection[str]) -> list[str]:
    """Return the columns that hold the wanted values; of ``a.b`` it is ``a``, unless there is a column ``a.b``."""
    roots = {one if one in columns else one.partition(".")[0] for one in wanted}
    if missing := sorted(roots.difference(columns)):
        raise DataError(
            f"{place} has no column {missing[0]!r}, but {sorted(columns)}.",
            hint="name its columns: question, answer, and if wanted id, level and table_by.",
        )
    return sorted(roots)


def _bad(place: str, number: int, column: str | None, problem: str) -> DataError:
    return DataError(
        f"{place}, row {number}: {problem}.", hint="name another column, or change the values in a subclass (`row`)."
    )
