"""Synthetic lesions: what describes them, where they lie, how they look, how they come into images."""
