"""Everything between files and batches: the only place that imports nibabel and TensorFlow."""
