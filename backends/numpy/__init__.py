"""Counts instead of a network: trains on a machine without a framework, in the time of a blink."""
