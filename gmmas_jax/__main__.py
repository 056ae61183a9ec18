"""`python -m gmmas_jax` is `gmmas`."""

import sys

from gmmas_jax.cli import main

if __name__ == "__main__":
    sys.exit(main())
