"""The trained weights that come with the program, a folder each; `export.shipped` finds them."""
