"""Small torch modules around softmax and attention, each in one file, and their exact forward and
gradient (exact.py).

They are built on torch's own functions, so that what is measured of them is what training with torch does.
"""
