"""lessons.md: lines that are only ever added, whoever else writes to the file."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from campaigns import a_campaign

from core.agents import lessons
from core.agents.lessons import LONGEST, SHOWN, Lessons
from core.events import Event, Notice
from core.records import UserError


@pytest.fixture
def told() -> list[Event]:
    return []


@pytest.fixture
def kept(tmp_path: Path, told: list[Event]) -> Lessons:
    return Lessons(tmp_path / "lessons.md", told.append)


def test_without_a_file_there_are_none_and_the_first_makes_it(kept: Lessons, told: list[Event]) -> None:
    assert kept.read() == [] and not kept.path.exists()
    assert kept.append("wider is slower\n than deeper")
    assert kept.path.read_bytes() == b"- wider is slower than deeper\n"
    assert kept.read() == ["- wider is slower than deeper"]
    assert told == []


def test_a_persons_edits_stay_and_are_read(kept: Lessons) -> None:
    kept.append("one")
    kept.path.write_bytes("\ufeff# Mine\r\n\r\n  don't touch the \u00e4 head  \r\nno end of line".encode())
    kept.append("two")
    assert kept.read() == ["# Mine", "don't touch the ä head", "no end of line", "- two"]
    assert kept.path.read_bytes().endswith(b"\r\nno end of line\n- two\n")


def test_lines_are_bounded_and_only_the_last_are_read(kept: Lessons) -> None:
    for number in range(SHOWN + 20):
        kept.append(f"{number} " + "long " * 200)
    assert len(kept.path.read_text().splitlines()) == SHOWN + 20
    read = kept.read()
    assert len(read) <= SHOWN and read[-1].startswith(f"- {SHOWN + 19} ")
    assert max(map(len, read)) <= LONGEST + 2


def test_a_huge_file_costs_no_more_than_its_end(kept: Lessons, told: list[Event]) -> None:
    line = "- é" + "x" * 99 + "\n"
    kept.path.write_text(line * 200_000, encoding="utf-8")
    assert kept.read() == [line.strip()] * SHOWN
    assert told == []


def test_the_same_lesson_is_kept_once(kept: Lessons) -> None:
    assert kept.append("again") and kept.append("again")
    assert kept.read() == ["- again"]


def test_what_is_no_text_is_told_once_and_left_alone(kept: Lessons, told: list[Event]) -> None:
    kept.path.write_bytes(b"- fine\n- \xff\xfe\n")
    assert kept.read() == [] and kept.read() == []
    assert not kept.append("lost")
    assert kept.path.read_bytes() == b"- fine\n- \xff\xfe\n"
    (notice,) = [event.text for event in told if isinstance(event, Notice)]
    assert notice.startswith(f"{kept.path}: expected UTF-8 text, and byte 9 is not (invalid start byte): ")


def test_a_folder_in_its_place_costs_the_lesson_and_not_the_run(kept: Lessons, told: list[Event]) -> None:
    kept.path.mkdir()
    assert kept.read() == [] and not kept.append("lost")
    assert told


WRITE = """
import sys
from pathlib import Path
from core.agents.lessons import Lessons
kept = Lessons(Path(sys.argv[1]), print)
for number in range(40):
    assert kept.append(f"{sys.argv[2]} has learned {number}")
"""


def test_campaigns_that_share_a_file_lose_no_line(kept: Lessons) -> None:
    writers = [
        subprocess.Popen([sys.executable, "-c", WRITE, str(kept.path), name], stdout=subprocess.PIPE) for name in "ab"
    ]
    assert [writer.communicate()[0] for writer in writers] == [b"", b""]
    assert [writer.returncode for writer in writers] == [0, 0]
    lines = kept.path.read_text().splitlines()
    for name in "ab":
        assert [line for line in lines if f" {name} " in line] == [f"- {name} has learned {n}" for n in range(40)]
    assert len(lines) == 80


def test_git_takes_no_notice_of_them(tmp_path: Path) -> None:
    with a_campaign(tmp_path / "c") as campaign:
        Lessons(campaign.root / lessons.NAME, print).append("one")
        assert (campaign.root / "lessons.md").exists()
        status = subprocess.run(
            ["git", "-C", str(campaign.root), "status", "--porcelain"], capture_output=True, text=True, check=True
        )
        assert status.stdout == ""


def test_a_path_that_can_be_no_file_is_refused_at_once(tmp_path: Path) -> None:
    lessons.refuse_unusable(tmp_path / "new.md")
    with pytest.raises(UserError, match="is a folder; name one in it"):
        lessons.refuse_unusable(tmp_path)
    with pytest.raises(UserError, match="is no folder; make it with: mkdir"):
        lessons.refuse_unusable(tmp_path / "missing" / "lessons.md")
