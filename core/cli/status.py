"""`autoresearch status`: shows how a campaign stands."""

from __future__ import annotations

import dataclasses

from core.cli import resolve
from core.cli.options import AsJson, CampaignArgument, CampaignDir
from core.cli.render import terminal


def status(
    folder: CampaignArgument = None,
    option: CampaignDir = None,
    as_json: AsJson = False,
) -> None:
    """Show how the campaign stands."""
    from core.cli.render import tables

    with resolve.campaign_of(folder, option) as campaign:
        found = campaign.status()
        if as_json:
            terminal.json_text(dataclasses.asdict(found))
            return
        champion = campaign.champion if found.champion_commit else None
        title = f"{campaign.root}  ({campaign.branch}, preset {campaign.preset.name})"
        terminal.out().print(tables.status(found, champion, title))
