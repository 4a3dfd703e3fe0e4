"""Documents in the `text` column of Parquet files, by row groups. Needs the extra `hub`."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

from core.data.corpora import base
from core.data.corpora.base import Split, not_blank
from core.records import UserError
from core.system import install
from core.system.text import one_line

COLUMN = "text"
# From a document's row in its file and its text to its split.
Rule = Callable[[int, str], Split]


@dataclass(frozen=True)
class ParquetPart:
    """Some consecutive row groups of one file."""

    path: Path
    groups: range
    first_row: int
    rule: Rule = field(repr=False)
    splits: frozenset[Split]
    size: int

    def documents(self) -> Iterator[tuple[Split, str]]:
        """The texts of the rows, each with its split; blank ones are left out."""
        row = self.first_row
        with _opened(self.path) as file:
            batches = file.iter_batches(batch_size=1024, row_groups=list(self.groups), columns=[COLUMN])
            while (texts := _texts(self.path, batches)) is not None:
                for text in texts:
                    for document in not_blank([text or ""]):
                        yield self.rule(row, document), document
                    row += 1


def parquet_parts(path: Path, rule: Rule, splits: frozenset[Split]) -> Iterator[ParquetPart]:
    """The file in parts of about PART_BYTES of text. UserError if it is no Parquet file with a column of texts."""
    with _opened(path) as file:
        schema = file.schema_arrow
        if schema.names.count(COLUMN) != 1 or not _of_strings(schema.field(COLUMN).type):
            columns = ", ".join(f"{field.name} ({field.type})" for field in schema)
            raise UserError(f"expected {path} to have a column `{COLUMN}` of strings, got {one_line(columns, 200)}")
        # By its path, because a column of structs may have a `text` too.
        leaves = file.metadata.schema
        column = next(place for place in range(len(leaves)) if leaves.column(place).path == COLUMN)
        start = first_row = row = size = 0
        for group in range(file.metadata.num_row_groups):
            described = file.metadata.row_group(group)
            size += described.column(column).total_uncompressed_size
            row += described.num_rows
            if size >= base.PART_BYTES or group == file.metadata.num_row_groups - 1:
                yield ParquetPart(path, range(start, group + 1), first_row, rule, splits, size)
                start, first_row, size = group + 1, row, 0


def uncompressed(path: Path, file: BinaryIO, compression: str) -> BinaryIO:
    """The bytes of the compressed `file`, which lies at `path`, through pyarrow."""
    pa = _pyarrow(path)
    return io.BufferedReader(pa.CompressedInputStream(pa.PythonFile(file, mode="r"), compression))


def _texts(path: Path, batches: Iterator[Any]) -> list[str | None] | None:
    """The texts of the next batch; None at the end."""
    pa = _pyarrow(path)
    try:
        batch = next(batches, None)
        return None if batch is None else list(batch.column(0).to_pylist())
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        said = one_line(str(error), 200)
        raise UserError(f"{path} is damaged: {said}; fetch it again, or move it out of the folder") from error


def _of_strings(kind: Any) -> bool:
    import pyarrow.types as types

    if types.is_dictionary(kind):
        kind = kind.value_type
    return bool(types.is_string(kind) or types.is_large_string(kind) or types.is_string_view(kind))


def _pyarrow(path: Path) -> Any:
    try:
        import pyarrow
    except ImportError as error:
        raise UserError(
            f"reading {path.name} needs pyarrow, which is not installed; run `{install.command('hub')}`"
        ) from error
    return pyarrow


def _opened(path: Path) -> Any:
    pa = _pyarrow(path)
    import pyarrow.parquet as pq

    try:
        return pq.ParquetFile(path, page_checksum_verification=True)
    except (pa.ArrowException, OSError) as error:
        raise UserError(f"expected {path} to be a Parquet file: {one_line(str(error), 200)}") from error
