"""Notebook 10: how fast and how lean GLOW is here, beside two public codes at the same shapes."""
