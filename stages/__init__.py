"""The pipeline's code: one script per stage, and beside them one file per idea they share."""

import signal
import sys

# While `python -m stages.…` imports its modules, which takes seconds, Ctrl-C just ends it: as an
# exception it would be lost in native code or fill the screen. Afterwards run_stage handles it.
if sys.argv[0] == "-m":
    signal.signal(signal.SIGINT, signal.SIG_DFL)
