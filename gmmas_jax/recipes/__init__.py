"""Named sequences of stages: what the papers call the method, as one command each."""
