"""The part of Optax's line searches and L-BFGS: its names, arguments and state fields.

The selection ``core`` of a vendored copy has this module as its ``__init__.py``.
"""

from . import tree as tree
from ._core import public as _public
from ._core.lbfgs.memory import ScaleByLBFGSState as ScaleByLBFGSState
from ._core.lbfgs.transforms import lbfgs as lbfgs, scale_by_lbfgs as scale_by_lbfgs
from ._core.linesearch.transforms import (
    ScaleByBacktrackingLinesearchState as ScaleByBacktrackingLinesearchState,
    ScaleByZoomLinesearchState as ScaleByZoomLinesearchState,
    ZoomLinesearchInfo as ZoomLinesearchInfo,
    scale_by_backtracking_linesearch as scale_by_backtracking_linesearch,
    scale_by_zoom_linesearch as scale_by_zoom_linesearch,
)
from ._core.objective import value_and_grad_from_state as value_and_grad_from_state
from ._core.transforms import (
    apply_updates as apply_updates,
    chain as chain,
    identity as identity,
    scale as scale,
    scale_by_learning_rate as scale_by_learning_rate,
    scale_by_schedule as scale_by_schedule,
    sgd as sgd,
    trace as trace,
    with_extra_args_support as with_extra_args_support,
)
from ._core.types import (
    EmptyState as EmptyState,
    GradientTransformation as GradientTransformation,
    GradientTransformationExtraArgs as GradientTransformationExtraArgs,
    OptState as OptState,
    Params as Params,
    ScalarOrSchedule as ScalarOrSchedule,
    ScaleByScheduleState as ScaleByScheduleState,
    Schedule as Schedule,
    TraceState as TraceState,
    TransformInitFn as TransformInitFn,
    TransformUpdateExtraArgsFn as TransformUpdateExtraArgsFn,
    TransformUpdateFn as TransformUpdateFn,
    Updates as Updates,
)
from ._version import __version__ as __version__

_public.publish(globals())
del _public
