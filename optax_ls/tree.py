"""Linear algebra on pytrees, under the names of ``optax.tree``."""

from ._core import public as _public
from ._core.tree import (
    add as add,
    add_scale as add_scale,
    cast_like as cast_like,
    conj as conj,
    get as get,
    norm as norm,
    real as real,
    scale as scale,
    sub as sub,
    sum as sum,
    vdot as vdot,
    where as where,
    zeros_like as zeros_like,
)

_public.publish(globals())
del _public
