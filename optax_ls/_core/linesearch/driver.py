"""Runs a line search along a direction: the protocol of a search, and the transformations' driver.

A line search knows only scalars: phi(step) = f(params + step * updates) and its slope phi'(step).
It does not call the objective. It says which step to evaluate next, and is given the result
(reverse communication, as MINPACK-2's ``dcsrch``). :func:`scale_by_linesearch` describes the
protocol in full.

The objective is called at one place, the body of the driver's loop, so it is compiled once.
"""

import dataclasses
from collections.abc import Callable
from typing import Any, Generic, NamedTuple, Protocol

import chex
import jax
import jax.numpy as jnp

from .. import checks, numerics, placement, reductions, transforms, tree
from ..objective import Evaluation, bind
from ..types import (
    Flag,
    GradientTransformationExtraArgs,
    Params,
    Scalar,
    State,
    Tree,
    Updates,
    map_leaves,
)
from .conditions import Message


class LineSearch(Protocol[State]):
    """A line search by reverse communication; see :func:`scale_by_linesearch`."""

    def start(self, value: Scalar, slope: Scalar, step: Scalar) -> State:
        """Begins a search from phi(0) and phi'(0), trying ``step``, or a shorter one, first."""

    def advance(self, state: State, value: Scalar, slope: Scalar) -> State:
        """Takes phi and phi' at ``state.step``; accepts the step, chooses another, or gives up."""


def check(name: str, search: object, alternatives: str = "") -> None:
    """Raises TypeError unless ``search``, the argument ``name``, follows the protocol.

    ``alternatives`` names other values that are accepted, and ends in "or ".
    """
    wanted = f"{name} must be {alternatives}a line search, such as optax_ls.MoreThuente(30)"
    if isinstance(search, type):
        raise TypeError(f"{wanted}, got the class {search.__name__} instead of an instance of it")
    if hasattr(search, "init") and hasattr(search, "update"):
        raise TypeError(
            f"{wanted}, got a gradient transformation (init and update); one that contains a line "
            "search, such as scale_by_zoom_linesearch(30), is used in optax_ls.chain as it is"
        )
    missing = [part for part in ("start", "advance") if not callable(getattr(search, part, None))]
    if missing:
        raise TypeError(
            f"{wanted}, got an object of type {type(search).__name__}, which has no "
            f"{' and no '.join(missing)}; see optax_ls.scale_by_linesearch for what a search needs"
        )


def begin(search: LineSearch[State], value: Scalar, slope: Scalar, step: Scalar) -> State:
    """The first state of a search, of strong-typed arrays; raises TypeError if it lacks a field.

    The arguments are phi(0), phi'(0) and the step to try first, of the search dtype.
    """
    state = search.start(value, slope, step)
    kind = type(search).__name__
    missing = [field for field in ("step", "done", "failed") if not hasattr(state, field)]
    if missing:
        raise TypeError(
            f"the state that {kind}.start returns must have step, done and failed; "
            f"{type(state).__name__} has no {' and no '.join(missing)}"
        )
    checks.arrays(f"the state that {kind}.start returns", state)
    return map_leaves(numerics.strong, state)


def observe(search: LineSearch[State], state: State, value: Scalar, slope: Scalar) -> State:
    """The state after phi and phi' at ``state.step``, in the dtypes of the state before.

    A value that is not finite becomes infinity. Raises ValueError if the structure changes.
    """
    advanced = search.advance(state, jnp.where(jnp.isfinite(value), value, jnp.inf), slope)
    kind = type(search).__name__
    checks.same_structure(f"{kind}.advance(...)", advanced, f"{kind}.start(...)", state)
    return numerics.keep_types(advanced, state)


def needs_slope(search: LineSearch) -> bool:
    """True if ``search.advance`` uses the slope."""
    return bool(getattr(search, "needs_slope", True))


class _Carry(NamedTuple):
    """The carry of the driver's loop."""

    search: Any  # the state of the search
    fresh: Flag  # true before the first evaluation
    ended: Flag  # true once the search is done and its step is the one evaluated last
    found: Evaluation  # the last one


@dataclasses.dataclass(frozen=True, eq=False)
class Driver(Generic[State]):
    """The transformation that scales updates by the step that a line search finds.

    The fields without a comment are arguments of :func:`scale_by_linesearch`.
    """

    name: str  # its public name, for messages
    search: LineSearch
    first_step: Callable[[Scalar], chex.Numeric]  # maps the last learning rate to the first trial
    make_state: Callable[..., State]  # the class of its state
    make_info: Any  # the class of the report in its state
    has_aux: bool
    aux_like: Any
    gives_grad: bool  # the argument value_and_grad
    verbose: bool
    store_grad: bool = True

    def __post_init__(self) -> None:
        if self.aux_like is not None and not self.has_aux:
            raise ValueError(
                "aux_like is an example of the objective's aux: set has_aux=True as well"
            )
        checks.arrays("aux_like", self.aux_like)

    def transformation(self) -> GradientTransformationExtraArgs[State]:
        return GradientTransformationExtraArgs(self.init, self.update)

    def init(self, params: Params) -> State:
        """The state before the first search."""
        checks.float_leaves("params", params)
        dtype = numerics.search_dtype(params)
        one, infinite = jnp.ones((), dtype), jnp.full((), jnp.inf, dtype)
        state = self.make_state(
            learning_rate=one,
            value=infinite,
            grad=numerics.zeros_alike(params) if self.store_grad else None,
            info=self._info(begin(self.search, infinite, infinite, one)),
            aux=jax.tree.map(placement.zeros, self.aux_like),
        )
        return placement.beside(state, params)

    def update(
        self,
        updates: Updates,
        state: Any,
        params: Any = None,
        *,
        value: Any = None,
        grad: Any = None,
        value_fn: Any = None,
        **extra_args: Any,
    ) -> tuple[Updates, State]:
        """The scaled updates, and the state after a search along them."""
        checks.given(self.name, params=params, value=value, grad=grad, value_fn=value_fn)
        checks.state_of(self.name, state, self.make_state)
        checks.float_leaves("params", params)
        checks.same_structure("updates", updates, "params", params)
        checks.same_structure("grad", grad, "params", params)
        if self.store_grad:
            checks.same_structure("state.grad", state.grad, "params", params)
        params = jax.tree.map(jnp.asarray, params)
        dtype = state.value.dtype
        value = numerics.strong(checks.scalar("value must be", value), dtype)
        evaluate = self._bind(value_fn, extra_args, state)
        with placement.on_mesh_of(params, updates, value, grad):
            end = self._search(params, updates, value, grad, evaluate, state)
        if self.verbose:
            self._print_if_failed(end.search)
        new_state = self.make_state(
            learning_rate=numerics.strong(end.search.step, dtype),
            value=end.found.value,
            grad=end.found.grad,
            info=self._info(end.search),
            aux=end.found.aux,
        )
        return _scaled(end.search.step, updates, params), new_state

    def _bind(
        self, value_fn: Callable[..., Any], extra_args: dict[str, Any], state: Any
    ) -> Callable[[Params], Evaluation]:
        """The objective as a function of the params, without auxiliary output that is not kept."""
        checks.function("value_fn", value_fn)
        checks.keywords("value_fn", value_fn, extra_args)
        evaluate = bind(
            lambda params: value_fn(params, **extra_args),
            dtype=state.value.dtype,
            has_aux=self.has_aux,
            with_grad=self.store_grad or needs_slope(self.search),
            gives_grad=self.gives_grad,
        )

        def evaluate_and_check_aux(params: Params) -> Evaluation:
            found = evaluate(params)
            if self.aux_like is None:
                return found._replace(aux=None)
            checks.same_structure("aux", found.aux, "aux_like", state.aux, dtypes=True)
            return found

        return evaluate_and_check_aux

    def _info(self, state: Any) -> Any:
        """The info on a search; a field that its state does not have is None."""
        name_of = {"num_linesearch_steps": "num_steps"}
        fields = self.make_info._fields
        return self.make_info(*(getattr(state, name_of.get(f, f), None) for f in fields))

    @numerics.promotes
    def _search(
        self,
        params: Params,
        updates: Updates,
        value: Scalar,
        grad: Updates,
        evaluate: Callable[[Params], Evaluation],
        state: Any,
    ) -> _Carry:
        """Runs the search until it is done and its step is the one evaluated last.

        The loop overwrites the value, the gradient and the auxiliary output in ``state``, so that
        it needs no memory of its own for them.
        """
        search, dtype = self.search, value.dtype
        first_step = numerics.strong(self.first_step(state.learning_rate), dtype)

        def iterate(carry: _Carry) -> _Carry:
            step = carry.search.step
            found = evaluate(transforms.apply_updates(params, _scaled(step, updates, params)))
            # The slope at the start is computed here too, so that the two share one all-reduce.
            grads = (grad, tree.conj(found.grad)) if needs_slope(search) else (grad,)
            slope_init, *slopes = reductions.inner([(updates, g) for g in grads], dtype)
            slope = slopes[0] if slopes else jnp.zeros((), dtype)
            begun = begin(search, value, slope_init, first_step)
            before = tree.where(carry.fresh, begun, carry.search)
            after = tree.where(before.done, before, observe(search, before, found.value, slope))
            if not self.store_grad:
                found = found._replace(grad=None)
            new = _Carry(
                search=after,
                fresh=jnp.zeros((), bool),
                # A search may end at an earlier step, which is then evaluated once more.
                ended=before.done | (after.done & (after.step == step)),
                found=numerics.keep_types(found, carry.found),
            )
            return placement.varying_with(new, carry)

        first = _Carry(
            search=begin(search, value, -jnp.ones((), dtype), first_step),
            fresh=jnp.ones((), bool),
            ended=jnp.zeros((), bool),
            found=Evaluation(value, state.grad, state.aux),
        )
        first = placement.beside(first, params, updates, value, grad, state)
        return jax.lax.while_loop(lambda carry: ~carry.ended, iterate, first)

    def _print_if_failed(self, state: Any) -> None:
        messages = [Message(True, f"INFO: {self.name}: the search failed.", {})]
        if hasattr(self.search, "diagnose"):
            messages += self.search.diagnose(state)
        for condition, text, numbers in messages:
            jax.lax.cond(
                state.failed & condition,
                lambda text=text, numbers=numbers: jax.debug.print(text, **numbers),
                lambda: None,
            )


@numerics.promotes
def _scaled(step: Scalar, updates: Tree, params: Params) -> Tree:
    """``step * updates`` in the dtypes of ``params``; zeros for a step of 0, never NaN."""
    return map_leaves(
        lambda u, p: numerics.strong(jnp.where(step == 0, 0, step * u), p.dtype), updates, params
    )
