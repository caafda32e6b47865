"""The transformations that Optax does not have: any line search, and that of More & Thuente."""

from typing import Any, NamedTuple, Optional

import chex

from .. import checks
from ..types import Counter, Flag, GradientTransformationExtraArgs, Scalar, Updates
from . import driver
from .more_thuente import MoreThuente
from .transforms import initial_guess


class LinesearchInfo(NamedTuple):
    """A report of the last search.

    Attributes:
        failed: bool scalar, whether it ended without a step that satisfies its conditions.
        num_linesearch_steps: counter, steps tried; None if the search does not count them.
        decrease_error: scalar of the search dtype, the amount by which sufficient decrease was
            missed; None if the search does not compute it.
        curvature_error: the same for small curvature.
    """

    failed: Flag
    num_linesearch_steps: Optional[Counter]
    decrease_error: Optional[Scalar]
    curvature_error: Optional[Scalar]


class ScaleByLinesearchState(NamedTuple):
    """State of :func:`scale_by_linesearch`; see :class:`ScaleByBacktrackingLinesearchState`."""

    learning_rate: Scalar
    value: Scalar
    grad: Optional[Updates]
    info: LinesearchInfo
    aux: Any = None


class MoreThuenteLinesearchInfo(NamedTuple):
    """A report of the last More-Thuente search; see :class:`ZoomLinesearchInfo`."""

    num_linesearch_steps: Counter
    decrease_error: Scalar
    curvature_error: Scalar


class ScaleByMoreThuenteLinesearchState(NamedTuple):
    """State of :func:`scale_by_more_thuente_linesearch`; see :class:`ScaleByLinesearchState`."""

    learning_rate: Scalar
    value: Scalar
    grad: Updates
    info: MoreThuenteLinesearchInfo
    aux: Any = None


def scale_by_linesearch(
    search: driver.LineSearch,
    initial_guess_strategy: str = "keep",
    store_grad: bool = True,
    verbose: bool = False,
    *,
    has_aux: bool = False,
    aux_like: Any = None,
    value_and_grad: bool = False,
) -> GradientTransformationExtraArgs[ScaleByLinesearchState]:
    r"""Scales updates by the step that a line search of your own, or one of ours, finds.

    The line is :math:`\phi(\eta) = f(w + \eta u)`, with params :math:`w` and updates :math:`u`. The
    search sees only scalars of the search dtype (the widest real float of the params, at least
    float32). It says which step to evaluate next, and is given the result::

        state = search.start(value, slope, step)  # phi(0), phi'(0), the first step to try
        state = search.advance(state, value, slope)  # phi and phi' at state.step

    Its state is a tree of arrays of fixed shapes and dtypes, such as a NamedTuple, with the scalars
    ``step``, ``done`` and ``failed`` (numbers become arrays). ``step`` is the step to try next;
    once ``done``, it is the step to take, which is finite, and 0 does not move. ``failed`` says
    that this step does not satisfy the conditions of the search. ``value`` is infinite where the
    objective is not finite, minus infinity included; the slope may be anything there. A search must
    be done after a finite number of steps. The same object works as ``minimize(linesearch=...)``.

    Args:
        search: an object with ``start`` and ``advance``, such as ``optax_ls.MoreThuente(30)``. If
            it has ``needs_slope = False``, the slope at the trial is not computed and may be NaN.
            If it has ``diagnose(state)``, that returns what ``verbose`` prints: a list of tuples of
            a condition, a text for :func:`jax.debug.print`, and a dictionary of the numbers in it.
        initial_guess_strategy: ``'keep'`` or ``'one'``; see :func:`scale_by_zoom_linesearch`.
        store_grad: keep the gradient at the step chosen, for :func:`value_and_grad_from_state`.
        verbose: print when a search failed, and why.
        has_aux: see :func:`scale_by_backtracking_linesearch`.
        aux_like: see there.
        value_and_grad: see there.

    Returns:
        A transformation with the ``update`` of :func:`scale_by_backtracking_linesearch`. Its state
        is a :class:`ScaleByLinesearchState`; ``info`` reports ``failed``, and ``num_steps`` (as
        ``num_linesearch_steps``), ``decrease_error`` and ``curvature_error`` where the state of
        the search has fields of these names.

    Raises:
        TypeError, ValueError: as :func:`scale_by_backtracking_linesearch`; a search that does not
            fit the description above.

    References:
        More & Thuente, Line search algorithms with guaranteed sufficient decrease, ACM TOMS 20
        (1994), 286-307, whose program ``dcsrch`` has such an interface.

    Example:
        >>> from typing import NamedTuple
        >>> import jax, jax.numpy as jnp, optax_ls
        >>> class HalvingState(NamedTuple):
        ...     step: jax.Array
        ...     done: jax.Array
        ...     failed: jax.Array
        ...     value_init: jax.Array
        >>> class Halving:
        ...     needs_slope = False
        ...
        ...     def start(self, value, slope, step):
        ...         return HalvingState(step, False, False, value)
        ...
        ...     def advance(self, state, value, slope):
        ...         lower, last = value < state.value_init, state.step < 1e-6
        ...         step = jnp.where(lower, state.step, jnp.where(last, 0, state.step / 2))
        ...         return HalvingState(step, lower | last, ~lower, state.value_init)
        >>> def fn(w):
        ...     return jnp.sum((w - 1.0) ** 2)
        >>> search, w = optax_ls.scale_by_linesearch(Halving()), jnp.array([1.0, 2.0, 3.0])
        >>> value, grad = jax.value_and_grad(fn)(w)
        >>> given = dict(value=value, grad=grad, value_fn=fn)
        >>> updates, state = search.update(-3 * grad, search.init(w), w, **given)
        >>> float(fn(w)), float(fn(optax_ls.apply_updates(w, updates)))
        (5.0, 1.25)
    """
    driver.check("search", search)
    return driver.Driver(
        "scale_by_linesearch",
        search,
        initial_guess(initial_guess_strategy),
        ScaleByLinesearchState,
        LinesearchInfo,
        store_grad=store_grad,
        has_aux=has_aux,
        aux_like=aux_like,
        gives_grad=value_and_grad,
        verbose=verbose,
    ).transformation()


def scale_by_more_thuente_linesearch(
    max_linesearch_steps: chex.Numeric,
    max_learning_rate: Optional[chex.Numeric] = None,
    slope_rtol: chex.Numeric = 1e-4,
    curv_rtol: chex.Numeric = 0.9,
    noise_rtol: Optional[chex.Numeric] = None,
    interval_rtol: chex.Numeric = 1e-10,
    initial_guess_strategy: str = "keep",
    verbose: bool = False,
    *,
    has_aux: bool = False,
    aux_like: Any = None,
    value_and_grad: bool = False,
) -> GradientTransformationExtraArgs[ScaleByMoreThuenteLinesearchState]:
    r"""Scales updates by a step of sufficient decrease and small curvature, by More & Thuente.

    The conditions are those of :func:`scale_by_zoom_linesearch`, with a tolerance of 0, and so is
    the step taken if none satisfies both within the limits. The interpolation uses the slopes of
    both ends of the interval. Where the objective changes by no more than rounding, the search uses
    slopes alone.

    Args:
        max_linesearch_steps: how many steps may be tried, at least 1.
        max_learning_rate: the largest step; None for no limit.
        slope_rtol: :math:`c_1`, in [0, 1).
        curv_rtol: :math:`c_2`; a smaller one makes steps more exact.
        noise_rtol: a relative change of the objective below this counts as rounding; None for 256
            units in the last place of the search dtype, 0 to use every value.
        interval_rtol: length of the interval, relative to its right end, below which the search
            gives up.
        initial_guess_strategy: ``'keep'`` or ``'one'``; see :func:`scale_by_zoom_linesearch`.
        verbose: print why a search failed.
        has_aux: see :func:`scale_by_backtracking_linesearch`.
        aux_like: see there.
        value_and_grad: see there.

    Returns:
        A transformation with the ``update`` of :func:`scale_by_backtracking_linesearch`. Its state
        is a :class:`ScaleByMoreThuenteLinesearchState`.

    Raises:
        TypeError, ValueError: as :func:`scale_by_backtracking_linesearch`.

    References:
        More & Thuente, Line search algorithms with guaranteed sufficient decrease, ACM TOMS 20
        (1994), 286-307. Hager & Zhang, Algorithm 851: CG_DESCENT, ACM TOMS 32 (2006), 113-137.

    Example:
        >>> import jax, jax.numpy as jnp, optax_ls
        >>> def fn(w):
        ...     return jnp.sum((w - 1.0) ** 4)
        >>> search = optax_ls.scale_by_more_thuente_linesearch(30, curv_rtol=0.1)
        >>> w = jnp.array([1.0, 2.0, 3.0])
        >>> value, grad = jax.value_and_grad(fn)(w)
        >>> given = dict(value=value, grad=grad, value_fn=fn)
        >>> updates, state = search.update(-grad, search.init(w), w, **given)
        >>> bool(jnp.abs(jnp.vdot(grad, state.grad)) < 0.1 * jnp.vdot(grad, grad))
        True
    """
    checks.whole_number("max_linesearch_steps", max_linesearch_steps, at_least=1)
    checks.number("max_learning_rate", max_learning_rate, above=0, optional=True)
    search = MoreThuente(
        max_linesearch_steps, max_learning_rate, slope_rtol, curv_rtol, noise_rtol, interval_rtol
    )
    return driver.Driver(
        "scale_by_more_thuente_linesearch",
        search,
        initial_guess(initial_guess_strategy),
        ScaleByMoreThuenteLinesearchState,
        MoreThuenteLinesearchInfo,
        has_aux=has_aux,
        aux_like=aux_like,
        gives_grad=value_and_grad,
        verbose=verbose,
    ).transformation()
