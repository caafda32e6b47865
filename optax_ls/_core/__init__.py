"""The line searches and L-BFGS, a drop-in for Optax's; imports nothing above this folder."""

# The one list of public names is that of the root package.
# mypy: implicit-reexport
# ruff: noqa: F401

from . import tree
from .lbfgs.inverse_hessian import InverseHessian, inverse_hessian
from .lbfgs.memory import ScaleByLBFGSState
from .lbfgs.transforms import lbfgs, scale_by_lbfgs
from .linesearch.backtracking import Backtracking
from .linesearch.conditions import (
    FLAG_CURVATURE_COND_NOT_SATISFIED,
    FLAG_NO_STEPSIZE_FOUND,
    FLAG_NOT_A_DESCENT_DIRECTION,
)
from .linesearch.more_thuente import MoreThuente
from .linesearch.states import (
    BacktrackingLinesearchInfo,
    LinesearchInfo,
    MoreThuenteLinesearchInfo,
    ScaleByBacktrackingLinesearchState,
    ScaleByLinesearchState,
    ScaleByMoreThuenteLinesearchState,
    ScaleByZoomLinesearchState,
    ZoomLinesearchInfo,
)
from .linesearch.transforms import (
    scale_by_backtracking_linesearch,
    scale_by_linesearch,
    scale_by_more_thuente_linesearch,
    scale_by_zoom_linesearch,
)
from .linesearch.zoom import FLAG_INTERVAL_NOT_FOUND, FLAG_INTERVAL_TOO_SMALL, Zoom
from .objective import value_and_grad_from_state
from .transforms import (
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
from .types import (
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
)
