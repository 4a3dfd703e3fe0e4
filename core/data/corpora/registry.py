"""The registry of corpora: the one place that turns a name into a corpus."""

from __future__ import annotations

from pathlib import Path

from core.data.corpora import apidocs
from core.data.corpora.apidocs import ApiDocsCorpus
from core.data.corpora.base import Corpus
from core.data.corpora.folder import FolderCorpus
from core.data.corpora.hub import CLIMBMIX_SHARDS, climbmix, tinystories
from core.records import unknown
from core.system.files import user_path

PACKAGES = (apidocs.PACKAGE,)  # installed packages that hold a corpus
NAMES = ("apidocs", "climbmix", "tinystories", "folder:PATH")


def find(corpus: str) -> Corpus:
    """The corpus of that name. UserError for an unknown one, and for a folder that holds no documents."""
    kind, _, rest = corpus.partition(":")
    if corpus == "apidocs":
        return ApiDocsCorpus()
    if corpus == "tinystories":
        return tinystories()
    if kind == "climbmix" and (not rest or (rest.isdecimal() and int(rest) > 0)):
        return climbmix(int(rest) if rest else CLIMBMIX_SHARDS)
    if folder := outside_cache(corpus):
        return FolderCorpus(*folder)
    raise unknown("corpus", corpus, NAMES, "climbmix:N takes N training shards, folder:PATH your own files")


def outside_cache(corpus: str) -> tuple[Path, ...]:
    """The folder of a `folder:PATH` corpus, which lies outside the cache; empty for the others."""
    kind, _, rest = corpus.partition(":")
    return (user_path(rest, "--corpus").absolute(),) if kind == "folder" and rest else ()
