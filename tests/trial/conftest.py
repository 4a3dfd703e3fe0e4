"""Fixtures of real trials."""

from trial_runs import dataset, run

__all__ = ["dataset", "run"]
