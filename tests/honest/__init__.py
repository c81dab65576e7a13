"""Correct kernels of many structures: none may ever fail. `python -m tests.honest` (make honest)
judges them all.
"""
