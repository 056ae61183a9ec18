"""What every test runs under: one CPU device, quiet TensorFlow, strict JAX."""

import os

# Before anything imports JAX or TensorFlow, and inherited by the processes that tests start.
os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("MPLBACKEND", "agg")

import jax

# Silent broadcasting between ranks hides shape mistakes; a key used twice hides correlated noise.
jax.config.update("jax_numpy_rank_promotion", "raise")
jax.config.update("jax_debug_key_reuse", True)
