"""What transforms a training patch, jitted on the accelerator."""
