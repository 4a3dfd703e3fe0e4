"""results.tsv in upstream's columns."""

import csv
import io

from campaigns import a_trial
from view_records import an_experiment

from core.campaign.results_tsv import results


def test_a_crash_is_no_score() -> None:
    text = results([an_experiment(1, "crash", trials=(a_trial(val_bpb=None, verdict="crash", peak_memory_mb=2048.0),))])
    header, row = text.splitlines()
    assert header == "commit\tval_bpb\tmemory_gb\tstatus\tdescription"
    assert row == "0000000\t\t\tcrash\tidea 1"


def test_a_hypothesis_stays_in_its_cell() -> None:
    experiment = an_experiment(0, "keep", val_bpb=1.25, hypothesis="wider\theads\n\nand\rmore")
    rows = list(csv.DictReader(io.StringIO(results([experiment])), delimiter="\t"))
    assert len(rows) == 1
    assert rows[0]["description"] == "wider heads and more"
    assert rows[0]["val_bpb"] == "1.250000"


def test_memory_is_the_largest_peak_in_gigabytes() -> None:
    trials = (a_trial(peak_memory_mb=1024.0), a_trial(peak_memory_mb=46182.4), a_trial(peak_memory_mb=None))
    row = results([an_experiment(0, "keep", val_bpb=1.0, trials=trials)]).splitlines()[1]
    assert row.split("\t")[2] == "45.1"


def test_beliefs_have_their_interval_in_a_sixth_column() -> None:
    believed = an_experiment(0, "keep", val_bpb=1.25, deviation=0.01)
    lost = an_experiment(1, "stopped", reason="at 34 % of its budget it was 0.0912 behind")
    rows = list(csv.DictReader(io.StringIO(results(iter([believed, lost]))), delimiter="\t"))
    assert [(row["val_bpb"], row["val_bpb_95"], row["status"]) for row in rows] == [
        ("1.250000", "0.019600", "keep"),
        ("", "", "stopped"),
    ]
