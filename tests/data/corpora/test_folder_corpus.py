"""The corpus folder:PATH: what is a document, in which split, and what makes it another corpus."""

import gzip
import json
import os
import re
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rights import as_nobody
from synthetic import synthetic_documents

from core.data import prepare
from core.data.corpora import base
from core.data.corpora.base import split_of
from core.data.corpora.folder import LONG_FILE, PIECE, FolderCorpus, cut
from core.records import UserError


def texts_of(root: Path) -> list[str]:
    return [text for part in FolderCorpus(root).parts() for _, text in part.documents()]


def test_reads_every_kind_of_file(tmp_path: Path, parquet: Callable[..., bytes]) -> None:
    (tmp_path / "b").mkdir()
    (tmp_path / "a.txt").write_bytes("\ufeffeins\r\nzwei".encode())
    (tmp_path / "b" / "C.MD").write_text("# three", encoding="utf-8")
    (tmp_path / "d.jsonl").write_text('{"text": "four"}\n\n{"n": 1, "text": "fünf \\ud83d\\ude42"}', encoding="utf-8")
    (tmp_path / "e.parquet").write_bytes(parquet([f"row {n}" for n in range(100)]))
    (tmp_path / "blank.txt").write_text(" \n", encoding="utf-8")
    (tmp_path / "image.png").write_bytes(b"\x89PNG")
    (tmp_path / ".hidden.txt").write_text("hidden", encoding="utf-8")
    (tmp_path / ".git").mkdir()
    (tmp_path / ".git" / "x.txt").write_text("hidden", encoding="utf-8")
    found = texts_of(tmp_path)
    assert sorted(found) == sorted(["eins\r\nzwei", "# three", "four", "fünf 🙂", *(f"row {n}" for n in range(100))])


def test_small_parts_have_the_same_documents(
    corpus_folder: Path, tmp_path: Path, parquet: Callable[..., bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    texts = synthetic_documents(40, seed=1, words=30)
    (tmp_path / "lines.jsonl").write_text(
        "".join(json.dumps({"text": text}) + "\n" for text in texts), encoding="utf-8"
    )
    (tmp_path / "rows.parquet").write_bytes(parquet(texts, row_group_size=7))
    for root in (corpus_folder, tmp_path):
        whole = sorted(texts_of(root))
        for size in (50, 5000):
            monkeypatch.setattr(base, "PART_BYTES", size)
            assert len(FolderCorpus(root).parts()) > 1
            assert sorted(texts_of(root)) == whole
        monkeypatch.undo()


def test_the_split_depends_on_the_text_alone() -> None:
    texts = synthetic_documents(2000, seed=2, words=5)
    shares = {split: sum(split_of(text) == split for text in texts) / len(texts) for split in ("train", "val", "test")}
    assert shares["val"] == pytest.approx(0.05, abs=0.02)
    assert shares["test"] == pytest.approx(0.05, abs=0.02)
    # Pinned: the rule never changes.
    assert [n for n in range(60) if split_of(f"document {n}") == "val"] == [4, 11, 12, 25, 44]
    assert [n for n in range(60) if split_of(f"document {n}") == "test"] == [31, 38, 43, 49, 59]


@given(st.text(alphabet="ab \n", max_size=400), st.integers(0, 4))
def test_a_long_file_is_cut_into_documents_that_are_the_file(seed_text: str, kind: int) -> None:
    filler = ("word " * 30 + "\n\n", "x" * 999, "line\n" * 50, " ", seed_text or "é")[kind]
    text = seed_text + filler * (LONG_FILE // len(filler) + 2) + seed_text
    pieces = list(cut(text))
    assert "".join(pieces) == text
    assert all(0 < len(piece) <= PIECE for piece in pieces[:-1])
    assert list(cut(text[:LONG_FILE])) == [text[:LONG_FILE]]


def test_one_long_file_is_a_corpus(tmp_path: Path, fresh_cache: Path) -> None:
    root = tmp_path / "book"
    root.mkdir()
    (root / "book.txt").write_text("\n\n".join(synthetic_documents(700, seed=6)), encoding="utf-8")
    dataset = prepare(f"folder:{root}", 256)
    assert min(count for count, _ in dataset.sizes().values()) >= 2


def test_its_identity_follows_the_content(tmp_path: Path, fresh_cache: Path) -> None:
    root = tmp_path / "texts"
    root.mkdir()
    (root / "a.txt").write_text("one", encoding="utf-8")
    (root / "b.txt").write_text("two", encoding="utf-8")
    first = FolderCorpus(root).identity()
    assert FolderCorpus(root).identity() == first
    status = (root / "a.txt").stat()
    (root / "a.txt").write_text("ONE", encoding="utf-8")
    os.utime(root / "a.txt", ns=(status.st_atime_ns, status.st_mtime_ns))  # same size, same time of change
    second = FolderCorpus(root).identity()
    (root / "c.txt").write_text("three", encoding="utf-8")
    third = FolderCorpus(root).identity()
    (root / "c.txt").unlink()
    assert len({first, second, third}) == 3
    assert FolderCorpus(root).identity() == second
    moved = root.rename(tmp_path / "moved")
    assert FolderCorpus(moved).identity() == second


def test_settled_files_are_not_read_again(tmp_path: Path, fresh_cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from core.data.corpora import folder

    root = tmp_path / "texts"
    root.mkdir()
    (root / "a.txt").write_text("one", encoding="utf-8")
    monkeypatch.setattr(folder, "SETTLED", -(10**12))  # as if the file were old
    first = FolderCorpus(root).identity()
    monkeypatch.setattr(folder, "file_sha256", lambda path: pytest.fail("read again"))
    assert FolderCorpus(root).identity() == first


def test_changed_content_is_encoded_anew(tmp_path: Path, fresh_cache: Path) -> None:
    root = tmp_path / "texts"
    root.mkdir()
    for number, text in enumerate(synthetic_documents(120, seed=9, words=20)):
        (root / f"{number}.txt").write_text(text, encoding="utf-8")
    before = prepare(f"folder:{root}", 300)
    changed = next(n for n in range(120) if split_of((root / f"{n}.txt").read_text(encoding="utf-8")) == "train")
    added = next(f"new text {n}" for n in range(99) if split_of(f"new text {n}") == "train")
    (root / f"{changed}.txt").write_text(added, encoding="utf-8")
    after = prepare(f"folder:{root}", 300)
    decoded = [after.tokenizer.decode(after.train[n].tolist()) for n in range(len(after.train))]
    assert added in decoded
    assert len(after.train) == len(before.train)
    assert after.scored("val", 500).yardstick == before.scored("val", 500).yardstick


def test_mistakes_are_told(tmp_path: Path, fresh_cache: Path, parquet: Callable[..., bytes]) -> None:
    with pytest.raises(UserError, match=r"is not one; name it: `--corpus folder:PATH`"):
        prepare(f"folder:{tmp_path / 'nowhere'}", 256)
    root = tmp_path / "texts"
    root.mkdir()
    (root / "notes.pdf").write_bytes(b"%PDF")
    with pytest.raises(
        UserError, match=r"expected \.txt, .* and \.parquet files in .*, found 1 other file \(1 \.pdf\)"
    ):
        prepare(f"folder:{root}", 256)
    (root / "blank.txt").write_text("\n", encoding="utf-8")
    with pytest.raises(UserError, match="expected documents in every split"):
        prepare(f"folder:{root}", 256)
    (root / "blank.txt").write_bytes("größer".encode("latin-1"))
    with pytest.raises(UserError, match=r"blank\.txt: expected UTF-8 text, but byte 2 is not"):
        prepare(f"folder:{root}", 256)
    (root / "blank.txt").unlink()
    deep = '{"text": ' + "[" * 100_000 + "]" * 100_000 + "}"
    for line in ('{"text": "a"}\n{"body": "b"}', '{"text": "a"}\nnot json', '{"text": 5}', '"text"', deep):
        (root / "lines.jsonl").write_text(line, encoding="utf-8")
        with pytest.raises(UserError, match=r'expected each line of .*lines\.jsonl to be JSON with a string "text"'):
            prepare(f"folder:{root}", 256)
    (root / "lines.jsonl").unlink()
    (root / "t.parquet").write_bytes(parquet(["a"], column="body"))
    with pytest.raises(
        UserError, match=r"t\.parquet to have a column `text` of strings, got id \(int64\), body \(string\)"
    ):
        prepare(f"folder:{root}", 256)
    (root / "t.parquet").write_bytes(b"PAR1 no")
    with pytest.raises(UserError, match=r"t\.parquet to be a Parquet file"):
        prepare(f"folder:{root}", 256)


def test_a_null_is_no_document_in_lines_and_in_parquet(tmp_path: Path) -> None:
    pa = pytest.importorskip("pyarrow", reason="needs the extra hub")
    import pyarrow.parquet as pq

    (tmp_path / "lines.jsonl").write_text('{"text": null}\n{"text": "one"}\n', encoding="utf-8")
    pq.write_table(pa.table({"text": [None, "two"]}), tmp_path / "table.parquet")
    assert texts_of(tmp_path) == ["one", "two"]


@pytest.mark.parametrize("kind", ["dictionary", "string_view", "large_string", "beside a struct's"])
def test_every_kind_of_string_column_is_read(kind: str, tmp_path: Path) -> None:
    pa = pytest.importorskip("pyarrow", reason="needs the extra hub")
    import pyarrow.parquet as pq

    texts = pa.array(["one", "two", "one", None])
    if kind == "dictionary":
        texts = texts.dictionary_encode()
    elif kind in ("string_view", "large_string"):
        texts = texts.cast(getattr(pa, kind)())
    pq.write_table(pa.table({"meta": [{"text": n} for n in range(4)], "text": texts}), tmp_path / "table.parquet")
    assert texts_of(tmp_path) == ["one", "two", "one"]


def test_a_damaged_parquet_file_is_named(tmp_path: Path) -> None:
    pa = pytest.importorskip("pyarrow", reason="needs the extra hub")
    import pyarrow.parquet as pq

    path = tmp_path / "table.parquet"
    table = pa.table({"text": [f"row {n} " * 20 for n in range(100)]})
    for checksums, place in ((True, 300), (False, 300), (False, 4)):  # in the values, and in their page's header
        pq.write_table(table, path, compression="zstd", use_dictionary=False, write_page_checksum=checksums)
        data = bytearray(path.read_bytes())
        data[place : place + 20] = bytes(20)
        path.write_bytes(data)
        with pytest.raises(UserError, match=rf"{re.escape(str(path))} is damaged: .*; fetch it again, or move it out"):
            texts_of(tmp_path)
    pq.write_table(pa.table({"text": pa.array([b"caf\xe9"]).view(pa.string())}), path)
    with pytest.raises(UserError, match=rf"{re.escape(str(path))} is damaged: .*utf-8"):
        texts_of(tmp_path)


@pytest.mark.parametrize("name", ["a.txt", "a.md", "a.jsonl"])
@pytest.mark.parametrize("suffix", [".gz", ".zst"])
def test_compressed_files_are_read(name: str, suffix: str, tmp_path: Path) -> None:
    text = '{"text": "one"}\n\n{"text": "two"}' if name.endswith("jsonl") else "one\ntwo"
    path = tmp_path / f"{name.upper()}{suffix}"
    path.write_bytes(compressed(text.encode(), suffix))
    assert texts_of(tmp_path) == (["one", "two"] if name.endswith("jsonl") else [text])
    for damaged in (path.read_bytes()[:-9], b"no archive"):
        path.write_bytes(damaged)
        with pytest.raises(UserError, match=rf"{re.escape(str(path))} can't be read: .*; restore it, or move it out"):
            texts_of(tmp_path)


def compressed(data: bytes, suffix: str) -> bytes:
    if suffix == ".gz":
        return gzip.compress(data)
    pa = pytest.importorskip("pyarrow", reason="needs the extra hub")
    out = pa.BufferOutputStream()
    with pa.CompressedOutputStream(out, "zstd") as stream:
        stream.write(data)
    return bytes(out.getvalue())


@pytest.mark.parametrize("encoding", ["utf-16", "utf-8-sig"])
def test_a_text_of_powershell_is_read(encoding: str, tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("größer", encoding=encoding)
    assert texts_of(tmp_path) == ["größer"]
    (tmp_path / "a.jsonl").write_text('{"text": "b"}\n', encoding=encoding)
    if encoding == "utf-16":
        with pytest.raises(UserError, match=r"a\.jsonl: expected lines of UTF-8 text, got UTF-16; save it as UTF-8"):
            texts_of(tmp_path)
    else:
        assert texts_of(tmp_path) == ["b", "größer"]


@pytest.mark.skipif(sys.platform == "win32", reason="links and pipes as POSIX has them")
def test_links_are_followed_and_loops_are_not(tmp_path: Path, fresh_cache: Path) -> None:
    elsewhere, root = tmp_path / "elsewhere", tmp_path / "texts"
    for folder in (elsewhere / "deep", root / "own"):
        folder.mkdir(parents=True)
    (elsewhere / "deep" / "far.txt").write_text("far", encoding="utf-8")
    (root / "own" / "near.txt").write_text("near", encoding="utf-8")
    (root / "one.txt").symlink_to(elsewhere / "deep" / "far.txt")
    (root / "a-link").symlink_to(elsewhere)
    (root / "a-twin").symlink_to(root / "own")
    (elsewhere / "deep" / "loop").symlink_to(elsewhere)
    for name in ("a.pdf", "b.PDF", "README", "c.png"):
        (root / name).touch()
    assert texts_of(root) == ["far", "far", "near"]
    assert FolderCorpus(root).left_out == (
        "4 other files (2 .pdf, 1 without a suffix, 1 .png) and links to folders that are read already "
        "(a-link/deep/loop, a-twin)"
    )


@pytest.mark.skipif(sys.platform == "win32", reason="links and pipes as POSIX has them")
def test_what_is_no_file_is_named(tmp_path: Path, fresh_cache: Path) -> None:
    path = tmp_path / "texts" / "a.txt"
    path.parent.mkdir()
    path.symlink_to("gone")
    with pytest.raises(UserError, match=rf"{path} is a link to gone, which is missing; mend the link or remove it"):
        texts_of(path.parent)
    path.unlink()
    os.mkfifo(path)
    with pytest.raises(UserError, match=rf"{path} is no regular file but a pipe, .*; move it out of the folder"):
        texts_of(path.parent)


def test_an_unreadable_file_or_folder_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    with as_nobody() as root:
        monkeypatch.setenv("AUTORESEARCH_CACHE", str(root / "cache"))
        folder = root / "texts"
        (folder / "inner").mkdir(parents=True)
        (folder / "inner" / "a.txt").write_text("one", encoding="utf-8")
        for path in (folder / "inner" / "a.txt", folder / "inner", folder):
            path.chmod(0)
            with pytest.raises(UserError, match=rf"{path}: permission denied; change its rights"):
                texts_of(folder)
            path.chmod(0o755)


@pytest.mark.skipif(sys.platform in ("win32", "darwin"), reason="file names are Unicode")
def test_a_name_that_is_no_text_is_a_name(tmp_path: Path, fresh_cache: Path) -> None:
    root = tmp_path / "texts"
    root.mkdir()
    (root / os.fsdecode(b"caf\xe9.txt")).write_text("one", encoding="utf-8")
    (root / os.fsdecode(b"caf\xe9.pdf")).touch()
    assert texts_of(root) == ["one"]
    first = FolderCorpus(root).identity()
    assert FolderCorpus(root).identity() == first
    (root / os.fsdecode(b"caf\xe9.txt")).write_bytes(b"\xe9")
    with pytest.raises(UserError, match=r"\.txt: expected UTF-8 text, but byte 0 is not"):
        texts_of(root)


def test_lines_under_another_name_are_named_with_the_one_that_is_read(tmp_path: Path, fresh_cache: Path) -> None:
    (tmp_path / "a.txt").write_text("near", encoding="utf-8")
    for name in ("b.json.gz", "c.JSON.gz", "d.ndjson.zst", "e.tar.gz", "f.gz"):
        (tmp_path / name).touch()
    assert FolderCorpus(tmp_path).left_out == (
        "5 other files (2 .json.gz, 1 .ndjson.zst, 1 .tar.gz, 1 .gz); .json.gz files with a JSON document a line are "
        "read when they are named .jsonl.gz"
    )


def test_what_is_left_out_is_said_once(tmp_path: Path, fresh_cache: Path) -> None:
    root = tmp_path / "texts"
    root.mkdir()
    (root / "book.txt").write_text("\n\n".join(synthetic_documents(700, seed=6)), encoding="utf-8")
    (root / "book.pdf").touch()
    said: list[str] = []
    for _ in range(2):
        dataset = prepare(f"folder:{root}", 256, on_notice=said.append)
        assert dataset.left_out == "1 other file (1 .pdf)"
    assert said == [f"folder:{root}: left out 1 other file (1 .pdf)"]


@pytest.mark.parametrize("name", ["", "wikipedia", "folder:", "climbmix:0", "climbmix:x", "climbmix:-1", "apidocs:2"])
def test_an_unknown_corpus_is_told(name: str) -> None:
    with pytest.raises(UserError, match="here are apidocs, climbmix, tinystories, folder:PATH; climbmix:N takes"):
        prepare(name, 256)
