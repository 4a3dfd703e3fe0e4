"""Fixtures of the tests of data: a hub on the loopback, and Parquet files."""

import io
from collections.abc import Callable, Iterator

import pytest
from hub_server import HubServer, serving


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[HubServer]:
    """A Hugging Face Hub of the test's own, which HF_ENDPOINT names."""
    with serving() as server:
        monkeypatch.setenv("HF_ENDPOINT", server.address)
        yield server


@pytest.fixture
def parquet() -> Callable[..., bytes]:
    """From texts to the bytes of a Parquet file with a column of them."""
    pa = pytest.importorskip("pyarrow", reason="needs the extra hub")
    import pyarrow.parquet as pq

    def written(texts: list[str], column: str = "text", row_group_size: int = 40) -> bytes:
        buffer = io.BytesIO()
        pq.write_table(pa.table({"id": list(range(len(texts))), column: texts}), buffer, row_group_size=row_group_size)
        return buffer.getvalue()

    return written
