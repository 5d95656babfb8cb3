"""Distances between two architectures, as functions of their features.

They are written for one pair; `pairs` maps them over blocks of pairs.
"""

from collections.abc import Mapping
from typing import Any

import jax.numpy as jnp
from jaxtyping import Array, Float

# Distances are compared to 1e-5, and a GPU's default rounds to 10 bits.
HIGHEST = 'highest'


def length(f_D: Float[Array, ' D']) -> Float[Array, '']:
  """Returns |f_D|."""
  largest, scaled_D = _scaled(f_D)
  return largest * jnp.linalg.norm(scaled_D)


def unit(f_D: Float[Array, ' D']) -> Float[Array, ' D']:
  """Returns f_D / |f_D|; zero stays zero."""
  _, scaled_D = _scaled(f_D)
  norm = jnp.linalg.norm(scaled_D)
  return scaled_D / jnp.where(norm == 0, 1, norm)


def _scaled(f_D: Float[Array, ' D']) -> tuple[Array, Array]:
  """Returns (largest entry, f_D by it): squares of tiny gradients underflow."""
  largest = jnp.max(jnp.abs(f_D))
  return largest, f_D / jnp.where(largest == 0, 1, largest)


def cosine(f: Mapping[str, Array], g: Mapping[str, Array]) -> Float[Array, '']:
  """Mean over tensors of 1 - cos(f, g), in [0, 2]: equation 5.

  Roshtkhari et al. (CVPR Findings 2026). Cosine is stated; per tensor and
  then the mean is the authors' published analysis, inferred for the paper. A
  tensor that one of the two lacks, whose vector is zero, has distance 1.

  Args:
    f: one architecture's unit vectors by tensor.
    g: the other architecture's.
  """
  return jnp.mean(
    jnp.stack(
      [1 - jnp.vdot(f_D, g[name], precision=HIGHEST) for name, f_D in f.items()]
    )
  )


def cosine_of_both(
  f: Mapping[str, Array], g: Mapping[str, Array]
) -> Float[Array, '']:
  """Mean of 1 - cos(f, g) over the tensors that both have; 1 where none is."""
  total, count = jnp.zeros(()), jnp.zeros(())
  for name, f_D in f.items():
    g_D = g[name]
    both = jnp.any(f_D != 0) & jnp.any(g_D != 0)
    total += both * (1 - jnp.vdot(f_D, g_D, precision=HIGHEST))
    count += both
  return jnp.where(count > 0, total / jnp.maximum(count, 1), 1)


def centred_gram(x_BxD: Float[Array, 'B D']) -> Float[Array, 'B B']:
  """Inner products of centred rows.

  The cosine of two such matrices is linear CKA, norm_F(X2' X1)^2 /
  (norm_F(X1' X1) norm_F(X2' X2)) on centred features of the same inputs
  (stated): norm_F(X2' X1)^2 is the inner product of their Gram matrices.
  """
  x_BxD = x_BxD - x_BxD.mean(axis=0)
  return jnp.matmul(x_BxD, x_BxD.T, precision=HIGHEST)


def u_centred_gram(x_BxD: Float[Array, 'B D']) -> Float[Array, 'B B']:
  """Inner products of rows, centred so that products of two are unbiased.

  The inner product of two such matrices, over B (B - 3), is the unbiased
  HSIC of Song et al. (2012), in the form of Szekely and Rizzo (2014); summed
  over minibatches their cosine is the minibatch CKA of Nguyen et al. (2021).
  Needs B of 4 at least.
  """
  count = len(x_BxD)
  # The estimate does not depend on the origin; rounding does.
  x_BxD = x_BxD - x_BxD.mean(axis=0)
  gram_BxB = jnp.matmul(x_BxD, x_BxD.T, precision=HIGHEST)
  off_BxB = 1 - jnp.eye(count)
  gram_BxB = gram_BxB * off_BxB
  rows_B = gram_BxB.sum(axis=1) / (count - 2)
  total = gram_BxB.sum() / ((count - 1) * (count - 2))
  return (gram_BxB - rows_B[:, None] - rows_B + total) * off_BxB


def euclidean(f: Any, g: Any) -> Float[Array, '']:
  """|f - g| of two architectures' outputs: see `features.Outputs`."""
  return jnp.sqrt(jnp.square(f['outputs'] - g['outputs']).sum())


def divergence(f: Any, g: Any) -> Float[Array, '']:
  """Mean over images of (KL(p, q) + KL(q, p)) / 2, in nats.

  Args:
    f: one architecture's log-probabilities logp_BxK under 'outputs'.
    g: the other architecture's.
  """
  logp_BxK, logq_BxK = f['outputs'], g['outputs']
  difference_BxK = jnp.exp(logp_BxK) - jnp.exp(logq_BxK)
  return jnp.mean((difference_BxK * (logp_BxK - logq_BxK)).sum(axis=-1)) / 2


def hamming(f: Any, g: Any) -> Float[Array, '']:
  """Number of positions at which two archs differ (encoding distance)."""
  return (f['arch'] != g['arch']).sum().astype(jnp.float32)
