"""Predicts what few architectures were measured by, for all others.

Architectures are alike by their codes, numbers in a row (`Space.codes`): the
kernel of two is exp(beta (s - 1)), with s the share of codes in which they
agree. Small beta give sums over positions, larger ones interactions of more and
more of them. A ridge regression on it is a matrix of weights, which serves
every value that is measured alike, gradients included.
"""

from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

BETAS = (0.5, 1.0, 2.0, 5.0, 10.0, 20.0)
RIDGES = (1e-4, 1e-3, 1e-2, 1e-1, 1.0, 10.0)

# Architectures in a block of kernels.
ROWS = 1024


class Smoother(NamedTuple):
  """A ridge regression on the codes of those that were measured."""

  codes_MxF: Int[np.ndarray, 'M F']
  beta: float
  inverse_MxM: Float[np.ndarray, 'M M']
  """Inverse of the kernel with the ridge on its diagonal."""


class Predictor(NamedTuple):
  """The regression of one value, as arrays: a checkpoint holds them."""

  codes_MxF: Any
  dual_M: Any
  mean: Any
  beta: Any


def choose(
  codes_MxF: Int[np.ndarray, 'M F'], gram_MxM: Float[np.ndarray, 'M M']
) -> Smoother:
  """Returns the regression that predicts vectors best where they are left out.

  Each of the M is left out in turn, by the closed form. O(M^3).

  Args:
    codes_MxF: of those that were measured.
    gram_MxM: inner products of the vectors that they were measured by.
  """
  count = len(codes_MxF)
  centre_MxM = np.eye(count) - 1 / count
  centred_MxM = centre_MxM @ gram_MxM @ centre_MxM
  agree_MxM = agreement(codes_MxF, codes_MxF)
  found = []
  for beta in BETAS:
    values_M, vectors_MxM = np.linalg.eigh(np.exp(beta * (agree_MxM - 1)))
    for ridge in RIDGES:
      inverse_MxM = (vectors_MxM / (values_M + ridge)) @ vectors_MxM.T
      error_MxM = inverse_MxM / np.diag(inverse_MxM)[:, None]
      error = np.einsum('ij,ij->', error_MxM @ centred_MxM, error_MxM)
      found.append((error, len(found), Smoother(codes_MxF, beta, inverse_MxM)))
  return min(found)[-1]


def agreement(
  codes_NxF: Int[np.ndarray, 'N F'], codes_MxF: Int[np.ndarray, 'M F']
) -> Float[np.ndarray, 'N M']:
  """Returns the share of codes in which each two agree."""
  blocks = [
    (codes_NxF[start : start + ROWS, None] == codes_MxF).mean(axis=2)
    for start in range(0, len(codes_NxF), ROWS)
  ]
  return np.concatenate(blocks)


def weights(
  smoother: Smoother, codes_NxF: Int[np.ndarray, 'N F']
) -> Float[np.ndarray, 'N M']:
  """Returns how much each measured one counts for others; rows sum to one."""
  agree_NxM = agreement(codes_NxF, smoother.codes_MxF)
  kernel_NxM = np.exp(smoother.beta * (agree_NxM - 1))
  weight_NxM = kernel_NxM @ smoother.inverse_MxM
  rest_N = 1 - weight_NxM.sum(axis=1)
  return weight_NxM + rest_N[:, None] / len(smoother.codes_MxF)


def left_out(
  smoother: Smoother, value_M: Float[np.ndarray, ' M']
) -> Float[np.ndarray, ' M']:
  """Predicts each value from the others alone, and the mean of all."""
  dual_M = smoother.inverse_MxM @ (value_M - value_M.mean())
  return value_M - dual_M / np.diag(smoother.inverse_MxM)


def predictor(
  smoother: Smoother, value_M: Float[np.ndarray, ' M']
) -> Predictor:
  """Returns what `predict` needs for a value, which `weights` gives too."""
  mean = value_M.mean()
  dual_M = smoother.inverse_MxM @ (value_M - mean)
  return Predictor(
    jnp.asarray(smoother.codes_MxF, jnp.int32),
    jnp.asarray(dual_M, jnp.float32),
    jnp.float32(mean),
    jnp.float32(smoother.beta),
  )


def blank(measured: int, codes: int) -> Predictor:
  """Returns a predictor of zero for all, shaped as any other."""
  return Predictor(
    jnp.zeros((measured, codes), jnp.int32),
    jnp.zeros(measured, jnp.float32),
    jnp.zeros((), jnp.float32),
    jnp.zeros((), jnp.float32),
  )


def predict(
  given: Predictor, codes_NxF: Int[Array, 'N F']
) -> Float[Array, ' N']:
  """Predicts a value from codes, in O(N M F); it can be jitted."""
  agree_NxM = (codes_NxF[:, None] == given.codes_MxF).mean(axis=2)
  kernel_NxM = jnp.exp(given.beta * (agree_NxM - 1))
  return given.mean + kernel_NxM @ given.dual_M
