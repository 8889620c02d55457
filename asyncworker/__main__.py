"""``python -m asyncworker``: the same as the command ``asyncworker``."""

from __future__ import annotations

import sys

from asyncworker.cli import main

if __name__ == "__main__":
    sys.exit(main())
