"""The registry of corpora: the one place that turns a name into a source."""

from __future__ import annotations

from pathlib import Path

from core.data.corpora import apidocs
from core.data.corpora.apidocs import ApiDocs
from core.data.corpora.base import Source
from core.data.corpora.folder import Folder
from core.data.corpora.hub import CLIMBMIX_SHARDS, climbmix, tinystories
from core.records import UserError

PACKAGES = (apidocs.PACKAGE,)  # that hold a corpus where they are installed
NAMES = ("apidocs", "climbmix", "tinystories", "folder:PATH")


def find(corpus: str) -> Source:
    """The source of that name. UserError for an unknown one, and for a folder that holds no documents."""
    kind, _, rest = corpus.partition(":")
    if corpus == "apidocs":
        return ApiDocs()
    if corpus == "tinystories":
        return tinystories()
    if kind == "climbmix" and (not rest or (rest.isdecimal() and int(rest) > 0)):
        return climbmix(int(rest) if rest else CLIMBMIX_SHARDS)
    if kind == "folder" and rest:
        return Folder(Path(rest).expanduser().absolute())
    raise UserError(
        f"expected a corpus of {', '.join(NAMES)} (climbmix:N for N training shards), got {corpus!r}; "
        "choose one: `--corpus apidocs`"
    )


def outside_cache(corpus: str) -> tuple[Path, ...]:
    """The folders in which a corpus lies that is not in the cache."""
    kind, _, rest = corpus.partition(":")
    return (Path(rest).expanduser().absolute(),) if kind == "folder" and rest else ()
