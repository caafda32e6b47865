"""The states of the transformations, and their reports of the last search.

The value, the gradient and the auxiliary output in a state are those at the params that the last
update led to.
"""

from typing import Any, NamedTuple, Optional

from ..types import Counter, Scalar, Updates


class BacktrackingLinesearchInfo(NamedTuple):
    """A report of the last backtracking search.

    Attributes:
        num_linesearch_steps: counter, steps tried.
        decrease_error: scalar of the search dtype, the amount by which sufficient decrease was
            missed; 0 for a search that succeeded, infinite before the first.
    """

    num_linesearch_steps: Counter
    decrease_error: Scalar


class ScaleByBacktrackingLinesearchState(NamedTuple):
    """State of :func:`scale_by_backtracking_linesearch`.

    Attributes:
        learning_rate: scalar of the search dtype, the step chosen last; 1 before the first search.
        value: scalar of the search dtype, the objective there; infinite before the first search.
        grad: tree like the params, the gradient there as :func:`jax.grad` gives it; None without
            ``store_grad``.
        info: the report of the last search.
        aux: tree like ``aux_like``, the auxiliary output there; None without ``aux_like``.
    """

    learning_rate: Scalar
    value: Scalar
    grad: Optional[Updates]
    info: BacktrackingLinesearchInfo
    aux: Any = None


class ZoomLinesearchInfo(NamedTuple):
    """A report of the last zoom search.

    A positive curvature error is harmless. After a positive decrease error the objective may have
    grown. ``verbose=True`` prints why a search failed.

    Attributes:
        num_linesearch_steps: counter, steps tried.
        decrease_error: scalar of the search dtype, the amount by which sufficient decrease was
            missed; 0 if it was met, infinite before the first search.
        curvature_error: the same for small curvature.
    """

    num_linesearch_steps: Counter
    decrease_error: Scalar
    curvature_error: Scalar


class ScaleByZoomLinesearchState(NamedTuple):
    """State of :func:`scale_by_zoom_linesearch`.

    The fields are those of :class:`ScaleByBacktrackingLinesearchState`.
    """

    learning_rate: Scalar
    value: Scalar
    grad: Updates
    info: ZoomLinesearchInfo
    aux: Any = None
