"""Runs the compiled loop of ``minimize`` from the host, in slices.

A slice is the same program with a nearer limit, and a state that goes on gives the same bits, so
results do not depend on the slices. Between two slices Python calls the callback, updates the
progress bar, and raises KeyboardInterrupt. Inside a trace there are no slices.
"""

import signal
import sys
import threading
import time
from collections.abc import Callable
from types import FrameType
from typing import Any, Optional

import jax
import numpy as np

from .._core import numerics, placement
from .._core.types import Counter, Params
from .bounds import Bounds
from .guards import not_differentiable
from .programs import Inputs, Problem, Programs, Settings, Shapes, look_up
from .reporting import Reporter
from .result import MinimizeResult, MinimizeStatus
from .state import MinimizeState
from .termination import Limits, Pause

# The time that a slice should take, in seconds, so that Ctrl-C ends a run soon; and the largest
# factor between the numbers of evaluations of a slice and of the one before.
_SECONDS = 0.2
_GROWTH = 8
# The evaluations of each slice where several processes have to make the same slices.
_NUM_EVALS_OF_MANY = 16

_NO_DERIVATIVE = (
    "minimize is differentiable only with implicit_diff=True, and with respect to arrays in args, "
    "kwargs and bounds. If no derivative is wanted, apply jax.lax.stop_gradient to the arguments"
)


def solve(
    fun: Callable[..., Any],
    params: Params,
    inputs: Inputs,
    settings: Settings,
    bounds: Optional[Bounds],
    limits: Limits,
    state: Optional[MinimizeState],
    report: Optional[Reporter] = None,
) -> MinimizeResult:
    """Runs the compiled programs, which are compiled on the first call."""
    programs, arrays = look_up(fun, inputs, settings)
    problem = Problem(params, arrays, bounds, limits)
    if not _is_traced((problem, state)):
        result = _in_slices(programs, problem, state, report)
        if result is not None:
            return result
    problem, state = not_differentiable(_NO_DERIVATIVE, (problem, state))
    with placement.on_mesh_of(params, arrays):
        return programs.whole(problem, state, report=report)


def _is_traced(tree: object) -> bool:
    return any(isinstance(leaf, jax.core.Tracer) for leaf in jax.tree.leaves(tree))


def _in_slices(
    programs: Programs,
    problem: Problem,
    state: Optional[MinimizeState],
    report: Optional[Reporter],
) -> Optional[MinimizeResult]:
    """A run in slices; None if the function depends on something that is traced."""
    counts = (0, 0) if state is None else (_read(state.num_iters), _read(state.num_evals))
    limits, begin, state, history = programs.start(problem, state)
    if isinstance(state.value, jax.core.Tracer):
        return None
    problem = problem._replace(limits=limits)
    pace = Pace(programs.seconds, (problem.params, problem.arrays))
    if pace.is_new:
        # What the function closes over is constant in this trace, which the first slice uses too.
        pause = pace.next_pause(*counts, report)
        trace = jax.make_jaxpr(programs.advance)(problem, begin, pause, state, history)
        if _is_traced(trace.consts):
            return None
    observer = None if report is None else report.observer()
    result: Optional[MinimizeResult] = None
    try:
        while True:
            pause = pace.next_pause(*counts, report)
            with _InterruptsDeferred():  # the state is donated, so its successor must not be lost
                result = programs.advance(problem, begin, pause, state, history)
            ended = _read(result.status) != MinimizeStatus.RUNNING
            if ended and observer is None and not pace.is_new:
                return result  # without reading the counts from the device
            state, history, before = result.state, result.history, counts
            counts = _read(result.num_iters), _read(result.num_evals)
            pace.observe(counts[1] - before[1])
            if observer is not None:
                moved = counts[0] > before[0] or before[1] == 0
                if observer.observe_result(result, moved, ended) and not ended:
                    status = numerics.counter(int(MinimizeStatus.STOPPED_BY_CALLBACK))
                    return result._replace(status=status, state=state._replace(status=status))
            if ended:
                return result
    except BaseException as error:
        if observer is not None:
            observer.close()
        if isinstance(error, KeyboardInterrupt) and result is not None:
            error.result = result  # type: ignore[attr-defined]
        raise


def _read(counter: Counter) -> int:
    return int(np.asarray(counter))  # by NumPy, since int() of a JAX array takes longer


class _InterruptsDeferred:
    """Handles Ctrl-C at the end of the block."""

    def __enter__(self) -> None:
        self.handler: Any = None
        self.received: Optional[tuple[int, Optional[FrameType]]] = None
        if threading.current_thread() is threading.main_thread():
            handler = signal.getsignal(signal.SIGINT)
            if callable(handler):
                self.handler = handler
                signal.signal(signal.SIGINT, self._receive)

    def _receive(self, number: int, frame: Optional[FrameType]) -> None:
        self.received = number, frame

    def __exit__(self, *raised: object) -> None:
        if self.handler is not None:
            signal.signal(signal.SIGINT, self.handler)
        if self.received is not None:
            self.handler(*self.received)


class Pace:
    """Chooses the number of evaluations of each slice from the time that earlier ones took."""

    def __init__(self, seconds: dict[Shapes, float], inputs: object) -> None:
        """``seconds`` remembers the time of one evaluation for the shapes of ``inputs``."""
        self.seconds = seconds
        self.shapes = tuple([getattr(leaf, "shape", ()) for leaf in jax.tree.leaves(inputs)])
        self.is_new = self.shapes not in seconds
        self.number = 0 if self.is_new else self._affordable()
        self.begin = 0.0

    def _affordable(self) -> int:
        return max(1, int(_SECONDS / max(self.seconds[self.shapes], 1e-9)))

    def next_pause(self, num_iters: int, num_evals: int, report: Optional[Reporter]) -> Pause:
        """The totals of iterations and evaluations at which the next slice ends.

        With a callback, it ends after the start and after each iteration.
        """
        number = max(1, self.number) if jax.process_count() == 1 else _NUM_EVALS_OF_MANY
        last_iter = sys.maxsize
        if report is not None and num_evals == 0:
            number = 1
        elif report is not None and report.callback is not None:
            last_iter = num_iters + 1
        self.begin = time.perf_counter()
        return Pause(numerics.countable(last_iter), numerics.countable(num_evals + number))

    def observe(self, num_evals: int) -> None:
        """Takes the time of the slice that has ended, unless it was spent on compilation."""
        if self.number and num_evals:
            self.seconds[self.shapes] = (time.perf_counter() - self.begin) / num_evals
            self.number = min(self._affordable(), _GROWTH * self.number)
        else:
            self.number = 1
