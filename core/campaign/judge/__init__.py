"""Turns trials into a verdict: pure functions of records. Nothing here runs, reads or writes anything."""
