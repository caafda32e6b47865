"""The transformations that Optax has: backtracking and zoom, with their settings and states.

The value, the gradient and the auxiliary output in a state are those at the params that the last
update led to.
"""

from collections.abc import Callable
from typing import Any, NamedTuple, Optional

import chex
import jax.numpy as jnp

from .. import checks
from ..types import Counter, GradientTransformationExtraArgs, Scalar, Updates
from . import driver
from .backtracking import Backtracking
from .zoom import Zoom


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


def initial_guess(strategy: str) -> Callable[[Scalar], chex.Numeric]:
    """The first step of a search as a function of the last learning rate."""
    checks.one_of("initial_guess_strategy", strategy, ("one", "keep"))
    if strategy == "one":
        return lambda learning_rate: 1.0
    return lambda learning_rate: jnp.where(learning_rate > 0, learning_rate, 1)


def scale_by_backtracking_linesearch(
    max_backtracking_steps: chex.Numeric,
    slope_rtol: chex.Numeric = 1e-4,
    decrease_factor: chex.Numeric = 0.8,
    increase_factor: chex.Numeric = 1.5,
    max_learning_rate: chex.Numeric = 1.0,
    atol: chex.Numeric = 0.0,
    rtol: chex.Numeric = 0.0,
    store_grad: bool = False,
    verbose: bool = False,
    *,
    has_aux: bool = False,
    aux_like: Any = None,
    value_and_grad: bool = False,
) -> GradientTransformationExtraArgs[ScaleByBacktrackingLinesearchState]:
    r"""Scales updates by a step that decreases the objective sufficiently (Armijo's rule).

    From a first guess the step :math:`\eta` is multiplied by ``decrease_factor`` until

    .. math::
        f(w + \eta u) \le (1 + \delta) f(w) + \eta c \langle u, \nabla f(w) \rangle + \epsilon

    with :math:`c` = ``slope_rtol``, :math:`\delta` = ``rtol``, :math:`\epsilon` = ``atol``. A step
    where the objective is NaN or infinite is rejected. If no step is accepted the last one is
    taken, or none if the objective is not finite there.

    Args:
        max_backtracking_steps: how often the step may be shortened, at least 0.
        slope_rtol: :math:`c`, the decrease required relative to the slope; in [0, 1).
        decrease_factor: the factor of a rejected step; in (0, 1).
        increase_factor: the first guess is this times the last learning rate; positive. 1 keeps
            it, ``math.inf`` always starts at ``max_learning_rate``.
        max_learning_rate: upper bound of the first guess.
        atol: absolute tolerance of the decrease.
        rtol: tolerance of the decrease relative to the objective.
        store_grad: evaluate the gradient with each value and keep the last, for
            :func:`value_and_grad_from_state`.
        verbose: print why a search failed.
        has_aux: whether ``value_fn`` returns ``(value, aux)``.
        aux_like: an example of ``aux`` (arrays or :class:`jax.ShapeDtypeStruct`); the state then
            keeps ``aux`` at the step chosen, for :func:`value_and_grad_from_state`.
        value_and_grad: whether ``value_fn`` returns its gradient too, as
            :func:`jax.value_and_grad` does. Needed where JAX's gradient is not the one to use, as
            where devices average theirs.

    Returns:
        A transformation whose ``update`` takes ``value`` and ``grad``, the objective and its
        gradient at ``params`` (for complex params the conjugate of what :func:`jax.grad` gives),
        ``value_fn``, and the keyword arguments of ``value_fn``. It returns updates of the shapes
        and dtypes of the params. Its state is a :class:`ScaleByBacktrackingLinesearchState`.

    Raises:
        TypeError, ValueError: a setting of the wrong type or out of range; at ``init`` or
            ``update``, leaves that are no floats, arguments that are missing, do not fit the
            params, or that ``value_fn`` does not take, an objective that returns no scalar.

    References:
        Nocedal & Wright, Numerical Optimization, 2nd ed. (2006), Algorithm 3.1, page 37.

    Example:
        >>> import jax, jax.numpy as jnp, optax_ls
        >>> def fn(w, x, y):
        ...     return (x @ w - y) ** 2
        >>> search = optax_ls.scale_by_backtracking_linesearch(max_backtracking_steps=15)
        >>> w, data = jnp.ones(3), dict(x=jnp.array([3.0, 2.0, 1.0]), y=jnp.array(0.0))
        >>> value, grad = jax.value_and_grad(fn)(w, **data)
        >>> updates, state = search.update(
        ...     -grad, search.init(w), w, value=value, grad=grad, value_fn=fn, **data
        ... )
        >>> bool(fn(optax_ls.apply_updates(w, updates), **data) < value)
        True
    """
    checks.whole_number("max_backtracking_steps", max_backtracking_steps, at_least=0)
    checks.number("increase_factor", increase_factor, above=0)
    checks.number("max_learning_rate", max_learning_rate, above=0)

    def first_step(learning_rate: Scalar) -> Scalar:
        # After a search that did not move, every multiple of its step would be 0.
        moved = learning_rate > 0
        guess = jnp.where(moved, learning_rate, 1) * increase_factor
        return jnp.where(moved, jnp.minimum(guess, max_learning_rate), max_learning_rate)

    return driver.Driver(
        "scale_by_backtracking_linesearch",
        Backtracking(max_backtracking_steps, slope_rtol, decrease_factor, atol, rtol),
        first_step,
        ScaleByBacktrackingLinesearchState,
        BacktrackingLinesearchInfo,
        store_grad=store_grad,
        has_aux=has_aux,
        aux_like=aux_like,
        gives_grad=value_and_grad,
        verbose=verbose,
    ).transformation()


def scale_by_zoom_linesearch(
    max_linesearch_steps: chex.Numeric,
    max_learning_rate: Optional[chex.Numeric] = None,
    tol: chex.Numeric = 0.0,
    increase_factor: chex.Numeric = 2.0,
    slope_rtol: chex.Numeric = 1e-4,
    curv_rtol: chex.Numeric = 0.9,
    approx_dec_rtol: Optional[chex.Numeric] = 1e-6,
    stepsize_precision: chex.Numeric = 1e-5,
    initial_guess_strategy: str = "keep",
    verbose: bool = False,
    *,
    has_aux: bool = False,
    aux_like: Any = None,
    value_and_grad: bool = False,
) -> GradientTransformationExtraArgs[ScaleByZoomLinesearchState]:
    r"""Scales updates by a step of sufficient decrease and small curvature (strong Wolfe).

    The step :math:`\eta` satisfies

    .. math::
        f(w + \eta u) \le f(w) + \eta c_1 \langle u, \nabla f(w) \rangle + \epsilon, \qquad
        |\langle u, \nabla f(w + \eta u) \rangle| \le c_2 |\langle u, \nabla f(w) \rangle|
        + \epsilon

    with :math:`c_1` = ``slope_rtol``, :math:`c_2` = ``curv_rtol``, :math:`\epsilon` = ``tol``; or,
    where rounding hides the decrease, Hager & Zhang's approximation of the first condition. If no
    step does within the limits, the best step of sufficient decrease is taken; if there is none,
    the last one tried, or none if the objective is not finite there.

    Args:
        max_linesearch_steps: how many steps may be tried, at least 1.
        max_learning_rate: the largest step; None for no limit.
        tol: absolute tolerance of both conditions.
        increase_factor: the factor of the step until an interval is found; positive, and useful
            above 1.
        slope_rtol: :math:`c_1`, in [0, 1).
        curv_rtol: :math:`c_2`; ``math.inf`` switches the second condition off.
        approx_dec_rtol: how far the value may lie above that at the params, relative to it, for
            Hager & Zhang's test to apply; None switches that test off.
        stepsize_precision: length of the interval below which the best step so far is taken.
        initial_guess_strategy: ``'keep'`` tries the last learning rate first (good with
            :func:`sgd`), ``'one'`` tries 1 (good with quasi-Newton directions).
        verbose: print why a search failed.
        has_aux: see :func:`scale_by_backtracking_linesearch`.
        aux_like: see there.
        value_and_grad: see there.

    Returns:
        A transformation with the ``update`` of :func:`scale_by_backtracking_linesearch`. Its state
        is a :class:`ScaleByZoomLinesearchState`.

    Raises:
        TypeError, ValueError: as :func:`scale_by_backtracking_linesearch`.

    References:
        Nocedal & Wright, Numerical Optimization, 2nd ed. (2006), Algorithms 3.5 and 3.6, pages
        60 and 61. Hager & Zhang, Algorithm 851: CG_DESCENT, ACM TOMS 32 (2006), 113-137.

    Example:
        >>> import jax, jax.numpy as jnp, optax_ls
        >>> def fn(w):
        ...     return jnp.sum((w - 1.0) ** 4)
        >>> search = optax_ls.scale_by_zoom_linesearch(max_linesearch_steps=15)
        >>> w = jnp.array([1.0, 2.0, 3.0])
        >>> value, grad = jax.value_and_grad(fn)(w)
        >>> given = dict(value=value, grad=grad, value_fn=fn)
        >>> updates, state = search.update(-grad, search.init(w), w, **given)
        >>> bool(jnp.abs(jnp.vdot(grad, state.grad)) < 0.9 * jnp.vdot(grad, grad))
        True
    """
    checks.whole_number("max_linesearch_steps", max_linesearch_steps, at_least=1)
    checks.number("max_learning_rate", max_learning_rate, above=0, optional=True)
    search = Zoom(
        max_linesearch_steps,
        max_learning_rate,
        tol,
        increase_factor,
        slope_rtol,
        curv_rtol,
        approx_dec_rtol,
        stepsize_precision,
    )
    return driver.Driver(
        "scale_by_zoom_linesearch",
        search,
        initial_guess(initial_guess_strategy),
        ScaleByZoomLinesearchState,
        ZoomLinesearchInfo,
        has_aux=has_aux,
        aux_like=aux_like,
        gives_grad=value_and_grad,
        verbose=verbose,
    ).transformation()
