"""Line searches and L-BFGS for JAX, with Optax's interface and a state with fixed types."""

from . import testing as testing
from ._core import public as _public
from ._core.lbfgs.inverse_hessian import (
    InverseHessian as InverseHessian,
    inverse_hessian as inverse_hessian,
)
from ._core.linesearch.backtracking import (
    Backtracking as Backtracking,
    BacktrackingState as _BacktrackingState,
)
from ._core.linesearch.conditions import (
    FLAG_CURVATURE_COND_NOT_SATISFIED as FLAG_CURVATURE_COND_NOT_SATISFIED,
    FLAG_NO_STEPSIZE_FOUND as FLAG_NO_STEPSIZE_FOUND,
    FLAG_NOT_A_DESCENT_DIRECTION as FLAG_NOT_A_DESCENT_DIRECTION,
    Point as _Point,
    Sample as _Sample,
)
from ._core.linesearch.extensions import (
    LinesearchInfo as LinesearchInfo,
    MoreThuenteLinesearchInfo as MoreThuenteLinesearchInfo,
    ScaleByLinesearchState as ScaleByLinesearchState,
    ScaleByMoreThuenteLinesearchState as ScaleByMoreThuenteLinesearchState,
    scale_by_linesearch as scale_by_linesearch,
    scale_by_more_thuente_linesearch as scale_by_more_thuente_linesearch,
)
from ._core.linesearch.more_thuente import (
    Interval as _Interval,
    MoreThuente as MoreThuente,
    MoreThuenteState as _MoreThuenteState,
)
from ._core.linesearch.transforms import (
    BacktrackingLinesearchInfo as BacktrackingLinesearchInfo,
)
from ._core.linesearch.zoom import (
    FLAG_INTERVAL_NOT_FOUND as FLAG_INTERVAL_NOT_FOUND,
    FLAG_INTERVAL_TOO_SMALL as FLAG_INTERVAL_TOO_SMALL,
    Zoom as Zoom,
    ZoomState as _ZoomState,
)
from ._drop_in import *  # noqa: F403
from ._minimize.api import minimize as minimize
from ._minimize.history import History as History
from ._minimize.plot import plot_history as plot_history
from ._minimize.reporting import IterationInfo as IterationInfo
from ._minimize.result import MinimizeResult as MinimizeResult, MinimizeStatus as MinimizeStatus
from ._minimize.state import Best as _Best, MinimizeState as MinimizeState
from ._minimize.termination import Progress as _Progress
from ._version import __version__ as __version__

# A pickled MinimizeState also names the classes of its fields, by the private names above.
_public.publish(globals())
del _public
