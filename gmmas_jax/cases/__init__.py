"""What a case is: sequences, labels, tasks, geometry, the manifest and the findings (NumPy only)."""
