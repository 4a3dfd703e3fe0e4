"""People's paths and text files, and what the system refuses, told in one sentence with the path."""

from __future__ import annotations

import os
import stat
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from rights import as_nobody, make_read_only, small_disk

from core.records import UserError
from core.system import files

TEXT = "depth = 6\n# naïve 深\n"


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le-marked", "utf-16-be-marked", "utf-32"])
def test_a_text_is_read_with_any_byte_order_mark(encoding: str, tmp_path: Path) -> None:
    marked = encoding.endswith("-marked")
    data = (("\ufeff" if marked else "") + TEXT.replace("\n", "\r\n")).encode(encoding.removesuffix("-marked"))
    path = tmp_path / "text"
    path.write_bytes(data)
    assert files.read_text(path) == TEXT
    assert files.decode(data, path) == TEXT.replace("\n", "\r\n")  # line ends as they are


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"caf\xe9 au lait", "expected UTF-8 text, but byte 3 is not (invalid continuation byte); save it as UTF-8"),
        (TEXT.encode("utf-16-le"), "NUL bytes, as in UTF-16 without a byte order mark"),
        (b"\xff\xfed\x00e", "expected UTF-16 text, but byte "),
        (bytes(100), "or in a binary file; save it as UTF-8"),
    ],
)
def test_what_is_no_text_is_named_with_its_file(data: bytes, said: str, tmp_path: Path) -> None:
    path = tmp_path / "text"
    path.write_bytes(data)
    with pytest.raises(UserError) as caught:
        files.read_text(path)
    assert str(caught.value).startswith(f"{path}: ")
    assert said in str(caught.value)


def test_what_cannot_be_read_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"missing: no such file or directory$"):
        files.read_text(tmp_path / "missing")
    (tmp_path / "folder").mkdir()
    with pytest.raises(UserError, match=r"folder: is a directory; move it away, or name a file$"):
        files.read_text(tmp_path / "folder")
    assert files.read_json(tmp_path / "missing") is None
    for damaged in ("{", "[" * 100_000, "[]"):
        (tmp_path / "damaged").write_text(damaged, encoding="utf-8")
        assert files.read_json(tmp_path / "damaged") is None


def test_unreadable_is_not_missing() -> None:
    with as_nobody() as folder:
        path = folder / "facts.json"
        path.write_text("{}", encoding="utf-8")
        path.chmod(0)
        for read in (files.read_text, files.read_json):
            with pytest.raises(UserError, match=r"facts.json: permission denied; change its rights"):
                read(path)


# The cache's folder


@pytest.mark.parametrize(
    ("variables", "said"),
    [
        ({"AUTORESEARCH_CACHE": "~nosuchuser/x"}, "AUTORESEARCH_CACHE names ~nosuchuser/x, and there is no home"),
        ({"HOME": None}, "no home folder for the cache: HOME is not set.*AUTORESEARCH_CACHE=DIR"),
        ({"HOME": "somewhere"}, "no home folder for the cache: .*AUTORESEARCH_CACHE=DIR"),
    ],
)
@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere the home is not HOME's")
def test_a_cache_without_a_home_is_one_sentence(
    variables: dict[str, str | None], said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    import pwd

    def absent(uid: int) -> pwd.struct_passwd:
        raise KeyError(uid)

    monkeypatch.setattr(pwd, "getpwuid", absent)
    for name, value in {"AUTORESEARCH_CACHE": None, "XDG_CACHE_HOME": None, **variables}.items():
        if value is None:
            monkeypatch.delenv(name, raising=False)
        else:
            monkeypatch.setenv(name, value)
    with pytest.raises(UserError, match=said):
        files.cache_root()


def test_an_error_in_the_cache_says_how_to_move_it(cache: Path) -> None:
    error = PermissionError(13, "Permission denied", str(cache / "locks"))
    assert str(files.explained(error)) == (
        f"{cache / 'locks'}: permission denied; it is in the cache: mend that, or choose another folder for it "
        "with AUTORESEARCH_CACHE=DIR"
    )
    full = OSError(28, "No space left on device")
    assert str(files.explained(full, cache)) == (
        f"no space left for {cache}: free some, then run the same command again; or choose another folder for it with "
        "AUTORESEARCH_CACHE=DIR"
    )
    assert "AUTORESEARCH_CACHE" not in str(files.explained(full, "/elsewhere"))


# What is written


@pytest.fixture(params=[0o022, 0o002, 0o077])
def umask(request: pytest.FixtureRequest) -> Iterator[int]:
    before = os.umask(request.param)
    yield request.param
    os.umask(before)


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no umask")
def test_files_get_the_rights_that_the_umask_gives(umask: int, tmp_path: Path) -> None:
    files.write_json(tmp_path / "new" / "facts.json", {})
    with files.replacing(tmp_path / "whole", through=tmp_path) as file:
        file.write(b"x")
    private = tmp_path / "private"
    private.touch(mode=0o600)
    files.move(private, tmp_path / "moved")
    for name in ("new/facts.json", "whole", "moved"):
        assert stat.S_IMODE((tmp_path / name).stat().st_mode) == 0o666 & ~umask, name


def test_a_folder_that_cannot_be_made_is_refused_at_once(tmp_path: Path) -> None:
    files.refuse_occupied(tmp_path / "a" / "new" / "one", "a model")
    assert list(tmp_path.iterdir()) == []  # nothing is left of the attempt
    (tmp_path / "file").touch()
    for occupied in (tmp_path, tmp_path / "file"):
        with pytest.raises(UserError, match="a model needs a new or empty folder"):
            files.refuse_occupied(occupied, "a model")
    with pytest.raises(UserError, match=r"file.*not a directory"):
        files.refuse_occupied(tmp_path / "file" / "model", "a model")
    with small_disk(tmp_path / "disk") as disk:
        make_read_only(disk)
        with pytest.raises(UserError, match=r"model: read-only file system; change its rights, or name another path"):
            files.refuse_occupied(disk / "model", "a model")
