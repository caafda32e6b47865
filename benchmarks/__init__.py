"""Measurements of this package against its peers; see README.md in this folder."""

import os

# SciPy's vectors are short here: more threads only slow it. This must be said before NumPy starts.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
