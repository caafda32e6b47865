"""Linear algebra on pytrees, under the names of ``optax.tree``."""

from ._core.tree import (
    add,
    add_scale,
    cast_like,
    conj,
    get,
    norm,
    real,
    scale,
    sub,
    sum,
    vdot,
    where,
    zeros_like,
)

__all__ = [
    "add",
    "add_scale",
    "cast_like",
    "conj",
    "get",
    "norm",
    "real",
    "scale",
    "sub",
    "sum",
    "vdot",
    "where",
    "zeros_like",
]

for _name in __all__:
    globals()[_name].__module__ = __name__
del _name
