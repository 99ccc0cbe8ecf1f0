"""Tasks: questions with answers, the tools to work on them, and the scoring of answers."""

from mgrpo_lightning.records.question import Evidence, Question, Split
from mgrpo_lightning.tasks.base import Script, Task
from mgrpo_lightning.tasks.dataset import DatasetTask
from mgrpo_lightning.tasks.factbook.task import Factbook
from mgrpo_lightning.tasks.jsonl import JsonlTask
from mgrpo_lightning.tasks.judge import Judge

__all__ = ["DatasetTask", "Evidence", "Factbook", "JsonlTask", "Judge", "Question", "Script", "Split", "Task"]
