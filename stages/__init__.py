"""The pipeline's code: one script per stage, and beside them one file per idea they share."""

import signal
import sys

# While `python -m stages.…` imports its modules, which takes seconds, Ctrl-C just ends it: as an
# exception it would be lost in native code or fill the screen. Afterwards run_stage handles it.
# A job in a shell's background ignores Ctrl-C from its start, and goes on doing so.
if sys.argv[0] == "-m" and signal.getsignal(signal.SIGINT) is not signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.SIG_DFL)
