"""merge_states: two attention outputs as one."""
