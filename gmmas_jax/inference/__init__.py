"""From a case to masks, probabilities and their uncertainty."""
