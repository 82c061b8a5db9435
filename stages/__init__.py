"""The pipeline's code: one script per stage, and beside them one file per idea they share."""

import gc
import signal
import sys

# This is true while `python -m stages.…` imports its modules, which takes seconds.
if sys.argv[0] == "-m":
    # Hardly anything that is imported becomes garbage; not to look for it saves a quarter of the
    # time. run_stage turns it on again.
    gc.disable()
    # Ctrl-C just ends the process: as an exception it would be lost in native code or fill the
    # screen. Afterwards run_stage handles it. A job in a shell's background ignores Ctrl-C from its
    # start, and goes on doing so.
    if signal.getsignal(signal.SIGINT) is not signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
