"""The `autoresearch` command: one file a command. `app.py` puts them together."""
