"""Normalisation and activation in as few passes over a map as it takes.

Accelerators wait for memory here. Autodiff reads a map once for each sum, and
keeps which values an activation let pass; these functions make sums of one map
in one pass, and see again from the map what had passed. CPUs have C++ instead,
or keep what autodiff makes: results of both are equal up to rounding.
"""

import functools
import math
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

ACTIVATIONS: dict[str, Callable[[Any], Any]] = {
  'relu': jax.nn.relu,
  'relu6': jax.nn.relu6,
  'hard_swish': jax.nn.hard_swish,
}

# A map of any number of axes, and values that broadcast to it.
Values = Float[Array, '...']


def _is_positive(x: Values) -> Values:
  """Returns 1 or 0; a comparison would be written to memory and read."""
  return jnp.maximum(jnp.sign(x), 0)


def _of_relu6(x: Values) -> Values:
  return _is_positive(x) * _is_positive(6 - x)


# Derivatives of the activations.
SLOPES: dict[str, Callable[[Any], Any]] = {
  'relu': _is_positive,
  'relu6': _of_relu6,
  'hard_swish': lambda x: (jax.nn.relu6(x + 3) + x * _of_relu6(x + 3)) / 6,
}


def activate(x: Values, activation: str | None) -> Values:
  """Applies an activation by name; None: none."""
  return x if activation is None else ACTIVATIONS[activation](x)


def moments(x: Values, axes: tuple[int, ...]) -> tuple[Values, Values]:
  """Returns means of x and of its square; the axes stay, of length 1."""
  return _moments(x, axes)


def scaled(
  x: Values, scale: Values, shift: Values, activation: str | None
) -> Values:
  """Returns the activation of `x * scale + shift`.

  Args:
    x: a map.
    scale: of length 1 along the axes over which it is the same.
    shift: of the shape of `scale`.
    activation: its name; None: none.
  """
  return _scaled(x, scale, shift, activation)


def averaged(
  x: Float[Array, '*G H W C'],
  scale: Float[Array, '*S C'],
  shift: Float[Array, '*S C'],
) -> Float[Array, '*G C']:
  """Returns averages over height and width of ReLU of `x * scale + shift`.

  The gradient behind an average is the same for a whole map. So the pass that
  adds up what ReLU let pass serves the gradients of scale and shift, too.
  """
  return _averaged(x, scale, shift)


@functools.partial(jax.custom_vjp, nondiff_argnums=(1,))
def _moments(x: Values, axes: tuple[int, ...]) -> Any:
  count = math.prod(x.shape[axis] for axis in axes)
  total, squares = sums((x, x * x), axes)
  return total / count, squares / count


def _moments_forward(x: Values, axes: tuple[int, ...]) -> tuple[Any, Values]:
  return _moments(x, axes), x


def _moments_backward(
  axes: tuple[int, ...], x: Values, gradients: tuple[Values, Values]
) -> tuple[Values]:
  count = math.prod(x.shape[axis] for axis in axes)
  of_mean, of_square = (each / count for each in gradients)
  return (of_mean + 2 * x * of_square,)


_moments.defvjp(_moments_forward, _moments_backward)


@functools.partial(jax.custom_vjp, nondiff_argnums=(3,))
def _scaled(
  x: Values, scale: Values, shift: Values, activation: str | None
) -> Any:
  return activate(x * scale + shift, activation)


def _scaled_forward(
  x: Values, scale: Values, shift: Values, activation: str | None
) -> tuple[Values, tuple[Values, Values, Values]]:
  return _scaled(x, scale, shift, activation), (x, scale, shift)


def _scaled_backward(
  activation: str | None,
  saved: tuple[Values, Values, Values],
  gradient: Values,
) -> tuple[Values, Values, Values]:
  x, scale, shift = saved
  axes = tuple(axis for axis, length in enumerate(scale.shape) if length == 1)

  def passed(terms: tuple[Values, ...]) -> Values:
    """The gradient before the activation."""
    if activation is None:
      return gradient
    # Behind barriers that differ these are other values to XLA than those of
    # the forward pass and of each other. It would else write once what has
    # passed, and read it, where each kernel can see that from the map.
    scale, shift, *_ = lax.optimization_barrier(terms)
    return gradient * SLOPES[activation](x * scale + shift)

  summed = passed((scale, shift))
  of_scale, of_shift = sums((summed * x, summed), axes)
  return passed((scale, shift, of_shift)) * scale, of_scale, of_shift


_scaled.defvjp(_scaled_forward, _scaled_backward)


@jax.custom_vjp
def _averaged(x: Values, scale: Values, shift: Values) -> Values:
  return _averaged_forward(x, scale, shift)[0]


def _averaged_forward(x: Values, scale: Values, shift: Values) -> Any:
  passed = _is_positive(x * scale + shift)
  pixels = x.shape[-3] * x.shape[-2]
  count, total = (
    each / pixels
    for each in sums((passed, passed * x), (x.ndim - 3, x.ndim - 2))
  )
  mean = (total * scale + count * shift).squeeze((-3, -2))
  return mean, (x, scale, shift, count, total)


def _averaged_backward(
  saved: tuple[Values, ...], gradient: Values
) -> tuple[Values, Values, Values]:
  x, scale, shift, count, total = saved
  gradient = jnp.expand_dims(gradient, (-3, -2))
  axes = tuple(axis for axis, length in enumerate(scale.shape) if length == 1)
  of_scale, of_shift = (
    (gradient * each).sum(axes, keepdims=True) for each in (total, count)
  )
  pixels = x.shape[-3] * x.shape[-2]
  of_x = gradient / pixels * scale * _is_positive(x * scale + shift)
  return of_x, of_scale, of_shift


_averaged.defvjp(_averaged_forward, _averaged_backward)


def sums(
  arrays: tuple[Values, Values], axes: Sequence[int]
) -> tuple[Values, Values]:
  """Adds up two arrays of one shape, in one pass; the axes stay."""
  first, second = lax.reduce(
    arrays,
    (jnp.zeros((), arrays[0].dtype), jnp.zeros((), arrays[1].dtype)),
    lambda a, b: (a[0] + b[0], a[1] + b[1]),
    tuple(axes),
  )
  return jnp.expand_dims(first, axes), jnp.expand_dims(second, axes)
