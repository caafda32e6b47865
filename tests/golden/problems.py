"""The problems of the golden runs, all with params of one shape, so that one program solves any.

Params are a tree of three leaves: ``x``, twelve real numbers; ``z``, six complex ones; ``w``, a
matrix. Most problems use ``x`` alone. "MGH" is Moré, Garbow & Hillstrom (1981), "Testing
Unconstrained Optimization Software"; those of fewer dimensions are repeated along ``x``. Data are
fractions of small integers, so every machine has the same.
"""

import jax
import jax.numpy as jnp
import numpy as np

SIZE = 12


def made_up(*shape):
    """Numbers between -1 and 1 that look random, all multiples of 1/128."""
    states = [12345]
    for _ in range(int(np.prod(shape))):
        states.append((1103515245 * states[-1] + 12345) % 2**31)
    return (np.array(states[1:]) // 2**16 % 256 - 128).reshape(shape) / 128


FEATURES = made_up(40, SIZE)
LABELS = np.sign(FEATURES @ np.arange(-5, SIZE - 5) + 4 * made_up(40))
STIFFNESS = np.array([1, 3, 10, 40, 150, 500, 2e3, 7e3, 2e4, 8e4, 3e5, 1e6])  # condition 1e6
SENSORS = made_up(30, 6) + 1j * made_up(6, 30).T
SIGNAL = np.array([1 + 0.5j, -0.5, 0.25j, 0.75 - 1j, -1.0 - 0.25j, 0.5 + 0.5j])
INTENSITIES = np.abs(SENSORS @ SIGNAL) ** 2
TARGETS = np.array([3 * a * b - c**2 for a, b, c in FEATURES[:, :3]])


def blocks(x, size):
    """The coordinates of each block, as ``size`` vectors."""
    return jnp.reshape(x, (-1, size)).T


def rosenbrock(x):
    """MGH 21, extended Rosenbrock."""
    a, b = blocks(x, 2)
    return jnp.sum(100 * (b - a**2) ** 2 + (1 - a) ** 2)


def powell_singular(x):
    """MGH 22, extended Powell: the Hessian is singular at the minimum."""
    a, b, c, d = blocks(x, 4)
    return jnp.sum((a + 10 * b) ** 2 + 5 * (c - d) ** 2 + (b - 2 * c) ** 4 + 10 * (a - d) ** 4)


def wood(x):
    """MGH 14: a saddle on the way."""
    a, b, c, d = blocks(x, 4)
    valleys = 100 * (b - a**2) ** 2 + (1 - a) ** 2 + 90 * (d - c**2) ** 2 + (1 - c) ** 2
    return jnp.sum(valleys + 10 * (b + d - 2) ** 2 + (b - d) ** 2 / 10)


def beale(x):
    """MGH 5."""
    a, b = blocks(x, 2)
    return jnp.sum(sum((y - a * (1 - b**k)) ** 2 for k, y in enumerate((1.5, 2.25, 2.625), 1)))


def helical_valley(x):
    """MGH 7: a valley that winds around an axis."""
    a, b, c = blocks(x, 3)
    turns = jnp.arctan(b / a) / (2 * np.pi) + jnp.where(a < 0, 0.5, 0)
    return jnp.sum(100 * ((c - 10 * turns) ** 2 + (jnp.sqrt(a**2 + b**2) - 1) ** 2) + c**2)


def variably_dimensioned(x):
    """MGH 25."""
    slant = jnp.sum(jnp.arange(1, SIZE + 1) * (x - 1))
    return jnp.sum((x - 1) ** 2) + slant**2 + slant**4


def trigonometric(x):
    """MGH 26."""
    row = jnp.arange(1, SIZE + 1)
    return jnp.sum((SIZE - jnp.sum(jnp.cos(x)) + row * (1 - jnp.cos(x)) - jnp.sin(x)) ** 2)


def broyden_tridiagonal(x):
    """MGH 30."""
    around = jnp.pad(x, 1)
    return jnp.sum(((3 - 2 * x) * x - around[:-2] - 2 * around[2:] + 1) ** 2)


def stiff_quadratic(x):
    """The plainest ill-conditioned problem there is."""
    return jnp.sum(jnp.asarray(STIFFNESS, x.dtype) * (x - 1) ** 2) / 2


def logistic_regression(x):
    """Forty points in two overlapping classes, and a penalty."""
    margins = jnp.asarray(LABELS[:, None] * FEATURES, x.dtype) @ x
    return jnp.mean(jnp.logaddexp(0, -margins)) + 0.01 * jnp.sum(x**2)


def log_sum_exp(x):
    """A smooth maximum of forty planes."""
    return jax.nn.logsumexp(4 * jnp.asarray(FEATURES, x.dtype) @ x + jnp.asarray(LABELS, x.dtype))


def phase_retrieval(params):
    """A complex signal from the intensities it leaves (Candès, Li & Soltanolkotabi 2015, 2.1)."""
    z = params["z"]
    intensities = jnp.abs(jnp.asarray(SENSORS, z.dtype) @ z) ** 2
    return jnp.mean((intensities - jnp.asarray(INTENSITIES, intensities.dtype)) ** 2) / 2


def network(params):
    """A network of four hidden units, fitted to a polynomial of three inputs."""
    w, bias, out, last = params["w"], params["x"][:4], params["x"][4:8], params["x"][8]
    inputs = jnp.asarray(FEATURES[:, :3], w.dtype)
    residuals = jnp.tanh(inputs @ w + bias) @ out + last - jnp.asarray(TARGETS, w.dtype)
    return jnp.mean(residuals**2)


def start(x=(0.0,), z=(0.0,), w=((0.0,),)):
    """Params for a problem; what is too short is repeated."""
    shapes = {"x": (SIZE,), "z": (6,), "w": (3, 4)}
    leaves = {"x": np.array(x, float), "z": np.array(z, complex), "w": np.array(w, float)}
    return {name: np.resize(leaves[name], shape) for name, shape in shapes.items()}


OF_X = {
    rosenbrock: (-1.2, 1),
    powell_singular: (3, -1, 0, 1),
    wood: (-3, -1, -3, -1),
    beale: (1, 1),
    helical_valley: (-1, 0, 0),
    variably_dimensioned: 1 - np.arange(1, SIZE + 1) / SIZE,
    trigonometric: (10 / SIZE,),  # a tenth of it is so near to zero that values are rounding
    broyden_tridiagonal: (-1,),
    stiff_quadratic: (0,),
    logistic_regression: (0,),
    log_sum_exp: (0,),
}
STARTS = {fun.__name__: start(x) for fun, x in OF_X.items()}
STARTS["phase_retrieval"] = start(z=(1, 1j, -1, -1j))
STARTS["network"] = start(x=made_up(SIZE), w=made_up(3, 4))
OBJECTIVES = [*(lambda params, fun=fun: fun(params["x"]) for fun in OF_X), phase_retrieval, network]


def objective(params, kind):
    """The problem whose number in ``STARTS`` is ``kind``."""
    return jax.lax.switch(kind, OBJECTIVES, params)
