"""Interpolated Gaussian descriptor (IGD)."""
