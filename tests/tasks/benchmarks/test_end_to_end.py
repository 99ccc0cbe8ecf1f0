"""A file in HotpotQA's layout through the command line: the pocket team is asked, and trained, in its paragraphs."""

from __future__ import annotations

import json
from pathlib import Path

from mgrpo_lightning.commands.run_command import main
from mgrpo_lightning.records.journal import read_groups
from tests.tasks.benchmarks.files import write_rows
from tests.tasks.benchmarks.test_multihop import HOTPOT


def test_hotpotqa_s_layout_is_validated_and_trained_on(root: Path, tmp_path: Path) -> None:
    train = write_rows(tmp_path / "train.json", [{**HOTPOT, "_id": f"t{number}"} for number in range(3)])
    held_out = write_rows(tmp_path / "dev.json", [HOTPOT])
    names = ("quickstart.yaml", "debug/fast.yaml", "benchmarks/hotpotqa.yaml")
    common = [f"--config={root / 'configs' / name}" for name in names]
    common += [f"--data.task.path={train}", f"--data.task.validation_path={held_out}", f"--run.root={tmp_path}"]
    common += ["--run.name=hotpot", "--trainer.accelerator=cpu", "--trainer.enable_progress_bar=false"]
    main(["fit", *common, "--trainer.max_steps=1", "--trainer.num_sanity_val_steps=0", "--trainer.limit_val_batches=0"])
    main(["validate", *common, "--ckpt_path=last"])
    run = tmp_path / "hotpot"
    results = json.loads((run / "results.json").read_text())
    assert results["steps"] == 1
    assert results["validate"]["questions"] == 1
    assert [*results["validate"]["by_level"]] == ["bridge hard"]
    assert json.loads((run / "predictions.json").read_text())["answer"].keys() == {"h1"}
    rollouts = [r for group in read_groups(run / "journal/step-000000.parquet") for r in group.rollouts]
    assert {rollout.main.task for rollout in rollouts} == {HOTPOT["question"]}
