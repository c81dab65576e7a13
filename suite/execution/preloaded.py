"""Imported by the server that kernels' processes are forked from: what their first calls would take
seconds to import.
"""

import gc

from suite.execution.child import clear_up_at_exit

clear_up_at_exit()

gc.freeze()  # what is here stays shared between the processes
