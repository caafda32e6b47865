"""The example for many devices: one answer wherever it runs, the same bits after a process died.

Answers agree to rounding only: devices add the terms of a sum in another order.
"""

import contextlib
import importlib.util
import os
import re
import signal
import socket
import subprocess
import sys
import threading
from pathlib import Path

import jax
import numpy as np
import outputs
import pytest
from jax.sharding import Mesh
from promises import needs

import optax_ls

ROOT = Path(__file__).parents[2]
SCRIPT = ROOT / "examples" / "many_devices.py"
SMALL = ["--rows", "512", "--features", "32"]
# Of the largest entry; the gradient at the end is 1e-12, the curvature at least 1e-4.
TOLERANCE = 1e-8

pytestmark = needs("several processes, automatic axes")
needs_orbax = pytest.mark.skipif(
    importlib.util.find_spec("orbax") is None, reason="saving needs orbax-checkpoint"
)


@pytest.fixture(scope="module")
def example():
    spec = importlib.util.spec_from_file_location("many_devices", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def with_64_bits():
    """In all threads: Orbax has some of its own."""
    before = jax.config.jax_enable_x64
    jax.config.update("jax_enable_x64", True)
    yield
    jax.config.update("jax_enable_x64", before)


@pytest.fixture
def run(example, with_64_bits):
    """Runs the example in this process; returns the lines it says."""

    def run(*arguments):
        lines = []
        example.fit(example.read_options([*SMALL, *arguments]), lines.append)
        return lines

    return run


def environment():
    # The devices of the tests themselves are not for them.
    flags = os.environ["XLA_FLAGS"].split()
    flags = " ".join(flag for flag in flags if "device_count" not in flag)
    path = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
    return {**os.environ, "XLA_FLAGS": flags, "PYTHONPATH": path}


def start(*arguments, size=SMALL):
    return subprocess.Popen(
        [sys.executable, SCRIPT, *size, *map(str, arguments)],
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def start_two(*arguments):
    """Two processes with four devices each; a process that hears nothing for 20 seconds ends."""
    with socket.socket() as listener:
        listener.bind(("localhost", 0))
        port = listener.getsockname()[1]
    together = "--coordinator", f"localhost:{port}", "--num-processes", 2, "--timeout", 20
    return [
        start("--host-devices", 4, *together, "--process-id", process, *arguments)
        for process in range(2)
    ]


@contextlib.contextmanager
def no_longer_than(seconds, processes):
    """Kills what has not ended by then, so that a process that hangs fails a test."""

    def kill():
        for process in processes:
            process.kill()

    watch = threading.Timer(seconds, kill)
    watch.start()
    try:
        yield
    finally:
        watch.cancel()


def finish(*processes):
    """The output of the processes when they have ended; fails if one of them fails."""
    with no_longer_than(240, processes):
        said = [process.communicate()[0] for process in processes]
    for process, text in zip(processes, said, strict=True):
        assert process.returncode == 0, text
    return said


def kill_after(processes, victim, line):
    """Kills one process when the first says ``line``; what the other says, and its status."""
    with no_longer_than(240, processes):
        for said in processes[0].stdout:
            if said.strip() == line:
                break
        else:
            pytest.fail(f"the run ended before it said {line!r}")
        processes[victim].send_signal(signal.SIGKILL)
    survivor = processes[1 - victim]
    said, _ = survivor.communicate(timeout=120)
    processes[victim].communicate()
    return said, survivor.returncode


def iterations(said):
    """Lines with value and gradient, which show all bits, by iteration."""
    return {int(line[1]): line[0] for line in re.finditer(r"^iteration (\d+) .*$", said, re.M)}


@pytest.fixture(scope="module")
def on_one_device(example, enable_x64):
    with enable_x64(True):
        mesh = Mesh(np.array(jax.devices()[:1]), example.EVERYWHERE)
        data = example.make_data(mesh, 512, 32)
        result = optax_ls.minimize(example.loss, example.make_params(mesh, 32), args=data)
        assert result.success
        return {name: np.asarray(leaf) for name, leaf in result.params.items()}


def assert_same_answer(path, wanted):
    with np.load(path) as found:
        assert found["grad_norm"] < 1e-11
        for name, leaf in wanted.items():
            tolerance = TOLERANCE * np.max(np.abs(wanted["weights"]))
            np.testing.assert_allclose(found[name], leaf, rtol=0, atol=tolerance)


@pytest.mark.slow
def test_eight_devices_of_one_process_find_the_answer_of_one_device(on_one_device, tmp_path):
    answer = tmp_path / "answer.npz"
    finish(start("--host-devices", 8, "--every", 500, "--answer", answer))
    assert_same_answer(answer, on_one_device)


@needs_orbax
@pytest.mark.slow
def test_page_shows_what_the_example_prints(tmp_path):
    page = (ROOT / "docs" / "many-devices.md").read_text()
    command, shown = re.search(r"\$ python examples/(many.*)\n((?: {4}.*\n)+)", page).groups()
    words = command.replace("saved", str(tmp_path / "saved")).split()
    (said,) = finish(start(*words[1:], size=()))
    printed = said.splitlines()
    assert outputs.differences([line.strip() for line in shown.splitlines()], printed) == []


@needs_orbax
@pytest.mark.slow
@pytest.mark.parametrize(
    ("axes", "victim"),
    [
        pytest.param([], 1, id="automatic axes"),
        pytest.param(
            ["--explicit"],
            0,
            id="explicit axes, the coordinator",
            marks=needs("several processes, explicit axes"),
        ),
    ],
)
def test_two_processes_find_the_answer_also_after_one_was_killed(
    on_one_device, tmp_path, axes, victim
):
    whole, answer = tmp_path / "whole.npz", tmp_path / "answer.npz"
    said, _ = finish(*start_two(*axes, "--checkpoint-dir", tmp_path / "1", "--answer", whole))
    assert "2 process(es), 8 devices" in said
    assert_same_answer(whole, on_one_device)
    wanted = iterations(said)

    saving = *axes, "--checkpoint-dir", tmp_path / "2", "--answer", answer
    said, status = kill_after(start_two(*saving), victim, "saved 30")
    assert status != 0
    if victim == 1:
        # Its own words where a collective broke. On a busy machine JAX may miss signs of life
        # first, and ends it with words of its own.
        assert re.search("Process 0 ends without an answer|indicates that another task died", said)
    assert not answer.exists()

    said, _ = finish(*start_two(*saving, "--resume"))
    resumed_after = int(re.search(r"resumed after iteration (\d+)", said)[1])
    assert 30 <= resumed_after < max(wanted)
    # The same bits as without an interruption.
    assert iterations(said) == {k: line for k, line in wanted.items() if k > resumed_after}
    with np.load(answer) as ours, np.load(whole) as theirs:
        np.testing.assert_array_equal(ours["weights"], theirs["weights"])


@pytest.mark.slow
@needs_orbax
@pytest.mark.parametrize("axes", [(), ("--explicit",)], ids=["automatic", "explicit"])
def test_scan_of_lbfgs_goes_on_with_the_same_bits(run, tmp_path, axes):
    fit = "--solver", "lbfgs", "--every", "5", *axes
    whole = run(*fit, "--iterations", "15")
    saving = "--checkpoint-dir", str(tmp_path / "saved")
    run(*fit, *saving, "--iterations", "10")
    resumed = run(*fit, *saving, "--iterations", "15", "--resume")
    assert "resumed after iteration 10" in resumed
    assert whole[-2].startswith("iteration 15")
    assert whole[-2] in resumed


@needs_orbax
def test_run_that_is_there_is_not_mixed_with_another(run, tmp_path):
    folder = tmp_path / "saved"
    (folder / "10").mkdir(parents=True)
    with pytest.raises(SystemExit, match="say --resume"):
        run("--checkpoint-dir", str(folder))
    assert [path.name for path in folder.iterdir()] == ["10"]


def test_data_do_not_depend_on_who_makes_them(example):
    whole, parts = example.make_rows(0, 6, 3), [example.make_rows(k, k + 2, 3) for k in (0, 2, 4)]
    for which in range(2):
        np.testing.assert_array_equal(whole[which], np.concatenate([p[which] for p in parts]))


@pytest.mark.parametrize("option", ["--rows", "--features"])
def test_what_devices_cannot_share_evenly_is_refused(run, option):
    with pytest.raises(SystemExit, match=f"{option} must be a multiple of the"):
        run(option, "1000001")


@pytest.mark.parametrize(
    "arguments", [["--every", "0"], ["--iterations", "-1"], ["--resume"]], ids=" ".join
)
def test_options_that_make_no_sense_are_refused(example, arguments, capsys):
    with pytest.raises(SystemExit):
        example.read_options(arguments)
    assert arguments[0] in capsys.readouterr().err
