"""The corpora by name, each in a file of its own. `registry.py` finds them."""
