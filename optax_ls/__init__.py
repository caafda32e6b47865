"""Line searches and L-BFGS for JAX, with Optax's interface and a state with fixed types."""

from . import _drop_in, testing
from ._core.lbfgs.inverse_hessian import InverseHessian, inverse_hessian
from ._core.linesearch.backtracking import Backtracking
from ._core.linesearch.backtracking import BacktrackingState as _BacktrackingState
from ._core.linesearch.conditions import (
    FLAG_CURVATURE_COND_NOT_SATISFIED,
    FLAG_NO_STEPSIZE_FOUND,
    FLAG_NOT_A_DESCENT_DIRECTION,
)
from ._core.linesearch.conditions import Point as _Point
from ._core.linesearch.conditions import Sample as _Sample
from ._core.linesearch.extensions import (
    LinesearchInfo,
    MoreThuenteLinesearchInfo,
    ScaleByLinesearchState,
    ScaleByMoreThuenteLinesearchState,
    scale_by_linesearch,
    scale_by_more_thuente_linesearch,
)
from ._core.linesearch.more_thuente import Interval as _Interval
from ._core.linesearch.more_thuente import MoreThuente
from ._core.linesearch.more_thuente import MoreThuenteState as _MoreThuenteState
from ._core.linesearch.transforms import BacktrackingLinesearchInfo
from ._core.linesearch.zoom import FLAG_INTERVAL_NOT_FOUND, FLAG_INTERVAL_TOO_SMALL, Zoom
from ._core.linesearch.zoom import ZoomState as _ZoomState
from ._drop_in import *  # noqa: F403
from ._minimize.api import minimize
from ._minimize.history import History
from ._minimize.plot import plot_history
from ._minimize.reporting import IterationInfo
from ._minimize.result import MinimizeResult, MinimizeStatus
from ._minimize.state import Best as _Best
from ._minimize.state import MinimizeState
from ._minimize.termination import Progress as _Progress

__all__ = [
    "FLAG_CURVATURE_COND_NOT_SATISFIED",
    "FLAG_INTERVAL_NOT_FOUND",
    "FLAG_INTERVAL_TOO_SMALL",
    "FLAG_NOT_A_DESCENT_DIRECTION",
    "FLAG_NO_STEPSIZE_FOUND",
    "Backtracking",
    "BacktrackingLinesearchInfo",
    "History",
    "InverseHessian",
    "IterationInfo",
    "LinesearchInfo",
    "MinimizeResult",
    "MinimizeState",
    "MinimizeStatus",
    "MoreThuente",
    "MoreThuenteLinesearchInfo",
    "ScaleByLinesearchState",
    "ScaleByMoreThuenteLinesearchState",
    "Zoom",
    "inverse_hessian",
    "minimize",
    "plot_history",
    "scale_by_linesearch",
    "scale_by_more_thuente_linesearch",
    "testing",
]
__all__ += _drop_in.__all__

# Error messages and pickles name the public place of a class or function, not its file.
for _name in __all__:
    if getattr(globals()[_name], "__module__", "").startswith(__name__ + "."):
        globals()[_name].__module__ = __name__
del _name
# A pickled MinimizeState also names the classes of its fields, by these private names.
for _class in (
    _BacktrackingState,
    _Best,
    _Interval,
    _MoreThuenteState,
    _Point,
    _Progress,
    _Sample,
    _ZoomState,
):
    _class.__module__, _class.__qualname__ = __name__, "_" + _class.__name__
del _class
