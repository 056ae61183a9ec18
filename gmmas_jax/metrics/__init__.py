"""Evaluation metrics on the host: segmentation protocols, classification, calibration."""
