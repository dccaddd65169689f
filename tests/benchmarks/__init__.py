"""Figures, not tests: they are read by people, and depend on the machine."""
