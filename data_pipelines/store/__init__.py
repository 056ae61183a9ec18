"""The training store: a TFDS data set whose records training maps into memory.

`record` is one case on disk, `build` makes a store of a manifest, `tfds` lets TFDS read it.
"""
