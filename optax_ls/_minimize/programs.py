"""The compiled programs of ``minimize``: one for a function, settings and shapes of arguments."""

import dataclasses
import functools
import inspect
import weakref
from collections.abc import Callable
from typing import Any, NamedTuple, Optional

import jax
import jax.numpy as jnp
import numpy as np

from .._core import checks, numerics, objective, tree
from .._core.linesearch.driver import LineSearch
from . import loop
from .flatten import Flattening
from .history import History
from .reporting import Reporter
from .result import MinimizeResult
from .state import MinimizeState, init
from .termination import Limits, status_before


class Inputs(NamedTuple):
    """The arguments of the objective after the params."""

    args: tuple[Any, ...]
    kwargs: dict[str, Any]


@dataclasses.dataclass(frozen=True)
class Settings:
    """All that a program depends on beside the function and the shapes of its arguments.

    Attributes:
        search: the line search.
        memory_size: pairs in the memory.
        has_aux: whether the function returns ``(value, aux)``.
        gives_grad: whether the function returns its gradient too.
        rows: of the history; 0 for none.
        report: the callback and the progress bar; None without them.
        joins_leaves: whether small leaves share a vector.
    """

    search: LineSearch
    memory_size: int
    has_aux: bool
    gives_grad: bool
    rows: int
    report: Optional[Reporter]
    joins_leaves: bool


def is_array(x: Any) -> bool:
    """Whether a program takes it as an input; for anything else it is compiled anew."""
    return isinstance(x, (jax.Array, np.ndarray, np.generic, bool, int, float, complex))


# Programs by function. An entry lives as long as its function: programs refer to it weakly.
_PROGRAMS: "weakref.WeakKeyDictionary[Any, dict[Any, Any]]" = weakref.WeakKeyDictionary()


def solve(
    fun: Callable[..., Any],
    params: Any,
    inputs: Inputs,
    settings: Settings,
    limits: Limits,
    state: Optional[MinimizeState],
) -> MinimizeResult:
    """Runs the compiled program, which is looked up, or compiled on the first call."""
    # A callable that is a tree (an Equinox module, a jax.tree_util.Partial) has arrays of its own.
    is_tree = not jax.tree_util.all_leaves([fun])
    leaves, structure = jax.tree.flatten((fun if is_tree else None, inputs))
    arrays = [leaf if is_array(leaf) else None for leaf in leaves]
    others = tuple(None if is_array(leaf) else leaf for leaf in leaves)
    try:
        owner: Any = fun
        name: Any = None
        find: Optional[Callable[[], Any]] = None
        if is_tree:
            owner = type(fun)
        elif inspect.ismethod(fun):  # a new object at each access; the object it is bound to stays
            owner, name, find = fun.__self__, fun.__func__, weakref.WeakMethod(fun)
        else:
            find = weakref.ref(fun)
        programs = _PROGRAMS.setdefault(owner, {})
        key = (name, settings, structure, others)
        program = programs.get(key)
    except TypeError:  # something has no hash or no weak reference, so no later call can find it
        programs, key, program = {}, None, None
        find = None if is_tree else lambda: fun
    if program is None:
        program = jax.jit(functools.partial(_run, find, settings, structure, others))
        programs[key] = program
    result: MinimizeResult = program(params, arrays, limits, state)
    return result


def _run(
    find: Optional[Callable[[], Any]],
    settings: Settings,
    structure: Any,
    others: tuple[Any, ...],
    params: Any,
    arrays: list[Any],
    limits: Limits,
    state: Optional[MinimizeState],
) -> MinimizeResult:
    """The program: all that happens under jit."""
    leaves = [b if a is None else a for a, b in zip(arrays, others, strict=True)]
    fun, inputs = jax.tree.unflatten(structure, leaves)
    if find is not None:
        fun = find()
    dtype = numerics.search_dtype(params)
    evaluate = evaluator(fun, inputs, settings, dtype)
    params = jax.tree.map(jnp.asarray, params)
    flattening = Flattening.of(params, joins=settings.joins_leaves)
    start = flattening.flatten(params)
    evaluate, like = objective.trace(
        flattening.flatten_objective(lambda p: evaluate(jax.tree.map(numerics.like, p, params))),
        start,
    )
    if state is None:
        state = init(settings.search, start, like.aux, settings.memory_size)
    else:
        checks.same_structure("aux of fun", like.aux, "state.aux", state.aux, dtypes=True)
        limits = limits.counted_from(state.num_iters, state.num_evals)
        state = flattening.flatten_state(state._replace(status=status_before(state, limits)))
    history = History.empty(settings.rows, dtype) if settings.rows else None
    report = None
    if settings.report is not None:
        tell = settings.report.bind()

        def report(state: MinimizeState, *happened: jax.Array) -> jax.Array:
            return tell(flattening.unflatten_state(state), *happened)

    state, history = loop.run(settings.search, evaluate, state, limits, history, report)
    best, value = loop.best(state)
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
        gtol=limits.gtol,
    )


def evaluator(
    fun: Callable[..., Any], inputs: Inputs, settings: Settings, dtype: Any
) -> Callable[[Any], objective.Evaluation]:
    """The objective as a function of the params alone."""
    return objective.bind(
        lambda params: fun(params, *inputs.args, **inputs.kwargs),
        {},
        dtype=dtype,
        has_aux=settings.has_aux,
        gives_grad=settings.gives_grad,
        name="fun",
    )
