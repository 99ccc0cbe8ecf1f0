"""The Factbook task: pages of the CIA World Factbook, search, and multi-hop questions with one exact answer each."""

from mgrpo_lightning.tasks.factbook.task import Factbook, held_out

__all__ = ["Factbook", "held_out"]
