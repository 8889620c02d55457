"""``python -m asyncworker``, and what the command ``asyncworker`` calls: `asyncworker.cli`, once it is loaded.

Who presses Ctrl-C meanwhile ends a process that has not begun anything: without a word, and not with a traceback.
"""

from __future__ import annotations

import signal
import sys

ours = signal.getsignal(signal.SIGINT) is signal.default_int_handler
if ours:
    signal.signal(signal.SIGINT, signal.SIG_DFL)

from asyncworker.cli import main  # noqa: E402 - the signal is for this import

if ours:
    signal.signal(signal.SIGINT, signal.default_int_handler)

if __name__ == "__main__":
    sys.exit(main())
