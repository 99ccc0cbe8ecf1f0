"""xbench-DeepSearch and BrowseComp: encrypted files are opened in memory, and their texts reach no log."""

from __future__ import annotations

import asyncio
from hashlib import sha256
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mgrpo_lightning.errors import DataError
from mgrpo_lightning.tasks.benchmarks import BrowseComp, XBench
from mgrpo_lightning.tasks.benchmarks.encrypted import decrypted
from tests.tasks.benchmarks.files import encrypted, write_rows

CANARY = "canary-7f"
BROWSECOMP = r"https://openaipublic\.blob\.core\.windows\.net/simple-evals/browse_comp_test_set\.csv"


@given(st.text(), st.binary(min_size=1, max_size=40))
def test_what_was_encrypted_is_what_is_decrypted(text: str, key: bytes) -> None:
    assert decrypted(encrypted(text, key), key) == text


@pytest.mark.parametrize("text", ["no base64!", encrypted("naïve 答案", b"another key")])
def test_a_text_that_does_not_open_is_an_error_that_does_not_show_it(text: str) -> None:
    with pytest.raises(DataError, match="does not decrypt") as error:
        decrypted(text, b"\x80\xff")
    assert text not in str(error.value)


def xbench(folder: Path, name: str = "data/DeepSearch-2505.csv") -> XBench:
    key = CANARY.encode()
    row = {
        "id": "1",
        "prompt": encrypted("世界上最高的山是哪座?", key),
        "answer": encrypted("珠穆朗玛峰", key),
        "reference_steps": encrypted("查", key),
        "canary": CANARY,
    }
    write_rows(folder / name, [row])
    return XBench(str(folder))


@pytest.mark.parametrize(
    ("answer", "score"),
    [
        ("珠穆朗玛峰", 1.0),
        ("最终答案:珠穆朗玛峰", 1.0),
        ("解释...\n最终答案\uff1a珠穆朗玛峰", 1.0),
        ("最终答案:乔戈里峰", 0.0),
        ("", 0.0),
    ],
)
def test_xbench_takes_what_stands_behind_either_colon(tmp_path: Path, answer: str, score: float) -> None:
    task = xbench(tmp_path)
    (question,) = task.questions("test")
    assert question.text == "世界上最高的山是哪座?"
    assert question.encrypted
    assert asyncio.run(task.correct(question, answer)) == score


@pytest.mark.parametrize("name", ["DeepSearch-2510.csv", "data/DeepSearch.csv"])
def test_every_edition_is_found_and_two_are_refused(tmp_path: Path, name: str) -> None:
    assert len(xbench(tmp_path, name).questions("test")) == 1
    other = str(Path(name).with_name("DeepSearch-2505.csv"))
    with pytest.raises(DataError, match=r"xbench-DeepSearch: .*give the path of one of them") as error:
        xbench(tmp_path, other)
    assert name in str(error.value)
    assert other in str(error.value)


def test_browsecomp_opens_with_the_hash_of_its_canary(tmp_path: Path) -> None:
    key = sha256(CANARY.encode()).digest()
    row = {"problem": encrypted("Who?" * 20, key), "answer": encrypted("Nobody", key), "problem_topic": "Art"}
    write_rows(tmp_path / "browse_comp_test_set.csv", [{**row, "canary": CANARY}])
    (question,) = BrowseComp(str(tmp_path)).questions("validation")
    assert (question.text, question.answers, question.level, question.encrypted) == (
        "Who?" * 20,
        ("Nobody",),
        "Art",
        True,
    )


def test_no_file_of_these_keeps_the_plain_text(tmp_path: Path) -> None:
    xbench(tmp_path)
    assert [path.name for path in tmp_path.rglob("*") if path.is_file()] == ["DeepSearch-2505.csv"]


@pytest.mark.parametrize(("task", "where"), [(XBench, "xbench-ai"), (BrowseComp, BROWSECOMP)])
def test_whoever_lacks_one_is_told_where_it_is(tmp_path: Path, task: type[XBench | BrowseComp], where: str) -> None:
    with pytest.raises(DataError, match=where):
        task(str(tmp_path))
