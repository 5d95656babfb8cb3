"""Convolutions and products in bfloat16 by oneDNN, with sums in float32.

oneDNN takes what a processor has: matrix units (AMX) or dot products
(AVX512-BF16). Without either it would be slower than float32.
"""

import functools
import warnings
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from jaxnas.nn.cpu import native
from jaxnas.nn.cpu.native import library
from jaxnas.nn.maps import Map

# Names of the numbers in C++.
INSTRUCTIONS = '', 'AVX512-BF16', 'AMX'


def convolves(x: Map, kernel: Map, stride: int) -> bool:
  """Returns True where `convolve` can do this convolution.

  On maps one value wide, with a stride, oneDNN 3.2 leaves gradients of taps
  that meet padding alone unwritten.
  """
  return (stride == 1 or min(x.shape[1:3]) > 1) and takes(x, kernel)


def takes(*arrays: Array) -> bool:
  """Returns True where `multiply` can serve these arrays."""
  return (
    {array.dtype for array in arrays} == {jnp.dtype(jnp.bfloat16)}
    and native.serves('onednn', *arrays)
    and bool(instructions())
  )


@functools.cache
def instructions() -> str:
  """Returns the `INSTRUCTIONS` that products of bfloat16 are made of.

  It is asked for where oneDNN is available. It warns, once, of a processor with
  AMX whose system does not permit it.
  """
  found = INSTRUCTIONS[_number()]
  if found != 'AMX' and 'amx_bf16' in library.cpu().split():
    warnings.warn(
      'This processor has AMX, but the system does not permit it: products of '
      f'bfloat16 are made by {found or "float32"}, which is slower. Ask for '
      'AMX where the machine is run, or train in float32.',
      stacklevel=2,
    )
  return found


def _number() -> int:
  onednn = library.load('onednn')
  return 0 if onednn is None else onednn.jaxnas_onednn_instructions()


@functools.partial(jax.custom_vjp, nondiff_argnums=(2,))
def convolve(x_NHWC: Map, kernel_KxKxIxO: Map, stride: int) -> Map:
  """KxK convolution with padding K // 2, where `convolves` says so."""
  batch, *sides, _ = x_NHWC.shape
  outs = [(side - 1) // stride + 1 for side in sides]
  shape = batch, *outs, kernel_KxKxIxO.shape[3]
  return _call('convolve', shape, x_NHWC, kernel_KxKxIxO, stride=stride)


def _forward(x, kernel, stride):
  return convolve(x, kernel, stride), (x, kernel)


def _backward(stride, saved, g):
  x, kernel = saved
  return (
    _call('input_gradient', x.shape, g, kernel, stride=stride),
    _summed('kernel_gradient', kernel.shape, x, g, stride=stride),
  )


convolve.defvjp(_forward, _backward)


@jax.custom_vjp
def multiply(
  kernel_IxO: Float[Array, 'I O'], x_IxM: Float[Array, 'I M']
) -> Float[Array, 'O M']:
  """Returns kernel.T @ x, where `takes` says so."""
  shape = kernel_IxO.shape[1], x_IxM.shape[1]
  return _call('multiply', shape, kernel_IxO, x_IxM, transposed=True)


def of_input(
  kernel_IxO: Float[Array, 'I O'], g_OxM: Float[Array, 'O M']
) -> Float[Array, 'I M']:
  """Returns kernel @ g, the gradient of x from that of `multiply`."""
  shape = len(kernel_IxO), g_OxM.shape[1]
  return _call('multiply', shape, kernel_IxO, g_OxM, transposed=False)


def of_kernel(
  x_IxM: Float[Array, 'I M'], g_OxM: Float[Array, 'O M']
) -> Float[Array, 'I O']:
  """Returns x @ g.T, the gradient of the kernel from that of `multiply`."""
  return _summed('multiply_gradient', (len(x_IxM), len(g_OxM)), x_IxM, g_OxM)


def _multiply_backward(saved, g):
  kernel, x = saved
  return of_kernel(x, g), of_input(kernel, g)


multiply.defvjp(
  lambda kernel, x: (multiply(kernel, x), (kernel, x)), _multiply_backward
)


def _call(
  name: str,
  shape: tuple[int, ...],
  *operands: Array,
  dtype: Any = jnp.bfloat16,
  **options: int,
) -> Array:
  given: dict[str, Any] = {
    name: value if isinstance(value, bool) else np.int64(value)
    for name, value in options.items()
  }
  out = jax.ShapeDtypeStruct(shape, dtype)
  return native.call(f'jaxnas_onednn_{name}', [out], *operands, **given)[0]


def _summed(
  name: str, shape: tuple[int, ...], *operands: Array, **options: int
) -> Array:
  """Calls a function that sums in float32, and rounds what comes out."""
  sums = _call(name, shape, *operands, dtype=jnp.float32, **options)
  return sums.astype(jnp.bfloat16)
