"""Confinement of a process: what it may read, write and reach, and what this platform can enforce of that.

`policy.py` says what is allowed, `places.py` what a trial needs, `tier.py` what can be enforced here, `seccomp.py`
which system calls are refused; `confine.py` applies all of it and becomes the command.
"""
