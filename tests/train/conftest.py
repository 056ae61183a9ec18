"""Lets the tests here import `dummy_training`, which is also run as a program."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
