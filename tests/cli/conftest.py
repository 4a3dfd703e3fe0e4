"""What commands are given."""

from __future__ import annotations

import pytest
from support import BRIEF, reference_trainer


@pytest.fixture(scope="session")
def brief(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """The option for a trainer that needs no whole second."""
    path = tmp_path_factory.mktemp("trainer") / "train.py"
    path.write_text(reference_trainer(BRIEF), encoding="utf-8")
    return ["--trainer", str(path)]
