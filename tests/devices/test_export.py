"""The programs for GPUs and TPUs, lowered where there are none."""

import re

import jax
import jax.numpy as jnp
import pytest

import optax_ls

export = pytest.importorskip("jax.export")

WEIGHTS = jax.ShapeDtypeStruct((10**6,), jnp.float32)
SOLVER = optax_ls.lbfgs()


def objective(w):
    return jnp.sum((w - 1) ** 2 + w**4)


def minimize(w):
    return optax_ls.minimize(objective, w).params


def step(w, state):
    value, grad = optax_ls.value_and_grad_from_state(objective)(w, state=state)
    updates, state = SOLVER.update(grad, state, w, value=value, grad=grad, value_fn=objective)
    return optax_ls.apply_updates(w, updates), state


@pytest.mark.parametrize("platform", ["cuda", "tpu"])
@pytest.mark.parametrize("function", [minimize, step])
def test_program_has_few_loops_and_nothing_that_needs_the_host(function, platform):
    state = () if function is minimize else (jax.eval_shape(SOLVER.init, WEIGHTS),)
    exported = export.export(jax.jit(function), platforms=[platform])(WEIGHTS, *state)
    program = exported.mlir_module()
    assert exported.platforms == (platform,)
    assert 1 <= len(re.findall(r"stablehlo\.while", program)) <= 4
    assert "custom_call" not in program  # callbacks and routines of one platform are such calls
    assert "infeed" not in program
    assert "outfeed" not in program
