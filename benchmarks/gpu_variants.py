"""One trial of a variant of the PyTorch trainer: what exists today as a constant or a choice, changed one at a time.

    python -m benchmarks.gpu_variants eager --preset h100 --corpus apidocs --budget 20
    python -m benchmarks.gpu_variants            the variants

`scripts/gpu_kit.py run` runs them all. A new one is a line in VARIANTS.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

MARK = 'if __name__ == "__main__":'


@dataclass(frozen=True, kw_only=True)
class Variant:
    """What differs from the preset's trial."""

    why: str
    settings: Mapping[str, str] = field(default_factory=dict)  # as --set takes them
    scale: Mapping[str, float] = field(default_factory=dict)  # factors of the preset's own whole numbers
    choices: Mapping[str, str] = field(default_factory=dict)  # fields of the trainer's Choices, as Python


# The most telling first: what does not fit into the time is left out.
VARIANTS = {
    "half-slices": Variant(why="half the rows at once: do launches bound a step?", scale={"device_batch_size": 0.5}),
    "no-windows": Variant(why="sdpa's own causal kernel in every layer", settings={"WINDOW_PATTERN": "L"}),
    "sdpa": Variant(why="windows as masks in sdpa instead of flex", choices={"kernel": '"sdpa"'}),
    "one-slice": Variant(why="half the tokens a step: no gradients to sum", scale={"total_batch_size": 0.5}),
    "eager": Variant(why="what inductor is worth", settings={"COMPILE": "eager"}, scale={"device_batch_size": 0.25}),
    "float32": Variant(why="products in TF32", choices={"dtype": "torch.float32"}, scale={"device_batch_size": 0.5}),
    "narrow-heads": Variant(why="heads of 64 for the kernel of attention", settings={"HEAD_DIM": "64"}),
}


def with_choices(text: str, choices: Mapping[str, str]) -> str:
    """The trainer's text with some of its choices replaced, in training and in scoring."""
    if not choices:
        return text
    before, mark, after = text.rpartition(MARK)
    assert mark, f"the trainer has no {MARK}"
    changes = ", ".join(f"{name}={value}" for name, value in choices.items())
    lines = [
        "import dataclasses",
        "_reference_choose = choose",
        "",
        "",
        "def choose(*arguments: Any, **named: Any) -> Choices:",
        '    """The reference\'s choices but for the variant\'s."""',
        f"    return dataclasses.replace(_reference_choose(*arguments, **named), {changes})",
    ]
    return before + "\n".join(lines) + "\n\n\n" + mark + after


def settings_of(variant: Variant, sizes: Mapping[str, int]) -> dict[str, str]:
    """The variant's settings for a preset with those sizes."""
    scaled = {name: str(max(1, round(sizes[name] * factor))) for name, factor in variant.scale.items()}
    return {**variant.settings, **scaled}


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs `autoresearch train --json` for a variant; its status, or 2 for a mistake."""
    import autoresearch
    import presets
    from core.records import UserError, to_json
    from core.trainer.reference import reference_trainer

    parser = argparse.ArgumentParser(description="one trial of a variant of the PyTorch trainer")
    parser.add_argument("variant", nargs="?", metavar="NAME", help=f"{', '.join(VARIANTS)}; without: lists them")
    parser.add_argument("--preset", default="h100")
    parser.add_argument("--device")
    parser.add_argument("--corpus")
    parser.add_argument("--budget", type=float)
    parser.add_argument("--no-sandbox", action="store_true")
    options = parser.parse_args(arguments)
    if options.variant is None:
        print("\n".join(f"{name:14} {variant.why}" for name, variant in VARIANTS.items()))
        return 0
    if options.variant not in VARIANTS:
        parser.error(f"expected one of {', '.join(VARIANTS)}, got {options.variant}")
    variant = VARIANTS[options.variant]
    try:
        settings = settings_of(variant, to_json(presets.load(options.preset)))
        text = with_choices(reference_trainer(presets.load(options.preset, settings)), variant.choices)
    except UserError as error:
        print(f"gpu_variants: {error}", file=sys.stderr)
        return 2
    with tempfile.TemporaryDirectory(prefix="autoresearch-variant-") as folder:
        trainer = Path(folder) / "train.py"
        trainer.write_text(text, encoding="utf-8")
        words = ["train", "--preset", options.preset, "--trainer", str(trainer), "--json"]
        for name in ("device", "corpus", "budget"):
            if (value := getattr(options, name)) is not None:
                words += [f"--{name}", str(value)]
        words += [word for name, value in settings.items() for word in ("--set", f"{name}={value}")]
        sys.argv[1:] = [*words, *(["--no-sandbox"] if options.no_sandbox else [])]
        try:
            autoresearch.main()
        except SystemExit as end:
            return end.code if isinstance(end.code, int) else 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
