"""Supernets: one module a space, traced arch for all or a static one alone."""

from typing import Any

import flax.linen as nn
import jax.numpy as jnp

from jaxnas.spaces import MacroSpace, PoolingSpace, Space
from jaxnas.supernets.macro import MacroNet
from jaxnas.supernets.pooling import PoolingNet

NETS = {MacroSpace: MacroNet, PoolingSpace: PoolingNet}


def build(
  space: Space,
  *,
  dtype: Any = jnp.float32,
  affine: bool = False,
  running: bool = False,
) -> nn.Module:
  """The network of a space.

  Called with a traced arch it is the supernet, one program for every
  architecture; with an arch of Python ints the stand-alone network. The
  supernet's batch normalisation has no parameters and no state by default;
  stand-alone networks want `affine` and `running`.
  """
  return NETS[type(space)](space, dtype, affine, running)
