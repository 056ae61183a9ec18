"""Losses: (outputs, batch) to per-example values and masks, combined in one place."""
