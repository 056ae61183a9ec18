"""Flax Linen networks: layers, attention, fusion, encoders, decoders, heads, and GMMAS of them."""
