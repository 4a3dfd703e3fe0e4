"""The trainer that a backend comes with, filled from a preset: what a new campaign begins with."""

from __future__ import annotations

from core.records import Preset
from core.trainer.constants import read_constants, write_constants


def reference_trainer(preset: Preset) -> str:
    """The backend's reference trainer with the preset's numbers in its constants.

    A constant that the preset names must be there; the preset's own fields are filled in where the trainer has them.
    """
    import backends  # and NumPy with it, which reading a campaign needs not

    text = backends.trainer_path(preset.backend).read_text(encoding="utf-8")
    has = read_constants(text)
    wanted = preset.trainer_constants()
    return write_constants(text, {name: wanted[name] for name in wanted if name in has or name in preset.constants})
