"""Whoever proposes: the search, models behind an API, coding agents, replays. `registry` makes them by name."""
