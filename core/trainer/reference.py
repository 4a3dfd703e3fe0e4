"""The trainer that a backend comes with, filled from a preset: what a new campaign begins with."""

from __future__ import annotations

import math
from dataclasses import replace

from core.records import CONSTANT_FIELDS, FIXED, Preset, UserError
from core.trainer.constants import Tunable, read_constants, read_tunables, write_constants, write_ranges
from core.trainer.literals import is_number


def reference_trainer(preset: Preset) -> str:
    """The backend's reference trainer with the preset's numbers in its constants, and ranges that fit them.

    A constant that the preset names must be there; the preset's own fields are filled in where the trainer has them.
    Raises UserError for a constant that isn't there and for a range in [tune] that can't be.
    """
    import backends  # and NumPy with it, which reading a campaign needs not

    text = backends.trainer_path(preset.backend).read_text(encoding="utf-8")
    has, tunables = read_constants(text), read_tunables(text)
    wanted = preset.trainer_constants()
    filled = write_constants(text, {name: wanted[name] for name in wanted if name in has or name in preset.constants})
    followed = {name: _followed(tunables[name], now).range for name, now in read_tunables(filled).items()}
    return _with_own_ranges(write_ranges(filled, followed), preset)


def _followed(reference: Tunable, now: Tunable) -> Tunable:
    """The range of a constant whose value the preset changed: in the reference's proportion to the value.

    That is for sizes and for logarithmic ranges; all others don't depend on the value.
    """
    before, after = reference.value, now.value
    is_size = now.name in CONSTANT_FIELDS
    if not (is_number(before) and is_number(after) and before > 0 and after > 0) or before == after:
        return now
    ratio = after / before
    if now.choices is not None:
        numbers = [choice for choice in now.choices if is_number(choice)]
        if not is_size or len(numbers) < len(now.choices):
            return now
        scaled = sorted({max(1, round(choice * ratio)) for choice in numbers} | {after})
        return replace(now, choices=tuple(scaled)) if len(scaled) > 1 else now
    if not (is_size or now.log):
        return now
    assert now.low is not None and now.high is not None
    low, high = now.low * ratio, now.high * ratio
    if now.integer:
        low = max(1, math.ceil(low))
        high = max(low + 1, math.floor(high))
    return replace(now, low=low, high=high)


def _with_own_ranges(text: str, preset: Preset) -> str:
    """The text with the ranges of the preset's table [tune]."""
    own = {name: None if words == FIXED else words for name, words in preset.tune.items()}
    where = f"preset {preset.name}, [tune]"
    try:
        text = write_ranges(text, own)
        found = read_tunables(text)
    except UserError as error:
        raise UserError(f"{where}: {error}") from None
    for name in own.keys() & found.keys():
        if not found[name].holds_value:
            raise UserError(
                f"{where}: {name} is {found[name].value}, outside of its range `{found[name].range}`: "
                f'change one of them, for example --set tune.{name}="{FIXED}"'
            )
    return text
