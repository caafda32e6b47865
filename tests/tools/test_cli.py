"""The command line: what it prints and writes, its exit statuses, and one line for each mistake."""

import csv
import json
import os
import shutil
import signal
import subprocess
import sys
import time
import zipfile
from pathlib import Path

import jax
import numpy as np
import pytest
from jax.experimental.compilation_cache import compilation_cache

import optax_ls
from optax_ls._tools.cli import main

PACKAGE = Path(optax_ls.__file__).parent
CACHE = {
    "jax_persistent_cache_min_compile_time_secs": 0,
    "jax_persistent_cache_min_entry_size_bytes": -1,
}

FUNCTIONS = """
from dataclasses import dataclass

import jax.numpy as jnp
import numpy as np
from neighbour import SCALE


@dataclass
class Settings:
    scale: "float" = SCALE


def rosenbrock(x):
    return jnp.sum(Settings().scale * (x[1:] - x[:-1] ** 2) ** 2 + (1 - x[:-1]) ** 2)


def quadratic(x):
    return jnp.sum((x - 3) ** 2)


def of_dict(params):
    return jnp.sum((params["w"] - 1) ** 2) + (params["b"] - 2) ** 2


def of_complex(z):
    return jnp.sum(jnp.abs(z - (1 + 2j)) ** 2)


def with_aux(x):
    return jnp.sum(x**2), x


def logarithm(x):
    return jnp.sum(jnp.log(x))


def vector(x):
    return x


def nothing(x):
    pass


def branching(x):
    return x[0] if x[0] > 0 else -x[0]


def of_numpy(x):
    return np.linalg.norm(np.asarray(x))


def talkative(x):
    print("x" * 100_000, flush=True)
    return jnp.sum(x**2)


def failing(x):
    return jnp.sum(x) + undefined


def leaving(x):
    raise SystemExit(0)


three = 3
"""


@pytest.fixture(scope="module", autouse=True)
def cache(tmp_path_factory):
    """Programs are compiled once for all tests here: each call imports its functions anew."""
    wanted = {**CACHE, "jax_compilation_cache_dir": str(tmp_path_factory.mktemp("cache"))}
    before = {name: getattr(jax.config, name) for name in wanted}
    for name, value in wanted.items():
        jax.config.update(name, value)
    compilation_cache.reset_cache()
    yield {name.upper(): str(value) for name, value in wanted.items()}
    for name, value in before.items():
        jax.config.update(name, value)
    compilation_cache.reset_cache()


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A folder to work in, which holds functions; what they change of Python is undone."""
    (tmp_path / "functions.py").write_text(FUNCTIONS)
    (tmp_path / "neighbour.py").write_text("SCALE = 100.0\n")
    (tmp_path / "broken.py").write_text("1 / 0\n")
    (tmp_path / "needy.py").write_text("import nowhere_to_be_found\n")
    (tmp_path / "ill.py").write_text("def f(:\n")
    (tmp_path / "script.py").write_text("import sys\n\nsys.exit(0)\n")
    monkeypatch.chdir(tmp_path)
    modules, x64 = set(sys.modules), jax.config.jax_enable_x64
    monkeypatch.setattr(sys, "path", [*sys.path])
    jax.config.update("jax_enable_x64", False)
    yield tmp_path
    jax.config.update("jax_enable_x64", x64)
    for name in set(sys.modules) - modules:
        if str(tmp_path) in str(getattr(sys.modules[name], "__file__", "")):
            del sys.modules[name]


@pytest.fixture
def run(folder, capsys):
    """Runs a command line; returns status, stdout and stderr."""

    def execute(line, *more):
        status = main([*line.split(), *more])
        captured = capsys.readouterr()
        return status, captured.out, captured.err

    return execute


@pytest.fixture
def minimize(run):
    """Minimises a function of ``functions.py``, and returns the JSON that is printed."""

    def execute(line, *, status=0):
        ended, printed, complaints = run(f"minimize functions.py:{line} --json")
        assert (ended, complaints) == (status, "")
        return json.loads(printed)

    return execute


def test_bare_call_explains_itself_with_an_example(run):
    status, printed, _ = run("")
    assert status == 2
    assert "minimize rosen.py:rosenbrock --x0 -1.2 1" in printed


@pytest.mark.parametrize(
    ("line", "said"), [("--help", "commands:"), ("minimize --help", "--x0"), ("--version", "0.")]
)
def test_help_and_version_are_successes(run, capsys, line, said):
    with pytest.raises(SystemExit) as end:
        run(line)
    assert end.value.code == 0
    assert said in capsys.readouterr().out


def test_table_and_params_are_printed(run):
    status, printed, complaints = run("minimize functions.py:quadratic --x0 3 3")
    assert (status, complaints) == (0, "")
    assert printed.startswith("MinimizeResult\n")
    assert printed.endswith("params = [3. 3.]\n")


def test_long_params_are_shortened(run):
    np.save("x0.npy", np.zeros(1000))
    _, printed, _ = run("minimize functions.py:quadratic --x0 x0.npy")
    assert len(printed) < 600


def test_json_says_it_all(minimize):
    assert minimize("quadratic --x0 3 3") == {
        "success": True,
        "status": "GRADIENT_SMALL",
        "message": "The gradient is small: no entry is larger than --gtol. "
        "It is zero at the start: does the function depend on the params there?",
        "value": 0,
        "num_iters": 0,
        "num_evals": 1,
        "params": [3, 3],
        "grad": [0, 0],
    }


def test_numbers_in_json_have_as_few_digits_as_tell_them(minimize):
    assert minimize("quadratic --x0 0.1 --max-iters 0", status=1)["params"] == [0.1]


@pytest.mark.parametrize(("option", "digits"), [("--x64", 0.1234567890123), ("", 0.12345679)])
def test_64_bits_if_asked_for(minimize, option, digits):
    begun = minimize(f"quadratic --x0 0.1234567890123 --max-iters 0 {option}", status=1)
    assert begun["params"] == [digits]


@pytest.mark.parametrize(
    "numbers", ["-1.2 1", "-1.2,1", "-1.2, 1", "-1.2e0 1", "-12E-1,+1", "-1.2 , 1."]
)
def test_numbers_of_the_start(minimize, numbers):
    begun = minimize(f"quadratic --x0 {numbers} --max-iters 0", status=1)
    np.testing.assert_allclose(begun["params"], [-1.2, 1])


def test_start_in_a_file(minimize):
    np.save("x0.npy", np.full((2, 1), 0.5))
    begun = minimize("quadratic --x0 x0.npy --max-iters 0", status=1)
    assert begun["params"] == [[0.5], [0.5]]


@pytest.mark.parametrize("dtype", ["int64", ">i4", ">f8", "longdouble"])
def test_numbers_in_a_file_become_floats_of_this_machine(minimize, dtype):
    np.save("x0.npy", np.array([1, 2], dtype))
    assert minimize("quadratic --x0 x0.npy")["params"] == pytest.approx([3, 3])


def test_file_of_one_array_is_that_array(minimize):
    np.savez("x0.npz", anything=np.array([1.0, 2.0]))
    assert minimize("quadratic --x0 x0.npz")["params"] == pytest.approx([3, 3])


def test_file_of_several_arrays_is_a_dict(minimize):
    np.savez("x0.npz", w=np.zeros(3), b=np.array(0.0))
    begun = minimize("of_dict --x0 x0.npz --max-iters 0", status=1)
    assert begun["params"] == {"w": [0, 0, 0], "b": 0}


def test_one_array_of_several(minimize):
    np.savez("x0.npz", w=np.zeros(2), b=np.array(0.0))
    assert minimize("quadratic --x0 x0.npz:w")["params"] == pytest.approx([3, 3])


@pytest.mark.parametrize("dtype", ["complex128", ">c8", "clongdouble"])
def test_complex_params(minimize, dtype):
    np.save("x0.npy", np.zeros(2, dtype))
    params = minimize("of_complex --x0 x0.npy")["params"]
    np.testing.assert_allclose(params, [[1, 2]] * 2, rtol=1e-5)


def test_auxiliary_output(minimize):
    assert minimize("with_aux --x0 1 2 --has-aux --max-iters 0", status=1)["params"] == [1, 2]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        ("--max-iters 2", "ITERATION_LIMIT"),
        ("--max-evals 4", "EVALUATION_LIMIT"),
        ("--gtol 1e3", "GRADIENT_SMALL"),
        ("--ftol 0.9 --gtol 0", "VALUE_SETTLED"),
        ("--linesearch zoom --memory-size 3", "GRADIENT_SMALL"),
    ],
)
def test_settings_arrive(minimize, settings, reason):
    success = reason in ("GRADIENT_SMALL", "VALUE_SETTLED")
    end = minimize(f"rosenbrock --x0 -1.2 1 {settings}", status=0 if success else 1)
    assert (end["status"], end["success"]) == (reason, success)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("bounds", "params"),
    [("--upper 2", [2, 2]), ("--lower 4 5", [4, 5]), ("--lower -1 4 --upper high.npy", [2, 4])],
)
def test_bounds_arrive(minimize, bounds, params):
    np.save("high.npy", np.array([2.0, 6.0]))
    assert minimize(f"quadratic --x0 0 0 {bounds}")["params"] == params


def test_bounds_that_are_no_numbers_are_refused(run):
    status, _, complaints = run("minimize functions.py:quadratic --x0 1 2 --upper high")
    assert status == 2
    assert "--upper must be numbers, or one .npy or .npz file, got 'high'" in complaints


def test_advice_names_the_options(run):
    _, printed, _ = run("minimize functions.py:rosenbrock --x0 -1.2 1 --max-iters 1")
    assert "at the limit of iterations, --max-iters." in printed
    assert "or raise --max-iters. If it is low enough, give a larger --gtol." in printed


def test_what_is_not_finite_is_null_in_json(minimize):
    end = minimize("logarithm --x0 -1 2", status=1)
    assert (end["status"], end["value"]) == ("START_NOT_FINITE", None)


def test_function_of_a_module(run, folder):
    sys.path.insert(0, str(folder))
    status, _, _ = run("minimize functions:quadratic --x0 1 2")
    assert status == 0


def test_file_elsewhere_finds_its_neighbours(run, folder, monkeypatch):
    (folder / "elsewhere").mkdir()
    monkeypatch.chdir("elsewhere")
    status, _, _ = run(f"minimize {folder / 'functions.py'}:rosenbrock --x0 -1.2 1")
    assert status == 0


def test_course_as_csv(run):
    _, printed, _ = run("minimize functions.py:rosenbrock --x0 -1.2 1 --history out.csv")
    rows = list(csv.DictReader(Path("out.csv").read_text().splitlines()))
    assert list(rows[0]) == ["iteration", "value", "grad_norm", "step", "num_evals"]
    assert [int(row["iteration"]) for row in rows] == list(range(len(rows)))
    np.testing.assert_allclose(float(rows[0]["value"]), 24.2, rtol=1e-6)
    assert f"evaluations  {rows[-1]['num_evals']}\n" in printed
    assert "wrote out.csv" in printed


def test_saved_result(minimize, folder):
    np.savez("start.npz", w=np.zeros(3), b=np.array(0.0))
    end = minimize("of_dict --x0 start.npz --save end.npz")
    with np.load("end.npz", allow_pickle=False) as saved:
        np.testing.assert_array_equal(saved["params/w"], np.float32(end["params"]["w"]))
        np.testing.assert_array_equal(saved["grad/b"], np.float32(end["grad"]["b"]))
        assert saved["status"] == optax_ls.MinimizeStatus.GRADIENT_SMALL
        assert (saved["num_iters"], saved["num_evals"]) == (end["num_iters"], end["num_evals"])
        assert saved["value"] == np.float32(end["value"])
    assert not list(folder.glob(".*"))


@pytest.mark.parametrize(
    ("fun", "start"), [("rosenbrock", "-1.2 1"), ("of_dict", "start.npz --gtol 0")]
)
def test_saved_result_is_gone_on_from(minimize, fun, start):
    np.savez("start.npz", w=np.zeros(3), b=np.array(0.0))
    begun = minimize(f"{fun} --x0 {start} --max-evals 2 --save end.npz", status=1)
    gone_on = minimize(f"{fun} --x0 end.npz:params --gtol 0 --max-iters 0", status=1)
    assert gone_on["params"] == begun["params"]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "start"), [("out.png", b"\x89PNG"), ("out.pdf", b"%PDF"), ("out.SVG", b"<?xml")]
)
def test_picture(run, name, start):
    pytest.importorskip("matplotlib")
    status, _, _ = run(f"minimize functions.py:quadratic --x0 1 2 --plot {name}")
    assert status == 0
    assert Path(name).read_bytes().startswith(start)


def test_existing_file_is_replaced_where_a_link_leads(run, folder):
    (folder / "real.csv").write_text("old")
    (folder / "link.csv").symlink_to("real.csv")
    run("minimize functions.py:quadratic --x0 1 2 --history link.csv")
    assert (folder / "link.csv").is_symlink()
    assert (folder / "real.csv").read_text().startswith("iteration,")


MISTAKES = {
    "no function": ("minimize functions.py --x0 1", "FILE.py:NAME or MODULE:NAME"),
    "no name": ("minimize functions.py: --x0 1", "FILE.py:NAME or MODULE:NAME"),
    "no start": ("minimize functions.py:quadratic", "--x0"),
    "unknown command": ("maximize", "maximize"),
    "unknown option": ("minimize functions.py:quadratic --x0 1 --speed 9", "--speed"),
    "abbreviation": ("minimize functions.py:quadratic --x0 1 --max-it 9", "--max-it"),
    "file missing": ("minimize nowhere.py:f --x0 1", "no file nowhere.py"),
    "file without .py": ("minimize ./functions:f --x0 1", "neither a module nor a file"),
    "no module's name": ("minimize func-tions:f --x0 1", "neither a module nor a file"),
    "module missing": ("minimize nowhere_at_all:f --x0 1", "no module nowhere_at_all"),
    "part of a module missing": ("minimize json.nowhere:f --x0 1", "no module json.nowhere"),
    "function missing": ("minimize functions.py:cubic --x0 1", "functions.py has no cubic"),
    "not callable": ("minimize functions.py:three --x0 1", "of type int"),
    "word": ("minimize functions.py:quadratic --x0 1 two", "'two'"),
    "empty number": ("minimize functions.py:quadratic --x0 1,,2", "got ''"),
    "several files": ("minimize functions.py:quadratic --x0 a.npy b.npy", "one .npy or .npz file"),
    "start missing": ("minimize functions.py:quadratic --x0 no.npy", "cannot read no.npy"),
    "start is a folder": ("minimize functions.py:quadratic --x0 dir.npy", "cannot read dir.npy"),
    "start is text": ("minimize functions.py:quadratic --x0 text.npy", "not a file of"),
    "start is a broken zip": ("minimize functions.py:quadratic --x0 zip.npz", "not a file of"),
    "start holds objects": ("minimize functions.py:quadratic --x0 objects.npy", "not a file of"),
    "start holds words": ("minimize functions.py:quadratic --x0 words.npy", "dtype <U3"),
    "start holds truths": ("minimize functions.py:quadratic --x0 pair.npz", "pair.npz:b must"),
    "start holds nothing": ("minimize functions.py:quadratic --x0 empty.npz", "holds no array"),
    "no such array": ("minimize functions.py:quadratic --x0 pair.npz:c", "it holds a, b"),
    "no arrays to choose": ("minimize functions.py:quadratic --x0 one.npy:c", "without a name"),
    "saved result": ("minimize functions.py:quadratic --x0 saved.npz", "--x0 saved.npz:params"),
    "vector": ("minimize functions.py:vector --x0 1 2", "array of shape (2,)"),
    "nothing": ("minimize functions.py:nothing --x0 1 2", "None"),
    "aux not announced": ("minimize functions.py:with_aux --x0 1 2", "set --has-aux"),
    "no aux": ("minimize functions.py:quadratic --x0 1 --has-aux", "with --has-aux fun must"),
    "not for JAX": ("minimize functions.py:branching --x0 1", "jax.lax.cond"),
    "for NumPy": (
        "minimize functions.py:of_numpy --x0 1",
        "passes a value that JAX traces to NumPy",
    ),
    "no float": ("minimize functions.py:quadratic --x0 1 --gtol small", "--gtol"),
    "no integer": ("minimize functions.py:quadratic --x0 1 --max-iters 1.5", "--max-iters"),
    "negative": ("minimize functions.py:quadratic --x0 1 --gtol -1", ": --gtol must be at least"),
    "no pairs": ("minimize functions.py:quadratic --x0 1 --memory-size 0", ": --memory-size must"),
    "many bounds": (
        "minimize functions.py:quadratic --x0 1 2 --upper 1 2 3",
        ": --upper for params",
    ),
    "no search": ("minimize functions.py:quadratic --x0 1 --linesearch fast", "'more_thuente'"),
    "no folder": ("minimize functions.py:quadratic --x0 1 --save no/out.npz", "no/out.npz"),
    "folder": ("minimize functions.py:quadratic --x0 1 --history dir.npy", "is not a file"),
    "device": ("minimize functions.py:quadratic --x0 1 --history /dev/null", "is not a file"),
    "saved under a name that cannot be read": (
        "minimize functions.py:quadratic --x0 1 --save out.txt",
        "--save: the name must end in .npz, got 'out.txt'",
    ),
    "one file for two": (
        "minimize functions.py:quadratic --x0 1 --save out.npz --history ./out.npz",
        "files of their own",
    ),
}


@pytest.mark.parametrize(("line", "said"), MISTAKES.values(), ids=MISTAKES)
def test_mistake_is_told_in_one_line_and_nothing_written(run, folder, line, said):
    (folder / "dir.npy").mkdir()
    (folder / "text.npy").write_text("1 2 3")
    (folder / "zip.npz").write_bytes(b"PK\x03\x04 and so on")
    np.save("one.npy", np.zeros(2))
    np.save("objects.npy", np.array([object()]), allow_pickle=True)
    np.save("words.npy", np.array(["one", "two"]))
    np.savez("pair.npz", a=np.zeros(2), b=np.array([True]))
    np.savez("saved.npz", params=np.zeros(2), status=np.array(1))
    with zipfile.ZipFile("empty.npz", "w"):
        pass
    before = set(folder.iterdir())
    status, printed, complaint = run(line)
    assert (status, printed) == (2, "")
    assert said in complaint
    assert complaint.count("\n") == 1
    assert {path for path in folder.iterdir() if path.name != "__pycache__"} == before


@pytest.mark.parametrize(
    ("line", "cause", "said"),
    [
        ("minimize functions.py:failing --x0 1", "undefined", "functions.py:failing raised"),
        ("minimize broken.py:f --x0 1", "1 / 0", "broken.py cannot be imported"),
        ("minimize needy.py:f --x0 1", "nowhere_to_be_found", "needy.py cannot be imported"),
        ("minimize ill.py:f --x0 1", "def f(:", "ill.py cannot be imported"),
        ("minimize script.py:f --x0 1", "sys.exit(0)", "script.py cannot be imported: SystemExit"),
        ("minimize functions.py:leaving --x0 1", "SystemExit(0)", "functions.py:leaving raised"),
    ],
)
def test_error_of_the_users_code_has_its_traceback(run, line, cause, said):
    status, printed, complaint = run(line)
    assert (status, printed) == (2, "")
    assert 2 < complaint.count("\n") < 12
    assert cause in complaint
    assert str(PACKAGE) not in complaint
    assert said in complaint.splitlines()[-1]


@pytest.mark.parametrize("name", ["out", "out.doc"])
def test_picture_of_an_unknown_kind(run, name):
    pytest.importorskip("matplotlib")
    status, _, complaint = run(f"minimize functions.py:quadratic --x0 1 --plot {name}")
    assert status == 2
    assert "must end in one of" in complaint


def test_matplotlib_missing(run, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    status, printed, complaint = run("minimize functions.py:quadratic --x0 1 --plot out.png")
    assert (status, printed) == (2, "")
    assert "pip install matplotlib" in complaint


@pytest.mark.skipif(os.name != "posix" or os.geteuid() == 0, reason="root may write anywhere")
def test_file_that_must_not_be_written(run, folder):
    (folder / "out.csv").touch(mode=0o400)
    status, _, complaint = run("minimize functions.py:quadratic --x0 1 --history out.csv")
    assert status == 2
    assert "out.csv exists and is not a file that may be written" in complaint


def test_result_is_told_though_a_file_cannot_be_written_in_the_end(run, folder, monkeypatch):
    def full(self, target):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "replace", full)
    status, printed, complaint = run("minimize functions.py:quadratic --x0 3 3 --save out.npz")
    assert status == 2
    assert "params = [3. 3.]" in printed
    assert "cannot write out.npz: No space left on device" in complaint
    assert not list(folder.glob(".*"))


def test_interruption_is_told_and_leaves_nothing(run, folder, monkeypatch):
    def interrupt(*args, **kwargs):
        raise KeyboardInterrupt

    monkeypatch.setattr(sys.modules["optax_ls._tools.minimize"], "minimize", interrupt)
    status, _, complaint = run("minimize functions.py:quadratic --x0 1 2 --save out.npz")
    assert status == 130
    assert "interrupted" in complaint
    assert not list(folder.glob(".*"))
    assert not (folder / "out.npz").exists()


SLOW = """
import time
from pathlib import Path

import jax
import jax.numpy as jnp

evaluations = []


def wait():
    evaluations.append(None)
    time.sleep(0.01)
    if len(evaluations) == 20:
        Path("running").touch()


def rosenbrock(x):
    jax.debug.callback(wait)
    return jnp.sum(100 * (x[1:] - x[:-1] ** 2) ** 2 + (1 - x[:-1]) ** 2)
"""
INTERRUPTIBLE = """
import signal, sys
from optax_ls._tools.cli import main
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell may have set it to be ignored
sys.exit(main(sys.argv[1:]))
"""


@pytest.mark.skipif(os.name != "posix", reason="signals of POSIX")
def test_files_are_written_of_an_interrupted_run(folder, cache):
    (folder / "slow.py").write_text(SLOW)
    np.save(folder / "x0.npy", np.full(1000, -1.0))
    line = "minimize slow.py:rosenbrock --x0 x0.npy --gtol 0 --save x.npz --history h.csv --json"
    process = subprocess.Popen(
        [sys.executable, "-c", INTERRUPTIBLE, *line.split()],
        cwd=folder,
        env={**os.environ, **cache, "PYTHONPATH": str(PACKAGE.parent)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    while process.poll() is None and not (folder / "running").exists():
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    printed, complaint = process.communicate(timeout=60)
    assert (process.returncode, complaint) == (130, "python -m optax_ls: interrupted\n")
    end = json.loads(printed)
    assert (end["status"], end["success"]) == ("RUNNING", False)
    with np.load(folder / "x.npz") as saved:
        assert saved["value"] == np.float32(end["value"])
        np.testing.assert_array_equal(saved["params"], np.float32(end["params"]))
    rows = list(csv.DictReader((folder / "h.csv").read_text().splitlines()))
    assert len(rows) == end["num_iters"] + 1
    assert not list(folder.glob(".*"))


class Terminal:
    """A stream that says that it is a terminal."""

    def __init__(self, stream):
        self.stream = stream

    def __getattr__(self, name):
        return getattr(self.stream, name)

    def isatty(self):
        return True


@pytest.mark.parametrize("quiet", [False, True])
def test_bar_is_for_terminals_unless_quiet(run, monkeypatch, capsys, quiet):
    monkeypatch.setattr(sys, "stderr", Terminal(sys.stderr))
    _, _, shown = run(f"minimize functions.py:quadratic --x0 1 2 {'--quiet' * quiet}")
    assert ("max |grad|" in shown) != quiet


@pytest.fixture
def python(folder, cache):
    """Runs Python in the folder, in a process of its own."""
    environment = {**os.environ, **cache, "PYTHONPATH": str(PACKAGE.parent)}

    def execute(*words):
        return subprocess.run(
            [sys.executable, *words], cwd=folder, env=environment, capture_output=True, text=True
        )

    return execute


@pytest.mark.slow
@pytest.mark.parametrize(
    ("line", "status"),
    [
        ("functions.py:quadratic --x0 1 2 --json", 0),
        ("functions:quadratic --x0 1 2 --max-iters 0 --json", 1),
        ("functions.py:cubic --x0 1 2", 2),
    ],
)
def test_exit_status_of_the_process(python, line, status):
    done = python("-m", "optax_ls", "minimize", *line.split())
    assert done.returncode == status, done.stderr
    if status == 2:
        assert done.stderr == "python -m optax_ls: functions.py has no cubic\n"
    else:
        assert json.loads(done.stdout)["success"] == (status == 0)


@pytest.mark.slow
def test_copy_in_another_package(python, folder):
    home = folder / "myproject" / "_vendor" / "optax_ls"
    shutil.copytree(PACKAGE, home, ignore=shutil.ignore_patterns("__pycache__"))
    for package in (home.parent, home.parent.parent):
        (package / "__init__.py").touch()
    words = ["minimize", "functions.py:quadratic", "--x0", "3", "3", "--save", "end.npz"]
    done = python("-m", "myproject._vendor.optax_ls", *words)
    assert done.returncode == 0, done.stderr
    assert "params = [3. 3.]" in done.stdout
    mistaken = python("-m", "myproject._vendor.optax_ls", "minimise")
    assert mistaken.returncode == 2
    assert mistaken.stderr.startswith("python -m myproject._vendor.optax_ls: ")


PIPED = """
import os, subprocess, sys
os.environ.pop("PYTHONUNBUFFERED", None)
reading, writing = os.pipe()
os.close(reading)  # as a reader does that has seen enough
done = subprocess.run(sys.argv[1:], stdout=writing, stderr=subprocess.PIPE, text=True)
sys.stdout.write(f"{done.returncode} {done.stderr}")
"""


@pytest.mark.slow
@pytest.mark.skipif(os.name != "posix", reason="pipes of POSIX")
@pytest.mark.parametrize(
    "line", ["vendor lib --dry-run", "info", "--help", "minimize functions.py:quadratic --x0 3"]
)
def test_broken_pipe_ends_a_command_quietly(python, line):
    done = python("-c", PIPED, sys.executable, "-m", "optax_ls", *line.split())
    assert done.stdout == "141 "


@pytest.mark.skipif(os.name != "posix", reason="pipes of POSIX")
def test_broken_pipe_in_the_function_is_quiet(python):
    command = [sys.executable, "-m", "optax_ls", "minimize", "functions.py:talkative", "--x0", "3"]
    assert python("-c", PIPED, *command).stdout == "141 "


@pytest.mark.skipif(os.name != "posix", reason="pipes of POSIX")
def test_broken_pipe_in_the_middle_of_the_output_is_quiet(python):
    unbuffered = [sys.executable, "-u", "-m", "optax_ls", "vendor", "lib", "--dry-run"]
    done = python("-c", PIPED, *unbuffered)
    assert done.stdout == "141 "


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="a device of Linux")
def test_output_that_cannot_be_written_is_an_error_of_one_line(python):
    full = "import subprocess, sys; subprocess.run(sys.argv[1:], stdout=open('/dev/full', 'w'))"
    done = python("-c", full, sys.executable, "-m", "optax_ls", "info")
    assert done.stderr == "python -m optax_ls: [Errno 28] No space left on device\n"
