"""Documents in the `text` column of Parquet files, by row groups. Needs the extra `hub`."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from core.data.corpora import base
from core.data.corpora.base import Split, not_blank
from core.records import UserError

INSTALL = 'pip install "autoresearch[hub]"'
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
            for batch in file.iter_batches(batch_size=1024, row_groups=list(self.groups), columns=[COLUMN]):
                for text in batch.column(0).to_pylist():
                    for document in not_blank([text or ""]):
                        yield self.rule(row, document), document
                    row += 1


def parquet_parts(path: Path, rule: Rule, splits: frozenset[Split]) -> Iterator[ParquetPart]:
    """The file in parts of about PART_BYTES of text. UserError if it is no Parquet file with a column of texts."""
    import pyarrow as pa

    with _opened(path) as file:
        schema = file.schema_arrow
        kind = schema.field(COLUMN).type if COLUMN in schema.names else None
        if kind is None or not (pa.types.is_string(kind) or pa.types.is_large_string(kind)):
            raise UserError(f"expected {path} to have a column `{COLUMN}` of strings, got {', '.join(schema.names)}")
        column = file.metadata.schema.names.index(COLUMN)
        start = first_row = row = size = 0
        for group in range(file.metadata.num_row_groups):
            described = file.metadata.row_group(group)
            size += described.column(column).total_uncompressed_size
            row += described.num_rows
            if size >= base.PART_BYTES or group == file.metadata.num_row_groups - 1:
                yield ParquetPart(path, range(start, group + 1), first_row, rule, splits, size)
                start, first_row, size = group + 1, row, 0


def _opened(path: Path) -> Any:
    try:
        import pyarrow as pa
        import pyarrow.parquet as pq
    except ImportError as error:
        raise UserError(f"reading {path.name} needs pyarrow, which is not installed; run `{INSTALL}`") from error
    try:
        return pq.ParquetFile(path)
    except (pa.ArrowInvalid, OSError) as error:
        raise UserError(f"expected {path} to be a Parquet file: {error}") from error
