"""The ratchet: everything that does not depend on an array framework."""
