"""Confinement of a process: what it may read, write and reach, what is enforced of that here, and its sure end.

`policy.py` says what is allowed, `paths.py` what a trial needs to read, `environment.py` which variables it gets,
`tier.py` what can be enforced here, `seccomp.py` which system calls are refused; `confine.py` applies all of it and
becomes the command. `spawn.py` starts a command under `reaper.py`, which ends it with all that it started, and when it
exceeds `limits.py`.
"""
