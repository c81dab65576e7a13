"""What kernels of several ops share: the mathematics that is theirs in common, and where unshifted
ones work.
"""
