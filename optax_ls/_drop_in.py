"""The part of Optax's line searches and L-BFGS: its names, arguments and state fields.

The selection ``core`` of a vendored copy has this module as its ``__init__.py``.
"""

from . import tree
from ._core.lbfgs.memory import ScaleByLBFGSState
from ._core.lbfgs.transforms import lbfgs, scale_by_lbfgs
from ._core.linesearch.transforms import (
    ScaleByBacktrackingLinesearchState,
    ScaleByZoomLinesearchState,
    ZoomLinesearchInfo,
    scale_by_backtracking_linesearch,
    scale_by_zoom_linesearch,
)
from ._core.objective import value_and_grad_from_state
from ._core.transforms import (
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
from ._core.types import (
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
from ._version import __version__

__all__ = [
    "EmptyState",
    "GradientTransformation",
    "GradientTransformationExtraArgs",
    "OptState",
    "Params",
    "ScalarOrSchedule",
    "ScaleByBacktrackingLinesearchState",
    "ScaleByLBFGSState",
    "ScaleByScheduleState",
    "ScaleByZoomLinesearchState",
    "Schedule",
    "TraceState",
    "TransformInitFn",
    "TransformUpdateExtraArgsFn",
    "TransformUpdateFn",
    "Updates",
    "ZoomLinesearchInfo",
    "__version__",
    "apply_updates",
    "chain",
    "identity",
    "lbfgs",
    "scale",
    "scale_by_backtracking_linesearch",
    "scale_by_lbfgs",
    "scale_by_learning_rate",
    "scale_by_schedule",
    "scale_by_zoom_linesearch",
    "sgd",
    "trace",
    "tree",
    "value_and_grad_from_state",
    "with_extra_args_support",
]

# Error messages and pickles name the public place of a class or function, not its file.
for _name in __all__:
    if getattr(globals()[_name], "__module__", "").startswith(__name__ + "."):
        globals()[_name].__module__ = __name__
del _name
