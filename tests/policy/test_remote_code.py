"""Code of strangers: no command runs what stands in a model's folder, or asks whether to; weights are never pickles."""

from __future__ import annotations

import ast
import json
import os
import pty
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from mgrpo_lightning.commands.run_command import main
from mgrpo_lightning.errors import ConfigurationError, DataError
from mgrpo_lightning.policy.loading import load_base, load_tokenizer
from mgrpo_lightning.policy.memory import meta_model
from tests.support.team_file import write_team_file
from tests.support.tiny import make_tiny_model

ROOT = Path(__file__).parents[2]
MARKER = "it_ran"
CODE = f"""
from pathlib import Path
(Path(__file__).parent / "{MARKER}").touch()
Path("{{folder}}/{MARKER}").touch()
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast
class Config(LlamaConfig): model_type = "stranger"
class Model(LlamaForCausalLM): config_class = Config
class Reader(PreTrainedTokenizerFast): pass
"""
COMMANDS = ["fit", "fit --dry_run", "validate", "test", "predict", "doctor", "replay", "replay --step"]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a team file and a run of one step, whose model is a stranger's from now on."""
    folder = tmp_path_factory.mktemp("stranger")
    model = make_tiny_model(folder / "model")
    main(["fit", "--config", str(write_team_file(folder, model, max_steps=1, limit_val_batches=0))])
    (model / "stranger.py").write_text(CODE.format(folder=folder))
    names = {"AutoConfig": "stranger.Config", "AutoModelForCausalLM": "stranger.Model"}
    _describe(model / "config.json", auto_map=names, model_type="stranger", architectures=["Model"])
    _describe(model / "tokenizer_config.json", auto_map={"AutoTokenizer": [None, "stranger.Reader"]})
    return folder


def _describe(path: Path, **changes: Any) -> None:
    described = json.loads(path.read_text()) if path.exists() else {}
    path.write_text(json.dumps(described | changes))


def _words(command: str, folder: Path, *more: str) -> list[str]:
    name, *options = command.split()
    done = folder / "runs" / "toy"
    if name == "replay":
        return [name, str(done), *options, *(["0"] if options else [])]
    words = [name, "--config", str(folder / "team.yaml"), *options, *more]
    if name == "predict":
        words += ["--question", "Who?"]
    if name == "validate":
        words += ["--trainer.limit_val_batches", "1.0"]
    return words if name in ("fit", "doctor") else [*words, "--ckpt_path", "last"]


def _refused(output: str, folder: Path) -> None:
    assert f"base_model '{folder / 'model'}' needs code from its folder: auto_map" in output.replace("\r\n", " ")
    assert "[y/N]" not in output
    assert "Traceback" not in output
    assert not list(folder.rglob(MARKER))


@pytest.mark.parametrize("command", COMMANDS)
def test_a_command_refuses_a_model_with_code_of_its_own(
    command: str, run: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("builtins.input", lambda *asked: pytest.fail(f"asked {asked}"))
    monkeypatch.setattr("sys.argv", ["mgrpo"])
    with pytest.raises(SystemExit) as ended:
        main(_words(command, run, *(["--run.name=other"] if command.startswith("fit") else [])))
    assert ended.value.code in (1, 2)
    _refused("".join(capsys.readouterr()), run)


def _on_a_terminal(words: list[str], folder: Path) -> str:
    """What a command says on a terminal on which a ``y`` waits."""
    ours, theirs = pty.openpty()
    os.write(ours, b"y\ny\ny\n")
    said = folder / "said"
    with said.open("wb") as file:
        subprocess.run(words, cwd=ROOT, stdin=theirs, stdout=file, stderr=file, check=False)
    os.close(theirs)
    os.close(ours)
    return said.read_text()


def _through_a_pipe(words: list[str], folder: Path) -> str:
    done = subprocess.run(words, cwd=ROOT, input="y\n" * 3, capture_output=True, text=True, check=False)
    return done.stdout + done.stderr


@pytest.mark.parametrize(
    ("command", "asking"),
    [
        pytest.param(name, ask, marks=[] if "dry" in name and ask is _on_a_terminal else [pytest.mark.slow])
        for name in COMMANDS
        for ask in (_on_a_terminal, _through_a_pipe)
    ],
)
def test_nobody_who_says_yes_makes_it_run(command: str, asking: Any, run: Path) -> None:
    more = ["--run.name=another"] if command.startswith("fit") else []
    _refused(asking([sys.executable, "-m", "mgrpo_lightning", *_words(command, run, *more)], run), run)


def _calls() -> Iterator[tuple[str, str, dict[str, Any]]]:
    """Place, name and keywords of every call that reads a model, tokenizer, adapter or pickle."""
    for top in ("mgrpo_lightning", "callbacks", "benchmarks", "examples"):
        for path in sorted((ROOT / top).rglob("*.py")):
            for node in ast.walk(ast.parse(path.read_text())):
                if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
                    values = {word.arg: getattr(word.value, "value", ...) for word in node.keywords if word.arg}
                    yield f"{path.relative_to(ROOT)}:{node.lineno}", ast.unparse(node.func), values


def test_every_call_that_loads_says_that_nothing_foreign_runs() -> None:
    loading = [call for call in _calls() if call[1].rpartition(".")[2] in ("from_pretrained", "from_config")]
    assert len(loading) >= 8, "the walk finds the calls"
    for place, name, values in loading:
        assert values.get("trust_remote_code") is False, place
        if "Model" in name and name.endswith("from_pretrained"):
            assert values.get("use_safetensors") is True, place
    pickles = [call for call in _calls() if call[1] in ("torch.load", "pickle.load", "pickle.loads", "joblib.load")]
    assert pickles
    assert all(values.get("weights_only") is True for _, _, values in pickles), pickles


LOADERS = [
    meta_model,
    load_tokenizer,
    lambda name: load_base(name, quantization="none", compute_dtype=torch.float32),
]


@pytest.fixture
def model(tiny_dir: Path, tmp_path: Path) -> Path:
    return shutil.copytree(tiny_dir, tmp_path / "model")


@pytest.mark.parametrize("load", LOADERS)
@pytest.mark.parametrize(
    ("file", "said"),
    [
        ("config.json", {"auto_map": {"AutoModelForCausalLM": "elsewhere/model--stranger.Model"}}),
        ("config.json", {"text_config": {"auto_map": {"AutoConfig": "stranger.Config"}}}),
        ("config.json", {"auto_map": {"AutoConfig": "stranger.Config"}}),
        ("config.json", {"attn_implementation": "somebody/kernel"}),
        ("config.json", {"attn_implementation": {"text_config": "somebody/kernel:attend"}}),
        ("tokenizer_config.json", {"auto_map": {"AutoTokenizer": ["stranger.Reader", None]}}),
        ("generation_config.json", {"custom_generate": "somebody/way"}),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else value,
)
def test_whatever_names_code_is_refused_by_name(load: Any, file: str, said: dict[str, Any], model: Path) -> None:
    if "auto_map" in str(said):  # of a model that transformers has itself, that is not needed
        _describe(model / "config.json", model_type="stranger")
        _describe(model / "tokenizer_config.json", tokenizer_class="Stranger")
    _describe(model / file, **said)
    with pytest.raises(ConfigurationError, match=rf"{model}.*code from its folder: {next(iter(said))}.* in its {file}"):
        load(str(model))


@pytest.mark.parametrize("load", LOADERS)
def test_code_for_what_transformers_has_itself_is_left_alone(load: Any, model: Path) -> None:
    (model / "stranger.py").write_text(CODE.format(folder=model))
    names = {"AutoConfig": "stranger.Config", "AutoModelForCausalLM": "stranger.Model"}
    _describe(model / "config.json", auto_map=names)
    _describe(model / "tokenizer_config.json", auto_map={"AutoTokenizer": [None, "stranger.Reader"]})
    load(str(model))
    assert not list(model.rglob(MARKER))


@pytest.mark.parametrize("load", LOADERS[::2])
def test_weights_that_are_pickles_are_refused_with_the_way_out(load: Any, model: Path) -> None:
    (model / "model.safetensors").rename(model / "pytorch_model.bin")
    with pytest.raises(ConfigurationError, match=rf"{model}.*pytorch_model\.bin.*HINT: .*convert it to safetensors"):
        load(str(model))
    load_tokenizer(str(model))


@pytest.mark.parametrize("load", LOADERS[::2])
def test_an_adapter_s_folder_is_no_base(load: Any, model: Path) -> None:
    _describe(model / "adapter_config.json", base_model_name_or_path="elsewhere")
    with pytest.raises(ConfigurationError, match=r"is the folder of an adapter.*HINT.*adapter\.path"):
        load(str(model))


@pytest.mark.parametrize("text", ["{", "[]"])
def test_a_description_that_is_none_is_named(text: str, model: Path) -> None:
    (model / "config.json").write_text(text)
    with pytest.raises(DataError, match=r"config\.json is not (a )?JSON"):
        load_tokenizer(str(model))
