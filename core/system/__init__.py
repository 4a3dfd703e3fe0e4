"""This machine: its processor and accelerators, what else runs, files, signals, and text fit for a terminal."""
