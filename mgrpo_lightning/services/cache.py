"""JsonCache: a disk cache of judge verdicts, searches and pages, a JSON file an entry, shared by processes."""

from __future__ import annotations

import json
from collections.abc import Callable
from hashlib import blake2b
from pathlib import Path
from typing import Any, TypeVar

from mgrpo_lightning.errors import ConfigurationError, MgrpoError
from mgrpo_lightning.persistence.atomic import atomic_path
from mgrpo_lightning.services.reading import UNREADABLE, parse_json

T = TypeVar("T")


def entry_name(key: str) -> str:
    """The name of a cache entry: a hash, because a key may contain slashes and be longer than a file name.

    Args:
        key: Everything that the value depends on, as text.
    """
    return blake2b(key.encode(), digest_size=16).hexdigest()


class JsonCache:
    """A folder of JSON values by name.

    Processes may use one folder at the same time. Each write replaces a whole file, and the last write counts.

    Args:
        folder: The folder, which the first ``put`` creates; None keeps nothing.
    """

    def __init__(self, folder: str | Path | None) -> None:
        # Absolute, so that a later change of the working directory does not move the cache.
        self._folder = None if folder is None else Path(folder).absolute()

    def get(self, name: str, read: Callable[[Any], T]) -> T | None:
        """The value of an entry; None if there is none, or if its file is damaged.

        Args:
            read: Converts the JSON. If it raises one of ``UNREADABLE``, the file counts as damaged.
        """
        if self._folder is None:
            return None
        try:
            return read(parse_json((self._folder / f"{name}.json").read_bytes()))
        except (OSError, *UNREADABLE):
            return None

    def put(self, name: str, value: object) -> None:
        """Write an entry.

        Args:
            value: Anything that JSON can hold.

        Raises:
            ConfigurationError: The cache cannot be written.
        """
        if self._folder is None:
            return
        # "surrogatepass": the text of a service may hold half of a surrogate pair, which UTF-8 forbids.
        content = json.dumps(value, ensure_ascii=False).encode("utf-8", "surrogatepass")
        try:
            with atomic_path(self._folder / f"{name}.json") as temporary:
                temporary.write_bytes(content)
        except (OSError, MgrpoError) as error:
            # A tool reports an OSError to the policy as its own failure, but the user must correct the setting.
            problem = error.strerror or error if isinstance(error, OSError) else error
            raise ConfigurationError(
                f"the cache {self._folder} cannot be written: {problem}.",
                hint="give another folder as `cache`, or leave it out.",
            ) from error
