"""`autoresearch log`: lists a campaign's experiments."""

from __future__ import annotations

import sys
from typing import Annotated

from typer import Option

from core.cli import resolve
from core.cli.options import AsJson, CampaignArgument, CampaignDir
from core.cli.render import terminal


def log(
    folder: CampaignArgument = None,
    option: CampaignDir = None,
    last: Annotated[int | None, Option(metavar="N", help="list only the last N")] = None,
    tsv: Annotated[
        bool, Option("--tsv", help="print as results.tsv: commit, val_bpb, memory_gb, status, description, val_bpb_95")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """List the experiments."""
    from core.campaign.results_tsv import results
    from core.cli.render import tables

    with resolve.campaign_of(folder, option) as campaign:
        first = max(0, campaign.status().experiments + 1 - last) if last is not None else 0
        records, beliefs = campaign.experiments(first), campaign.believes
        now = [campaign.ledger.believed(record) for record in records] if tsv else []
    if as_json:
        terminal.json_text([terminal.with_gain(record) for record in records])
    elif tsv:
        sys.stdout.write(results(now))
    else:
        console = terminal.out()
        tables.emit(console, tables.header(console.width, beliefs=beliefs))
        for record in records:
            tables.emit(console, tables.row(record, console.width, beliefs=beliefs))
