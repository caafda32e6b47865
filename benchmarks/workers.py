"""Runs tasks in processes of their own, so that a run which hangs or dies stops no other.

A worker runs many tasks, of both dtypes, because it takes a minute to import sif2jax.
"""

import multiprocessing
import signal
import time
from collections import deque
from multiprocessing.connection import wait

GRACE = 300.0  # seconds beyond the time limit, for imports and compilation, until a worker is ended


def run_task(task, timeout):
    """The record of one run, in this process."""
    import jax

    from . import problems
    from .counting import Tally, counted
    from .solvers import MAX_EVALS, MAX_ITERS, SOLVERS

    problem = problems.load(task.problem, task.dtype)
    started = time.monotonic()
    tally = Tally(problem.threshold, MAX_EVALS, timeout)
    record = {**task._asdict(), "n": problem.start.size}
    try:
        fun = counted(problem.objective, tally)
        ended = SOLVERS[task.solver](fun, problem.start, problem.bounds)
    except Exception as error:
        record["end"] = tally.end or "error"
        if tally.end is None:
            record["message"] = f"{type(error).__name__}: {error}"[:1000]
    else:
        if tally.evals >= MAX_EVALS:
            record["end"] = "evaluations"
        else:
            record["end"] = "iterations" if ended.iterations >= MAX_ITERS else "solver"
        record.update(message=ended.message, iterations=ended.iterations, own_evals=ended.evals)
    jax.clear_caches()
    record.update(
        evals=tally.evals,
        values_only=tally.values_only,
        solved_at=tally.solved_at,
        lowest=tally.lowest if tally.improvements else None,
        seconds=round(time.monotonic() - started, 3),
    )
    if problem.threshold is None:
        record.update(f0=problem.f0, improvements=tally.improvements)
    return record


def serve(pipe, timeout, cache):
    """The life of a worker: a task in, a record out, until the pipe is closed."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent sees to it
    import logging

    import jax

    logging.getLogger("jax").setLevel(logging.CRITICAL)  # it would report each stop of a run
    jax.config.update("jax_compilation_cache_dir", str(cache))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)
    while True:
        try:
            task = pipe.recv()
        except EOFError:
            return
        try:
            record = run_task(task, timeout)
        except Exception as error:
            record = failure(task, "error", f"{type(error).__name__}: {error}"[:1000])
        pipe.send(record)


def failure(task, end, message):
    """The record of a run that made none itself."""
    return {**task._asdict(), "end": end, "message": message, "solved_at": None}


class Worker:
    def __init__(self, timeout, cache):
        context = multiprocessing.get_context("spawn")
        self.timeout = timeout
        self.pipe, theirs = context.Pipe()
        self.process = context.Process(target=serve, args=(theirs, timeout, cache), daemon=True)
        self.process.start()
        theirs.close()

    def give(self, task):
        self.task = task
        self.deadline = time.monotonic() + self.timeout + GRACE
        self.pipe.send(task)

    def take(self, ready):
        """The record of its task, or None if that still runs."""
        if self.pipe in ready:
            try:
                return self.pipe.recv()
            except (EOFError, ConnectionError):
                self.process.join()
                return failure(self.task, "error", f"ended with code {self.process.exitcode}")
        if time.monotonic() > self.deadline:
            self.end()
            return failure(self.task, "time", "ended from outside")
        return None

    def end(self):
        self.pipe.close()
        self.process.kill()
        self.process.join()


def run_tasks(tasks, jobs, timeout, cache, keep):
    """Runs ``tasks`` on ``jobs`` workers, and hands each record to ``keep`` as it comes."""
    waiting, workers = deque(tasks), []
    try:
        while waiting or workers:
            while waiting and len(workers) < jobs:
                workers.append(Worker(timeout, cache))
                workers[-1].give(waiting.popleft())
            ready = wait([worker.pipe for worker in workers], timeout=1.0)
            for worker in list(workers):
                record = worker.take(ready)
                if record is None:
                    continue
                keep(record)
                if waiting and worker.process.is_alive():
                    worker.give(waiting.popleft())
                else:
                    worker.end()
                    workers.remove(worker)
    finally:
        for worker in workers:
            worker.end()
