"""The compiled programs of ``minimize``, for a function, settings and shapes of arguments.

Outside a trace the host runs the loop in slices (see ``host.py``): ``start`` makes the first state,
``advance`` goes on from a state until a pause. Inside a trace there is one program, ``whole``.
"""

import functools
import inspect
import weakref
from collections.abc import Callable
from typing import Any, NamedTuple, Optional

import jax
import jax.numpy as jnp
import numpy as np
from jax.tree_util import PyTreeDef
from jax.typing import ArrayLike, DTypeLike

from .._core import checks, numerics, objective, placement, tree
from .._core.linesearch.driver import LineSearch
from .._core.types import Counter, Flag, Params
from . import guards, loop
from .bounds import Bounds
from .flatten import Flattening
from .history import History
from .reporting import Reporter
from .result import MinimizeResult
from .state import MinimizeState, init
from .termination import Limits, Pause, status_before

ArrayLeaves = list[Optional[ArrayLike]]
"""The leaves of an objective and its arguments that are arrays; None for the others."""
Shapes = tuple[tuple[int, ...], ...]
"""The shapes of the inputs of a program."""


class Inputs(NamedTuple):
    """The arguments of the objective after the params."""

    args: tuple[object, ...]
    kwargs: dict[str, object]


class Problem(NamedTuple):
    """The inputs of a program that are the same in each slice of a run.

    Attributes:
        params: tree, the start.
        arrays: those of the objective and its arguments.
        bounds: of the params, or None.
        limits: when to stop.
    """

    params: Params
    arrays: ArrayLeaves
    bounds: Optional[Bounds]
    limits: Limits


class Settings(NamedTuple):
    """All that a program depends on beside the function and the shapes of its arguments.

    Attributes:
        search: the line search.
        memory_size: pairs in the memory.
        has_aux: whether the function returns ``(value, aux)``.
        gives_grad: whether the function returns its gradient too.
        rows: of the history; 0 for none.
        joins_leaves: whether small leaves share a vector.
    """

    search: LineSearch
    memory_size: int
    has_aux: bool
    gives_grad: bool
    rows: int
    joins_leaves: bool


def inputs_of(given: tuple[object, ...]) -> tuple[ArrayLeaves, tuple[object, ...], PyTreeDef]:
    """Splits a function and its arguments into the inputs of a program and its constants.

    Inputs are arrays of numbers, and Python numbers in the arguments. Python numbers in a function
    that is a tree are constants, as in an Equinox module for ``equinox.filter_jit``.

    Returns:
        The leaves that are inputs, with None for the others; the others, with None for inputs; and
        the structure.
    """
    leaves, structure = jax.tree.flatten(given)
    num_own = len(jax.tree.leaves(given[0]))
    arrays = [leaf if _is_input(leaf, k >= num_own) else None for k, leaf in enumerate(leaves)]
    others = [leaf if x is None else None for x, leaf in zip(arrays, leaves, strict=True)]
    return arrays, tuple(others), structure


def _is_input(leaf: object, is_argument: bool) -> bool:
    if isinstance(leaf, (np.ndarray, np.generic)):
        return leaf.dtype.kind not in "OSUMm"  # objects, texts and times
    is_number = is_argument and isinstance(leaf, (bool, int, float, complex))
    return is_number or isinstance(leaf, jax.Array)


def rejoined(arrays: ArrayLeaves, others: tuple[object, ...], structure: PyTreeDef) -> Any:
    """The inverse of :func:`inputs_of`."""
    leaves = [other if x is None else x for x, other in zip(arrays, others, strict=True)]
    return jax.tree.unflatten(structure, leaves)


class Programs:
    """The functions that are compiled for an objective.

    Attributes:
        start: ``_start``, compiled.
        advance: ``_advance``, compiled; the state and the history are donated.
        whole: a run from start to end, compiled.
        seconds: of one evaluation, by the shapes of the inputs, where it is known.
    """

    def __init__(
        self,
        find: Optional[Callable[[], Any]],
        settings: Settings,
        structure: PyTreeDef,
        others: tuple[object, ...],
    ) -> None:
        """``find`` returns the objective; None if it is a tree, whose arrays are inputs.

        ``structure`` is that of the objective and its arguments, ``others`` are the leaves of these
        that are no arrays.
        """
        self.find, self.settings, self.structure, self.others = find, settings, structure, others
        self.seconds: dict[Shapes, float] = {}
        self.start = jax.jit(self._start)
        self.advance = jax.jit(self._advance, donate_argnums=(3, 4))
        self.whole: Callable[..., MinimizeResult] = jax.jit(self._whole, static_argnames="report")
        # Compiled, so that all that use it trace it once.
        self.evaluate: Callable[..., objective.Evaluation] = jax.jit(self._evaluate, inline=True)

    def _evaluate(self, params: Params, arrays: ArrayLeaves) -> objective.Evaluation:
        fun, inputs = rejoined(arrays, self.others, self.structure)
        fun = fun if self.find is None else self.find()
        found = evaluator(fun, inputs, self.settings, None)(params)
        checks.arrays("aux", found.aux)
        return found

    def _start(
        self, problem: Problem, state: Optional[MinimizeState]
    ) -> tuple[Limits, Counter, MinimizeState, Optional[History]]:
        """The limits, the iterations so far, the state and the history with which a run begins."""
        settings, bounds = self.settings, problem.bounds
        params = jax.tree.map(jnp.asarray, problem.params)
        aux = None
        if settings.has_aux:
            aux = jax.eval_shape(self.evaluate, params, problem.arrays).aux
        if state is None:
            inside = params if bounds is None else bounds.project(params)
            state = init(settings.search, inside, aux, settings.memory_size)
            limits = problem.limits.counted_from(state)
        else:
            checks.same_structure("aux of fun", aux, "state.aux", state.aux, dtypes=True)
            limits = problem.limits.counted_from(state)
            state = state._replace(status=status_before(state, limits))
        history = None
        if settings.rows:
            history = History.empty(settings.rows, state).record(
                numerics.counter(), state.num_evals > 0, state
            )
        return limits, state.num_iters, state, history

    def _advance(
        self,
        problem: Problem,
        begin: Counter,
        pause: Optional[Pause],
        state: MinimizeState,
        history: Optional[History],
        report: Optional[Callable[..., Flag]] = None,
    ) -> MinimizeResult:
        """Goes on from a state until the end or a pause; only the types of the params matter."""
        bounds, params = problem.bounds, jax.tree.map(jnp.asarray, problem.params)
        flattening = Flattening.of(params, joins=self.settings.joins_leaves)

        def evaluate_flat(flat: Params) -> objective.Evaluation:
            inside = jax.tree.map(numerics.like, flattening.unflatten(flat), params)
            found = self.evaluate(inside, problem.arrays)
            return found._replace(grad=flattening.flatten(found.grad))

        flat_params = jax.eval_shape(flattening.flatten, params)
        evaluate, closed_over, value_dtype = guards.trace(evaluate_flat, flat_params)
        flat_bounds = None if bounds is None else flattening.flatten_bounds(bounds)
        in_loop = report and (
            lambda state, *happened: report(flattening.unflatten_state(state), *happened)
        )
        state, history = loop.run(
            self.settings.search,
            functools.partial(evaluate, closed_over),
            value_dtype,
            flattening.flatten_state(state),
            problem.limits,
            flat_bounds,
            pause,
            begin,
            history,
            in_loop,
        )
        best, value = loop.best(state, flat_bounds)
        state = flattening.unflatten_state(state)
        return MinimizeResult(
            params=jax.tree.map(numerics.like, flattening.unflatten(best.params), params),
            value=value,
            grad=tree.conj(flattening.unflatten(best.grad)),
            aux=best.aux,
            num_iters=state.num_iters,
            num_evals=state.num_evals,
            status=state.status,
            state=state,
            history=history,
            gtol=problem.limits.gtol,
            active=None if bounds is None else bounds.active(flattening.unflatten(best.params)),
        )

    def _whole(
        self, problem: Problem, state: Optional[MinimizeState], report: Optional[Reporter]
    ) -> MinimizeResult:
        params, arrays, bounds, limits = problem
        if "Manual" in placement.kinds_of_axes(()):
            found = jax.eval_shape(self.evaluate, params, arrays)
            params = placement.varying_with(params, found, bounds, limits, state)
            problem = problem._replace(params=params)
        limits, begin, state, history = self._start(problem, state)
        problem = problem._replace(limits=limits)
        in_program = None if report is None else report.in_program()
        return self._advance(problem, begin, None, state, history, in_program)


# Programs by function. An entry lives as long as its function: programs refer to it weakly.
# Beyond so many programs of a function the oldest is dropped.
_MOST = 64
_PROGRAMS: "weakref.WeakKeyDictionary[object, dict[object, Programs]]" = weakref.WeakKeyDictionary()


def look_up(
    fun: Callable[..., Any], inputs: Inputs, settings: Settings
) -> tuple[Programs, ArrayLeaves]:
    """The programs for an objective, and the arrays that are their inputs."""
    # A callable that is a tree (an Equinox module, a jax.tree_util.Partial) has arrays of its own.
    is_tree = not jax.tree_util.all_leaves([fun])
    arrays, others, structure = inputs_of((fun if is_tree else None, inputs))
    owner: object = type(fun) if is_tree else fun
    method: object = None
    if inspect.ismethod(fun):  # a new object at each access; the object it is bound to stays
        owner, method = fun.__self__, fun.__func__
    key = (method, settings, structure, others, tuple(map(type, others)))
    find: Optional[Callable[[], Any]] = None if is_tree else lambda: fun
    try:
        known = _PROGRAMS.setdefault(owner, {})
        if key in known:
            return known[key], arrays
        if not is_tree:
            find = weakref.ref(fun) if method is None else weakref.WeakMethod(fun)
    except TypeError:  # something has no hash or no weak reference, so no later call can find it
        return Programs(find, settings, structure, others), arrays
    if len(known) >= _MOST:
        known.pop(next(iter(known)))
    programs = known[key] = Programs(find, settings, structure, others)
    return programs, arrays


def evaluator(
    fun: Callable[..., Any], inputs: Inputs, settings: Settings, dtype: Optional[DTypeLike]
) -> Callable[[Params], objective.Evaluation]:
    """The objective as a function of the params alone; ``dtype`` as for :func:`objective.bind`."""
    return objective.bind(
        lambda params: fun(params, *inputs.args, **inputs.kwargs),
        dtype=dtype,
        has_aux=settings.has_aux,
        gives_grad=settings.gives_grad,
        name="fun",
    )
