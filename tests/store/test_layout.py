"""A campaign's folder: made whole or not at all, and emptied of what is not kept."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

import pytest
from campaigns import PRESET, trainer

from core.records import UserError
from core.store import layout
from core.store.layout import CampaignFolder


@pytest.mark.parametrize("moved", [0, 1, 2])
def test_a_creation_that_was_killed_is_repeated_and_is_no_campaign_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, moved: int
) -> None:
    """Of train.py, program.md and .git, so many are in their place; .git, which makes it a campaign, comes last."""
    root = tmp_path / "c"
    replace = Path.replace
    done: list[str] = []

    def killed(self: Path, target: Any) -> Any:
        if Path(target).parent == root:
            if len(done) == moved:
                raise KeyboardInterrupt
            done.append(Path(target).name)
        return replace(self, target)

    monkeypatch.setattr(Path, "replace", killed)
    with pytest.raises(KeyboardInterrupt):
        layout.create(root, PRESET, "t", "Lower it.\n", trainer(2.0), "greedy 1")
    monkeypatch.undo()
    assert not CampaignFolder(root).exists()
    layout.create(root, PRESET, "t", "Lower it.\n", trainer(1.0), "greedy 1")
    assert sorted(path.name for path in root.iterdir()) == [".git", "program.md", "train.py"]
    assert (root / "train.py").read_text() == trainer(1.0)
    assert layout.existing(root).root == root


def git(*arguments: str, cwd: Path) -> None:
    who = ["-c", "user.name=a", "-c", "user.email=a@b"]
    subprocess.run(["git", *who, *arguments], cwd=cwd, check=True, capture_output=True)


def test_a_worktree_and_a_clone_say_where_the_records_are(tmp_path: Path) -> None:
    root = tmp_path / "campaign"
    layout.create(root, PRESET, "t", "Lower it.\n", trainer(2.0), "greedy 1")
    git("worktree", "add", "--detach", str(tmp_path / "tree"), cwd=root)
    git("clone", "campaign", "loose", cwd=tmp_path)
    git("clone", "campaign", "packed", cwd=tmp_path)
    git("pack-refs", "--all", cwd=tmp_path / "packed")
    with pytest.raises(UserError, match=rf"tree is a worktree of the campaign in {root}, where its records are: name"):
        layout.existing(tmp_path / "tree")
    for clone in ("loose", "packed"):
        with pytest.raises(UserError, match=rf"{clone} is a clone of a campaign, and its .* cloned from, {root}: name"):
            layout.existing(tmp_path / clone)
    git("init", "other", cwd=tmp_path)
    git("clone", "other", "plain", cwd=tmp_path)
    for name in ("other", "plain"):
        with pytest.raises(UserError, match="is a git repository, but no campaign"):
            layout.existing(tmp_path / name)


def test_what_is_not_kept_leaves_its_record_but_no_weights_and_no_losses(tmp_path: Path) -> None:
    folder = CampaignFolder(tmp_path)
    kept = {"output.txt", "curve.jsonl", "facts.json"}
    for number in (3, 4):
        for trial in (0, 1):
            folder.trial(number, trial).mkdir(parents=True)
            for name in (*kept, "weights.safetensors", "losses.npy"):
                (folder.trial(number, trial) / name).touch()
        folder.trainer(number).parent.mkdir()
        folder.trainer(number).touch()
    folder.drop_weights(3)
    assert [{path.name for path in folder.trial(3, trial).iterdir()} for trial in (0, 1)] == [kept, kept]
    assert not folder.trainer(3).parent.exists()
    assert len(list(folder.experiment(4).rglob("*.*"))) == 2 * 5 + 1
