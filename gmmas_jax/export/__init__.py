"""Weights for others, and from others."""
