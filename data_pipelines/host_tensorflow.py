"""TensorFlow as the input pipeline uses it: quiet, on the host, with no accelerator in sight."""

import os

# Both are read while TensorFlow is imported; the second only stops a notice: no arithmetic of ours
# runs in TensorFlow.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "0")

import tensorflow as tf

# TensorFlow would else take the memory of every GPU that JAX is about to use.
tf.config.set_visible_devices([], "GPU")

__all__ = ["tf"]
