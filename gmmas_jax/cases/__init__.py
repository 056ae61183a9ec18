"""What a case is: sequences, labels, tasks, geometry, manifest and findings (NumPy only)."""
