"""Valid objectives compile, and compiling takes no more memory than their gradient does.

JAX 0.11 and newer compile a small loop as one function. XLA then copies a long expression of few
numbers until memory is gone, in every loop: docs/speed.md has the flag that prevents it.
"""

import os
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import optax_ls

COMPILES_SMALL_LOOPS_WHOLE = jax.__version_info__ >= (0, 11)
AS_SEVERAL_FUNCTIONS = "--xla_backend_extra_options=xla_cpu_small_while_loop_byte_threshold=1024"
GIGABYTES = 4

INTEGRATOR = f"""
import resource
resource.setrlimit(resource.RLIMIT_DATA, ({GIGABYTES} << 30, {GIGABYTES} << 30))
import jax, jax.numpy as jnp, optax_ls

def fun(q):
    p = jnp.zeros_like(q)
    for _ in range(20):
        p = p - 0.05 * jnp.sin(q) * (1 + 0.1 * q[::-1])
        q = q + 0.1 * p / jnp.sqrt(1 + p * p)
        p = p - 0.05 * jnp.sin(q)
    return jnp.sum((q - 0.4) ** 2) + 0.1 * jnp.sum(p**2)

x0 = jnp.array([1.0, -0.5, 0.2])
"""
# Compiled only: on JAX 0.10 the gradient alone takes minutes to run.
MINIMIZE = INTEGRATOR + "jax.jit(lambda x: optax_ls.minimize(fun, x).params).lower(x0).compile()"
GRADIENT_DESCENT = (
    INTEGRATOR
    + """
step = jax.jit(lambda x: jax.lax.fori_loop(0, 9, lambda _, x: x - 0.1 * jax.grad(fun)(x), x))
step.lower(x0).compile()
"""
)


def compiles(code, flags=""):
    """True if a process with little memory runs the code."""

    environment = {
        **os.environ,
        "JAX_PLATFORMS": "cpu",
        "XLA_FLAGS": flags,
        "PYTHONPATH": str(Path(optax_ls.__file__).parents[1]),
    }
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, env=environment, capture_output=True, timeout=300)
    print(done.stderr.decode())
    return done.returncode == 0


@pytest.mark.slow
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="limits memory as Linux does")
def test_unrolled_integrator_compiles_in_little_memory():
    assert compiles(MINIMIZE, AS_SEVERAL_FUNCTIONS if COMPILES_SMALL_LOOPS_WHOLE else "")


@pytest.mark.slow
@pytest.mark.skipif(not COMPILES_SMALL_LOOPS_WHOLE, reason="XLA compiles loops in parts")
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="limits memory as Linux does")
def test_loop_over_an_unrolled_integrator_takes_all_memory_of_this_jax():
    """When this fails XLA has been mended: remove the advice from docs/xla.md and docs/speed.md."""
    assert not compiles(GRADIENT_DESCENT)
    assert compiles(GRADIENT_DESCENT, AS_SEVERAL_FUNCTIONS)


def test_objective_may_scatter():
    permutation = jnp.array([2, 0, 1])

    def fun(x, data):
        return jnp.sum((x - jnp.zeros(3).at[permutation].set(data)) ** 2)

    result = optax_ls.minimize(fun, jnp.ones(3), args=(jnp.arange(3.0),))
    np.testing.assert_allclose(result.params, [1.0, 2.0, 0.0], atol=1e-4)


CACHED = """
import jax, jax.numpy as jnp, optax_ls
jax.config.update("jax_compilation_cache_dir", {folder!r})
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)
optax_ls.minimize(lambda x: jnp.sum(jnp.cosh(x)), jnp.ones(3))
"""


@pytest.mark.slow
def test_a_second_process_finds_all_programs_in_the_cache(tmp_path):
    def run():
        assert compiles(CACHED.format(folder=str(tmp_path)))
        return {path.name for path in tmp_path.iterdir() if path.name.endswith("-cache")}

    first = run()
    assert any("advance" in name for name in first)
    assert run() == first
