"""Soak programs: `python -m tests.soak.NAME` each prints the numbers that it is about, and exits
with 1 where one is missed.
"""
