"""Commands about devices, each a file: parse, call, print. `core.cli` hangs them in."""
