"""L-BFGS: the memory of pairs, the direction it gives, and the transformations."""
