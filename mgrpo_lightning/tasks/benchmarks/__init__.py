"""Public data sets as tasks (GAIA, BrowseComp, HotpotQA, MuSiQue, WebWalkerQA, xbench), with official scoring."""

from mgrpo_lightning.tasks.benchmarks.browsecomp import BrowseComp
from mgrpo_lightning.tasks.benchmarks.gaia import Gaia
from mgrpo_lightning.tasks.benchmarks.hotpot import HotpotQA
from mgrpo_lightning.tasks.benchmarks.musique import MuSiQue
from mgrpo_lightning.tasks.benchmarks.webwalker import WebWalkerQA
from mgrpo_lightning.tasks.benchmarks.xbench import XBench

__all__ = ["BrowseComp", "Gaia", "HotpotQA", "MuSiQue", "WebWalkerQA", "XBench"]
