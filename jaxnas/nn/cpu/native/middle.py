"""The middle of an inverted residual block on CHWN maps, in C++.

It normalises by the batch's statistics, activates, convolves each channel
alone, normalises and activates. Channels do not depend on each other, so that
one stays in a core's cache from beginning to end, where XLA reads and writes
the map from memory a dozen times. Maps are float32 or bfloat16 in memory, the
latter where oneDNN multiplies them: XLA's products would widen them.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import numpy as np
from jaxtyping import Array, Float

from jaxnas.nn.cpu import native
from jaxnas.nn.cpu.native import onednn
from jaxnas.nn.maps import Map

# The order is that of the numbers in C++.
ACTIVATIONS = ('relu', 'relu6', 'hard_swish')
KERNELS = (3, 5, 7)

Terms = Float[Array, '4 C']


class Products(NamedTuple):
  """Products of a pointwise convolution and of its gradients."""

  project: Callable[[Array, Array], Array]
  """(C x O, C x M) -> O x M"""
  of_input: Callable[[Array, Array], Array]
  """(C x O, O x M) -> C x M"""
  of_kernel: Callable[[Array, Array], Array]
  """(C x M, O x M) -> C x O"""


BY_XLA = Products(
  lambda kernel, x: kernel.T @ x,
  lambda kernel, g: kernel @ g,
  lambda x, g: x @ g.T,
)
BY_ONEDNN = Products(onednn.multiply, onednn.of_input, onednn.of_kernel)


class Options(NamedTuple):
  """Options of the layers.

  Args:
    stride: of the convolution.
    activation: one of `ACTIVATIONS`.
    normed: a normalisation and an activation stand before the convolution.
    epsilon: of normalisation.
  """

  stride: int
  activation: str
  normed: bool
  epsilon: float


def takes(x: Map, kernel: int, activation: str) -> bool:
  """Returns True where `middle` and `projected` can do this block."""
  return (
    kernel in KERNELS
    and activation in ACTIVATIONS
    and native.serves('middle', x)
  )


def middle(
  x_CHWN: Map,
  kernel_KxKxC: Float[Array, 'K K C'],
  terms_4xC: Terms,
  options: Options,
) -> tuple[Map, Terms]:
  """Returns (result, statistics), where `takes` says so.

  Args:
    x_CHWN: the map.
    kernel_KxKxC: of the convolution, with padding K // 2.
    terms_4xC: gain and bias before the convolution, gain and bias after it.
    options: of the layers.

  Returns:
    The map, and mean and biased variance before and after the convolution.
    No gradient flows through the statistics.
  """

  @jax.custom_vjp
  def run(x, kernel, terms):
    return _result(x, kernel, terms, options)

  def forward(x, kernel, terms):
    return run(x, kernel, terms), (x, kernel, terms)

  def backward(saved, gradients):
    x, kernel, terms = saved
    return _gradients(x, kernel, terms, gradients[0], options)[:3]

  run.defvjp(forward, backward)
  return run(x_CHWN, kernel_KxKxC, terms_4xC)


def projected(
  project_CxO: Float[Array, 'C O'],
  x_CHWN: Map,
  kernel_KxKxC: Float[Array, 'K K C'],
  terms_4xC: Terms,
  options: Options,
) -> tuple[Map, Terms]:
  """Returns (project_CxO.T @ result, statistics), with the result of `middle`.

  The gradient computes that result anew beside its own, so that a switch need
  not keep it: a step of NAS-Bench-Macro takes 8 ms less of 187.
  """

  by = BY_ONEDNN if onednn.takes(x_CHWN, project_CxO) else BY_XLA

  @jax.custom_vjp
  def run(project_CxO, x, kernel, terms):
    out, statistics_4xC = _result(x, kernel, terms, options)
    y_OxM = by.project(project_CxO, out.reshape(len(out), -1))
    return y_OxM.reshape(-1, *out.shape[1:]), statistics_4xC

  def forward(project_CxO, x, kernel, terms):
    return run(project_CxO, x, kernel, terms), (project_CxO, x, kernel, terms)

  def backward(saved, gradients):
    project_CxO, x, kernel, terms = saved
    g = gradients[0]
    g_OxM = g.reshape(len(g), -1)
    g_CHWN = by.of_input(project_CxO, g_OxM).reshape(-1, *g.shape[1:])
    *pulled, out = _gradients(x, kernel, terms, g_CHWN, options)
    return by.of_kernel(out.reshape(len(out), -1), g_OxM), *pulled

  run.defvjp(forward, backward)
  return run(project_CxO, x_CHWN, kernel_KxKxC, terms_4xC)


def _result(
  x: Map, kernel: Array, terms: Terms, options: Options
) -> tuple[Map, Terms]:
  channels, *sides, batch = x.shape
  outs = [(side - 1) // options.stride + 1 for side in sides]
  out = jax.ShapeDtypeStruct((channels, *outs, batch), x.dtype)
  return _call('jaxnas_middle', (out, terms), (x, kernel, terms), options)


def _gradients(
  x: Map, kernel: Array, terms: Terms, g: Map, options: Options
) -> tuple[Map, Array, Terms, Map]:
  """Returns gradients of x, kernel and terms, and the result of `_result`."""
  operands = x, kernel, terms, g
  return _call(
    'jaxnas_middle_gradient', operands, operands, options, in_place={3: 3}
  )


def _call(
  name: str,
  like: tuple[Any, ...],
  operands: tuple[Array, ...],
  options: Options,
  **given: Any,
) -> Any:
  return tuple(
    native.call(
      name,
      [jax.ShapeDtypeStruct(each.shape, each.dtype) for each in like],
      *operands,
      stride=np.int64(options.stride),
      activation=np.int64(ACTIVATIONS.index(options.activation)),
      normed=options.normed,
      epsilon=np.float32(options.epsilon),
      **given,
    )
  )
