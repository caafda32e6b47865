"""Speed, size and communication of the compiled programs, compared with other solvers.

``python -m benchmarks.speed`` runs it all and writes ``benchmarks/RESULTS.md``.
"""
