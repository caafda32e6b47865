"""The minimiser with its own loop: ``optax_ls.minimize``."""
