"""Line searches and L-BFGS for JAX, with Optax's interface and a state whose types never change."""

from . import testing, tree
from ._armijo import Backtracking
from ._base import (
    EmptyState,
    GradientTransformation,
    GradientTransformationExtraArgs,
    OptState,
    Params,
    ScalarOrSchedule,
    ScaleByScheduleState,
    Schedule,
    TraceState,
    TransformInitFn,
    TransformUpdateExtraArgsFn,
    TransformUpdateFn,
    Updates,
    apply_updates,
    chain,
    identity,
    scale,
    scale_by_learning_rate,
    scale_by_schedule,
    sgd,
    trace,
    with_extra_args_support,
)
from ._inverse_hessian import InverseHessian, inverse_hessian
from ._lbfgs import lbfgs, scale_by_lbfgs
from ._line import (
    FLAG_CURVATURE_COND_NOT_SATISFIED,
    FLAG_NO_STEPSIZE_FOUND,
    FLAG_NOT_A_DESCENT_DIRECTION,
)
from ._linesearch import (
    BacktrackingLinesearchInfo,
    MoreThuenteLinesearchInfo,
    ScaleByBacktrackingLinesearchState,
    ScaleByMoreThuenteLinesearchState,
    ScaleByZoomLinesearchState,
    ZoomLinesearchInfo,
    scale_by_backtracking_linesearch,
    scale_by_more_thuente_linesearch,
    scale_by_zoom_linesearch,
)
from ._memory import ScaleByLBFGSState
from ._minimize import minimize
from ._more_thuente import MoreThuente
from ._objective import value_and_grad_from_state
from ._plot import plot_history
from ._report import IterationInfo
from ._result import History, MinimizeResult, MinimizeStatus
from ._trial import MinimizeState
from ._version import __version__
from ._zoom import FLAG_INTERVAL_NOT_FOUND, FLAG_INTERVAL_TOO_SMALL, Zoom

__all__ = [
    "FLAG_CURVATURE_COND_NOT_SATISFIED",
    "FLAG_INTERVAL_NOT_FOUND",
    "FLAG_INTERVAL_TOO_SMALL",
    "FLAG_NOT_A_DESCENT_DIRECTION",
    "FLAG_NO_STEPSIZE_FOUND",
    "Backtracking",
    "BacktrackingLinesearchInfo",
    "EmptyState",
    "GradientTransformation",
    "GradientTransformationExtraArgs",
    "History",
    "InverseHessian",
    "IterationInfo",
    "MinimizeResult",
    "MinimizeState",
    "MinimizeStatus",
    "MoreThuente",
    "MoreThuenteLinesearchInfo",
    "OptState",
    "Params",
    "ScalarOrSchedule",
    "ScaleByBacktrackingLinesearchState",
    "ScaleByLBFGSState",
    "ScaleByMoreThuenteLinesearchState",
    "ScaleByScheduleState",
    "ScaleByZoomLinesearchState",
    "Schedule",
    "TraceState",
    "TransformInitFn",
    "TransformUpdateExtraArgsFn",
    "TransformUpdateFn",
    "Updates",
    "Zoom",
    "ZoomLinesearchInfo",
    "__version__",
    "apply_updates",
    "chain",
    "identity",
    "inverse_hessian",
    "lbfgs",
    "minimize",
    "plot_history",
    "scale",
    "scale_by_backtracking_linesearch",
    "scale_by_lbfgs",
    "scale_by_learning_rate",
    "scale_by_more_thuente_linesearch",
    "scale_by_schedule",
    "scale_by_zoom_linesearch",
    "sgd",
    "testing",
    "trace",
    "tree",
    "value_and_grad_from_state",
    "with_extra_args_support",
]
