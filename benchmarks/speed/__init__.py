"""How fast, how large and how chatty the compiled programs are, beside those of the peers.

``python -m benchmarks.speed`` runs it all and writes ``benchmarks/RESULTS.md``.
"""
