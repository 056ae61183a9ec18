"""From folders, lists and tables as they are found to the rows of a manifest."""
