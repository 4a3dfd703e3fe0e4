"""`train.py` as a text: its constants, whether it may be tried, and when two are the same. Runs none."""
