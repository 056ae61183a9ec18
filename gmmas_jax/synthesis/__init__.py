"""Synthetic glioma patients in real human anatomy, in pure JAX."""
