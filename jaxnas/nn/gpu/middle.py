"""The middle of an inverted residual block on NHWC maps, in kernels of ours.

It computes what `nn/cpu/native/middle.py` does, and the pointwise convolution
before it. The normalised map before the convolution of each channel is nowhere
written, nor are the gradients behind both normalisations: kernels and products
make them from what the block keeps anyway.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from jaxnas.nn import normalising
from jaxnas.nn.cpu.native.middle import Options, Terms
from jaxnas.nn.gpu import depthwise, expanding
from jaxnas.nn.gpu.tiles import After, Layer, Line
from jaxnas.nn.maps import Map
from jaxnas.nn.residuals import keep

AXES = 0, 1, 2


class _Norm(NamedTuple):
  """A normalisation by known statistics."""

  mean: Float[Array, ' C']
  rate: Float[Array, ' C']
  gain: Float[Array, ' C']
  bias: Float[Array, ' C']

  @property
  def line(self) -> Line:
    scale = self.rate * self.gain
    return Line(scale, self.bias - self.mean * scale)

  def pull(
    self, total: Array, product: Array, count: int
  ) -> tuple[After, Float[Array, '2 C']]:
    """Returns what gradients become, and those of gain and bias.

    Args:
      total: the sum of gradients of the line.
      product: the sum of those times what is normalised.
      count: number of values that were added up.
    """
    of_gain = (product - self.mean * total) * self.rate
    scale, shift = self.line
    steep = -scale * self.rate * of_gain / count
    level = -scale * total / count - self.mean * steep
    after = After(scale, shift, steep, level)
    return after, jnp.stack([of_gain, total])


def middle(
  x_BxHxWxC: Map,
  expand_IxC: Float[Array, 'I C'] | None,
  kernel_KxKxC: Float[Array, 'K K C'],
  terms_4xC: Terms,
  options: Options,
) -> tuple[Map, Terms]:
  """Returns (result, statistics), as the function of this name for CPUs.

  Args:
    x_BxHxWxC: the map.
    expand_IxC: of the pointwise convolution of x that is normalised, float32;
      None: the convolution by channels comes first.
    kernel_KxKxC: as there.
    terms_4xC: as there.
    options: as there.
  """
  channels = kernel_KxKxC.shape[2]

  def norms(statistics_4xC: Terms, terms_4xC: Terms) -> tuple[_Norm, _Norm]:
    rate_C, out_rate_C = lax.rsqrt(statistics_4xC[1::2] + options.epsilon)
    return (
      _Norm(statistics_4xC[0], rate_C, *terms_4xC[:2]),
      _Norm(statistics_4xC[2], out_rate_C, *terms_4xC[2:]),
    )

  # All of it is kept, or computed again, outside of what has a gradient.
  x, expand, kernel, terms = lax.stop_gradient(
    (x_BxHxWxC, expand_IxC, kernel_KxKxC, terms_4xC)
  )
  before_2xC = jnp.stack([jnp.zeros(channels), jnp.ones(channels)])
  wide, of_x = x, None
  if expand is not None:
    of_x = expanding.Moments(*map(keep, expanding.moments(x)))
    before_2xC = keep(expanding.statistics(of_x, expand))
    # Rather made anew than padded, as results of pointwise convolutions are.
    wide = keep(expanding.expand(x, expand), padded=False)
  layer = Layer(
    wide.shape,
    len(kernel),
    options.stride,
    options.activation,
    expand is not None,
  )
  norm, _ = norms(jnp.concatenate([before_2xC] * 2), terms)
  y, total_C, squares_C = depthwise.convolve(wide, norm.line, kernel, layer)
  count = y.size // channels
  y = keep(y)
  after_2xC = keep(_statistics(total_C / count, squares_C / count))

  @jax.custom_vjp
  def finished(trained, kept):
    _, _, _, terms = trained
    _, _, y, statistics = kept
    scale, shift = norms(statistics, terms)[1].line
    out = normalising.activate(y * scale + shift, options.activation)
    return out.astype(y.dtype)

  def forward(*operands):
    return finished(*operands), operands

  def backward(operands, g):
    (x, expand, kernel, terms), kept = operands
    of_x, wide, y, statistics = kept
    before, after = norms(statistics, terms)
    scale, shift = after.line
    passed = g * normalising.SLOPES[options.activation](y * scale + shift)
    sums = normalising.sums((passed, passed * y), AXES)
    total_C, product_C = (each.ravel() for each in sums)
    behind, of_after = after.pull(total_C, product_C, count)
    pulled = depthwise.pull(wide, before.line, kernel, y, behind, g, layer)
    of_map, of_expand, of_before = pulled.map, None, jnp.zeros_like(of_after)
    if expand is not None:
      line, of_before = before.pull(
        pulled.total, pulled.product, wide.size // channels
      )
      of_map, of_expand = expanding.pull(
        x, of_x, expand, pulled.map, line.scale, Line(line.steep, line.level)
      )
    of_terms = jnp.concatenate([of_before, of_after])
    return (
      (of_map, of_expand, pulled.kernel, of_terms),
      jax.tree.map(jnp.zeros_like, kept),
    )

  finished.defvjp(forward, backward)
  statistics_4xC = jnp.concatenate([before_2xC, after_2xC])
  out = finished(
    (x_BxHxWxC, expand_IxC, kernel_KxKxC, terms_4xC),
    (of_x, wide, y, statistics_4xC),
  )
  return out, statistics_4xC


def _statistics(mean_C: Array, square_C: Array) -> Float[Array, '2 C']:
  """Returns mean and biased variance."""
  return jnp.stack([mean_C, jnp.maximum(square_C - mean_C * mean_C, 0)])
