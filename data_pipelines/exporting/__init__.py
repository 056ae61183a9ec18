"""From a manifest to the layouts that other programs read."""
