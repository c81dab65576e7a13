"""Imported by the server that kernels' processes are forked from: what their first calls would take seconds to import."""

import gc

import suite.execution.child  # noqa: F401
from suite.execution.memory import filled

with filled():  # torch imports its compiler for it
    pass

gc.freeze()  # what is here stays shared between the processes
