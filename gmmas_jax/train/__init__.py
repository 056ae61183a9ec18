"""Training: state, optimizer, step, loop, checkpoints and logs, the same for every objective."""
