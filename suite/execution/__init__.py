"""Where a kernel's code runs, and the engine that judges what it returned."""
