"""Features by which architectures are compared, on the same held-out images.

A readout is data that can be called: (forward, params, inputs, labels) ->
features of one architecture, by name. `forward` takes variables and a batch;
`inputs` are batches of images, or the maps that the head receives of them.
"""

import dataclasses
import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax.traverse_util import flatten_dict, unflatten_dict
from jaxtyping import Array, Float, Int

from jaxnas.density.distances import centred_gram, u_centred_gram, unit
from jaxnas.nn.walk import leaves
from jaxnas.runtime import devices
from jaxnas.runtime.cache import per_net
from jaxnas.runtime.devices import Chunk

Features = Mapping[str, Float[Array, '...']]
Forward = Callable[[Any, Array], Array]
Batches = tuple[Array, ...]

# Architectures that a device reads in one call, where features are small.
PER_DEVICE = 16


@dataclasses.dataclass(frozen=True)
class Gradients:
  """Unit vectors along the gradients of the mean loss, tensor by tensor."""

  tensors: tuple[str, ...]
  combine: str = 'mean'
  """'mean' keeps a vector for each tensor, 'concatenate' makes one of all."""

  @property
  def places(self) -> tuple[str, ...]:
    """Names of the places in the net that are read."""
    return self.tensors

  def floats(self, params: Any, batches: int, batch: int, classes: int) -> int:
    """Returns how many numbers one architecture's features have."""
    del batches, batch, classes
    by_name: dict[str, Any] = flatten_dict(params, sep='/')
    return sum(by_name[name].size for name in self.tensors)

  def __call__(
    self, forward: Forward, params: Any, inputs: Batches, labels: Batches
  ) -> Features:
    others = flatten_dict(params, sep='/')
    chosen = {name: others.pop(name) for name in self.tensors}

    def loss(chosen, batch):
      x, y_B = batch
      merged = unflatten_dict({**others, **chosen}, sep='/')
      return optax.softmax_cross_entropy_with_integer_labels(
        forward({'params': merged}, x), y_B
      ).mean()

    # Batch by batch: only one of them occupies memory at a time.
    gradient, _ = jax.lax.scan(
      lambda total, batch: (
        jax.tree.map(jnp.add, total, jax.grad(loss)(chosen, batch)),
        None,
      ),
      jax.tree.map(jnp.zeros_like, chosen),
      (jnp.stack(inputs), jnp.stack(labels)),
    )
    return unit_gradients(gradient, self.combine)


def unit_gradients(gradient: Mapping[str, Array], combine: str) -> Features:
  """Returns flat unit vectors by tensor, or one of all; zero stays zero."""
  flat = {name: jnp.ravel(leaf) for name, leaf in gradient.items()}
  if combine == 'concatenate':
    flat = {'all': jnp.concatenate(list(flat.values()))}
  return {name: unit(g_D) for name, g_D in flat.items()}


@dataclasses.dataclass(frozen=True)
class Activations:
  """Centred Gram matrices of the inputs of layers, as unit vectors.

  The cosine of two such vectors is their linear CKA, so that mean distances
  take linear time here too.
  """

  layers: tuple[str, ...]
  unbiased: bool = False

  @property
  def places(self) -> tuple[str, ...]:
    """Names of the places in the net that are read."""
    return tuple(f'{name}/' for name in self.layers)

  def floats(self, params: Any, batches: int, batch: int, classes: int) -> int:
    """Returns how many numbers one architecture's features have."""
    del params, classes
    images = batches * batch
    return len(self.layers) * images * (batch if self.unbiased else images)

  def __call__(
    self, forward: Forward, params: Any, inputs: Batches, labels: Batches
  ) -> Features:
    del labels

    def of_batch(x):
      seen: dict[str, Array] = {}

      def keep(call, args, kwargs, context):
        name = '/'.join(context.module.path)
        if name in self.layers and context.method_name == '__call__':
          seen[name] = args[0].reshape(len(args[0]), -1).astype(jnp.float32)
        return call(*args, **kwargs)

      with nn.intercept_methods(keep):
        forward({'params': params}, x)
      return seen

    seen_NxBxD = jax.lax.map(of_batch, jnp.stack(inputs))
    if self.unbiased:
      grams = jax.tree.map(jax.vmap(u_centred_gram), seen_NxBxD)
    else:
      grams = jax.tree.map(
        lambda x_NxBxD: centred_gram(x_NxBxD.reshape(-1, x_NxBxD.shape[-1])),
        seen_NxBxD,
      )
    return {name: unit(jnp.ravel(gram)) for name, gram in grams.items()}


@dataclasses.dataclass(frozen=True)
class Outputs:
  """Probabilities that the net gives to the classes of each image.

  The paper leaves open how outputs are compared; as probabilities is inferred.
  """

  form: str = 'l2'
  """'kl': log-probabilities. 'l2': probabilities over sqrt(B), so that the
  square of a distance is a mean over images. 'cosine': the same, each image's
  scaled to length 1, so that the cosine of two is the mean over images."""
  places: tuple[str, ...] = ('head/',)

  def floats(self, params: Any, batches: int, batch: int, classes: int) -> int:
    """Returns how many numbers one architecture's features have."""
    del params
    return batches * batch * classes

  def __call__(
    self, forward: Forward, params: Any, inputs: Batches, labels: Batches
  ) -> Features:
    del labels
    logits_NxBxK = jax.lax.map(
      lambda x: forward({'params': params}, x), jnp.stack(inputs)
    )
    logp_NxBxK = jax.nn.log_softmax(logits_NxBxK.astype(jnp.float32))
    logp_BxK = logp_NxBxK.reshape(-1, logp_NxBxK.shape[-1])
    if self.form == 'kl':
      return {'outputs': logp_BxK}
    p_BxK = jnp.exp(logp_BxK)
    if self.form == 'cosine':
      p_BxK /= jnp.linalg.norm(p_BxK, axis=-1, keepdims=True)
    return {'outputs': jnp.ravel(p_BxK) / jnp.sqrt(len(p_BxK))}


Readout = Gradients | Activations | Outputs


def read(
  net: Any,
  params: Any,
  archs_AxE: Int[np.ndarray, 'A E'],
  images: Sequence[Float[Array, 'B H W C']],
  labels: Sequence[Int[Array, ' B']],
  readout: Readout,
  *,
  chunk_bytes: float = 1e9,
) -> Iterator[Chunk]:
  """Yields the features of every architecture, in chunks over the devices.

  Features from behind the last choice of a sequential net need no backward
  pass through the choices, and architectures that start alike share the
  forward pass. For others one compiled program loops over the architectures
  of a chunk.

  Args:
    net: a supernet.
    params: its shared weights.
    archs_AxE: any architectures.
    images: prepared held-out batches of equal size, the same for all.
    labels: of the images.
    readout: reads the features of one architecture.
    chunk_bytes: features of a chunk take no more, where that is possible.
  """
  of_arch, of_leaf = _programs(net, readout)
  params = devices.everywhere(params)
  images, labels = devices.everywhere((tuple(images), tuple(labels)))
  if in_head(net, readout):
    visit = leaves(net, of_leaf)
    yield from visit({'params': params}, labels, archs_AxE, images)
    return
  size = 4 * readout.floats(
    params, len(images), len(images[0]), net.space.classes
  )
  fitting = int(chunk_bytes // (size * devices.devices().size))
  for indices_C, real_C in devices.chunks(
    len(archs_AxE), min(max(fitting, 1), PER_DEVICE)
  ):
    values = of_arch((params, images, labels), archs_AxE[indices_C])
    yield Chunk(indices_C, real_C, values)


def in_head(net: Any, readout: Readout) -> bool:
  """Returns True where all that is read stands behind a chain's last choice."""
  return net.sequential and all(
    place.startswith('head/') for place in readout.places
  )


@per_net
def _programs(
  net: Any, readout: Readout
) -> tuple[Callable[..., Any], Callable[..., Any]]:
  """Returns programs that read through the whole net and through its head.

  They are kept, as features beyond the memory are computed twice and densities
  may be refreshed.
  """

  def of_arch(shared, arch_E):
    params, images, labels = shared
    forward = functools.partial(net.apply, arch=arch_E, train=True)
    return readout(forward, params, images, labels)

  def of_leaf(variables, labels, features):
    forward = functools.partial(net.apply, method='head')
    return readout(forward, variables['params'], features, labels)

  return devices.over_archs(of_arch), of_leaf
