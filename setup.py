"""What pyproject.toml cannot say: the README as package indexes show it.

There the files beside it are missing. Pictures are left out, and links into the repository become plain text.
"""

from __future__ import annotations

import re
from pathlib import Path

from setuptools import setup

text = (Path(__file__).parent / "README.md").read_text(encoding="utf-8")
text = re.sub(r"^!\[[^\]]*\]\((?!https?:)[^)]*\)\n+", "", text, flags=re.MULTILINE)
text = re.sub(r"\[([^\]]+)\]\((?!https?:|#)[^)]*\)", r"\1", text)

setup(long_description=text, long_description_content_type="text/markdown")
