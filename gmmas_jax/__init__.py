"""Glioma MRI in JAX: tumour segmentation and molecular typing from any of four sequences."""

__version__ = "0.1.0"
