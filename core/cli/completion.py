"""What a shell completes: campaigns, experiments, and the names that options and arguments take.

Each function gets the word that is being typed and returns what may stand there. Nothing here prints.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import get_args

import typer

from core.cli.words import PARTS
from core.records import UserError
from core.system.files import user_path


def campaigns(incomplete: str) -> list[str]:
    """Folders of campaigns that begin with what was typed, named from the same place; else nothing, for the shell."""
    from core.store.layout import campaigns_below

    try:
        typed = user_path(incomplete, "")
    except UserError:  # ~ and the beginning of somebody's name
        return []
    parent = typed if incomplete.endswith(("/", "\\")) or not incomplete else typed.parent
    head = incomplete[: len(incomplete) - len(typed.name)] if parent != typed else incomplete
    return _starting(incomplete, (head + path.relative_to(parent).as_posix() for path in campaigns_below(parent)))


def presets(incomplete: str) -> list[str]:
    """Presets, `auto`, and files of presets in this folder."""
    import presets as library

    return _starting(incomplete, [*library.names(), "auto", *sorted(path.name for path in Path().glob("*.toml"))])


def preset_lists(incomplete: str) -> list[str]:
    """The last of several presets with commas between them."""
    return _last(incomplete, presets)


def backends(incomplete: str) -> list[str]:
    """The last of several backends with commas between them."""
    import backends as registry

    return _last(incomplete, lambda word: _starting(word, registry.names()))


def agents(incomplete: str) -> list[str]:
    from core.agents import registry

    return _starting(incomplete, registry.names())


def corpora(incomplete: str) -> list[str]:
    from core.data.corpora.registry import NAMES

    return _starting(incomplete, [name.removesuffix("PATH") for name in NAMES])


def devices(incomplete: str) -> list[str]:
    from presets.devices import DRIVERS

    return _starting(incomplete, sorted({"auto", *(device for pairs in DRIVERS.values() for _, device in pairs)}))


def suites(incomplete: str) -> list[str]:
    from core.measure.bench import SUITES

    return _starting(incomplete, [*SUITES, "all"])


def settings(incomplete: str) -> list[str]:
    """Fields of a preset, with their equals sign."""
    from presets.schema import FIELDS

    return _starting(incomplete, [f"{name}=" for name in FIELDS if name not in ("name", "constants")])


def folder_or_number(incomplete: str) -> list[str]:
    """A campaign, or the number of an experiment of the campaign here."""
    return campaigns(incomplete) + _starting(incomplete, _numbers(None))


def numbers(incomplete: str) -> list[str]:
    """Numbers of the experiments of the campaign here."""
    return _starting(incomplete, _numbers(None))


def providers(incomplete: str) -> list[str]:
    from core.agents.llm.providers import KINDS

    return _starting(incomplete, KINDS)


def efforts(incomplete: str) -> list[str]:
    from core.agents.llm.base import Effort

    return _starting(incomplete, get_args(Effort))


def number_or_part(ctx: typer.Context, incomplete: str) -> list[str]:
    """What may follow the words that `ctx` has: behind a number a part, behind a folder an experiment's number."""
    before = [word for name in ("first", "second") if (word := ctx.params.get(name)) is not None]
    behind_a_number = bool(before) and before[-1].isdecimal()
    return _starting(incomplete, PARTS if behind_a_number else _numbers(Path(before[0])) if before else [])


def _numbers(folder: Path | None) -> list[str]:
    from core.store.layout import root_around
    from core.store.reader import CampaignReader

    try:
        with CampaignReader.open(folder or root_around(Path.cwd()) or Path()) as campaign:
            return [str(number) for number in range(len(campaign))]
    except (UserError, OSError):
        return []


def _starting(incomplete: str, names: Iterable[str]) -> list[str]:
    return [name for name in names if name.startswith(incomplete)]


def _last(incomplete: str, complete: Callable[[str], list[str]]) -> list[str]:
    head, comma, word = incomplete.rpartition(",")
    return [head + comma + name for name in complete(word)]
