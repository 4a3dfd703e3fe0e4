"""results.tsv: a campaign's experiments in the five tab-separated columns that upstream's users know.

Where scores are beliefs, a sixth has half the width of their 95 % interval. What has no score has an empty val_bpb and
memory_gb. Upstream writes 0.000000 there, which sorts as the best score there is.
"""

from __future__ import annotations

from collections.abc import Iterable

from core.records import Experiment
from core.system.text import half_width, one_line

HEADER = ("commit", "val_bpb", "memory_gb", "status", "description")
INTERVAL = "val_bpb_95"  # the sixth


def results(experiments: Iterable[Experiment]) -> str:
    """The whole file's text, a row an experiment. Memory is the largest peak of an experiment's trials, in GB."""
    experiments = list(experiments)
    beliefs = any(experiment.deviation is not None for experiment in experiments)
    lines = ["\t".join([*HEADER, *[INTERVAL] * beliefs])]
    for experiment in experiments:
        scored = experiment.val_bpb is not None
        peaks = [trial.peak_memory_mb for trial in experiment.trials if trial.peak_memory_mb is not None]
        half = half_width(experiment.deviation)
        cells = [
            experiment.commit[:7],
            f"{experiment.val_bpb:.6f}" if scored else "",
            f"{max(peaks) / 1024:.1f}" if scored and peaks else "",
            experiment.verdict,
            one_line(experiment.hypothesis),
            *["" if half is None else f"{half:.6f}"] * beliefs,
        ]
        lines.append("\t".join(cells))
    return "\n".join(lines) + "\n"
