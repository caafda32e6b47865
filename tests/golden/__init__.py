"""Golden runs: iterates of known problems, to the last bit, and the versions that made them.

``python -m golden``, from ``tests/``, renews them and compares with them. What they promise stands
in docs/reproducibility.md.
"""
