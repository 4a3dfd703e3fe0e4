"""Any coding agent's command as an agent: it edits train.py in a sandboxed folder of its own.

`command_line.py` reads the command, `environment.py` says what it may reach, `running.py` runs it, `workspace.py` is
its folder, `history_files.py` and `prompt.py` are what it reads, and `agent.py` makes proposals of what it wrote.
"""
