"""The built-in agent: a Gaussian process over the trainer's constants proposes what to try."""
