"""What architectures are compared by: gradients on the same held-out images."""

import functools
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax.traverse_util import flatten_dict, unflatten_dict
from jaxtyping import Array, Float, Int

from jaxnas.nn.layers import WEIGHT
from jaxnas.walk import trunk


def select(
  net: Any, params: Any, archs_AxE: Any, tensors: str | None
) -> list[str]:
  """Names ('/'-joined paths) of the weight tensors that are compared.

  Args:
    net: a supernet; its `tensor_sets` name sets of its own.
    params: its shared weights.
    archs_AxE: every architecture, to find those tensors that all of them use.
    tensors: a set of the supernet, 'shared' (used by every architecture),
      'all', or comma-separated regular expressions matched against the whole
      name. None: the supernet's default.

  Raises:
    ValueError: the name is no set here and matches no tensor.
  """
  chosen_set: str = tensors or net.default_tensors
  by_name: dict[str, Any] = flatten_dict(params, sep='/')
  weights = [name for name in by_name if name.rpartition('/')[2] == WEIGHT]
  if chosen_set == 'all':
    return weights
  if chosen_set == 'shared':
    used = flatten_dict(
      jax.tree.map(
        lambda *leaves: np.all(leaves),
        *(net.used(params, arch_E) for arch_E in extremes(archs_AxE)),
      ),
      sep='/',
    )
    return [name for name in weights if used[name]]
  patterns = net.tensor_sets.get(chosen_set, chosen_set.split(','))
  try:
    chosen = [
      name
      for name in weights
      if any(re.fullmatch(pattern, name) for pattern in patterns)
    ]
  except re.error as error:
    raise ValueError(
      f'density.tensors {chosen_set!r} is no regular expression: {error}.'
    ) from error
  if not chosen:
    sets = ', '.join((*net.tensor_sets, 'shared', 'all'))
    raise ValueError(
      f'density.tensors {chosen_set!r} matches no weight tensor; the sets are '
      f'{sets}, the tensors {weights[0]}, ..., {weights[-1]}.'
    )
  return chosen


def extremes(archs_AxE: Int[np.ndarray, 'A E']) -> Int[np.ndarray, 'M E']:
  """A few architectures that use every op of every position between them."""
  keep = {
    int(np.argmax(archs_AxE[:, e] == op))
    for e in range(archs_AxE.shape[1])
    for op in np.unique(archs_AxE[:, e])
  }
  return archs_AxE[sorted(keep)]


def gradients(
  net: Any,
  params: Any,
  archs_AxE: Int[np.ndarray, 'A E'],
  images: Sequence[Float[Array, 'B H W C']],
  labels: Sequence[Int[Array, ' B']],
  names: Sequence[str],
) -> Iterator[tuple[int, Mapping[str, Float[Array, '...']]]]:
  """Yields (index, gradient of the mean loss by tensor) for every arch.

  All architectures see the same batches. Tensors behind the last choice of a
  sequential net need no backward pass through the choices, and architectures
  that start alike share the forward pass.
  """
  images, labels = tuple(images), tuple(labels)
  flat = flatten_dict(params, sep='/')
  chosen = {name: flat.pop(name) for name in names}
  of_arch, of_head = _programs(net)
  if net.sequential and all(name.startswith('head/') for name in names):
    for index, features in trunk(net)({'params': params}, archs_AxE, images):
      yield index, of_head(chosen, flat, features, labels)
  else:
    for index, arch_E in enumerate(archs_AxE):
      yield index, of_arch(chosen, flat, images, labels, arch_E)


@functools.cache
def _programs(net: Any) -> tuple[Callable[..., Any], Callable[..., Any]]:
  """Gradients through the whole net and through its head alone.

  Compiled once a net, though gradients beyond the memory are computed twice
  and densities may be refreshed.
  """

  def mean_loss(forward, chosen, others, inputs, labels):
    variables = {'params': unflatten_dict({**others, **chosen}, sep='/')}
    losses = [
      optax.softmax_cross_entropy_with_integer_labels(
        forward(variables, x), y_B
      ).mean()
      for x, y_B in zip(inputs, labels, strict=True)
    ]
    return jnp.mean(jnp.stack(losses))

  @jax.jit
  def of_arch(chosen, others, images, labels, arch_E):
    forward = functools.partial(net.apply, arch=arch_E, train=True)
    return jax.grad(functools.partial(mean_loss, forward))(
      chosen, others, images, labels
    )

  @jax.jit
  def of_head(chosen, others, features, labels):
    forward = functools.partial(net.apply, method='head')
    return jax.grad(functools.partial(mean_loss, forward))(
      chosen, others, features, labels
    )

  return of_arch, of_head
