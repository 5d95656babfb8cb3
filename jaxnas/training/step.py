"""One training step, the same jitted program for every architecture."""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import struct
from jaxtyping import Array, Float, Int

from jaxnas import streams
from jaxnas.samplers import Sampler


@struct.dataclass
class TrainState:
  """All that a checkpoint holds: arrays, or their shapes to restore into."""

  step: Any
  """Steps done, int32."""
  params: Any
  optimizer: Any
  sampler: Any
  samples_A: Any
  """How often each architecture was trained, int32."""


class Metrics(NamedTuple):
  """Of one step, each a mean over its paths, but for the norm of the sum."""

  loss: Float[Array, '']
  accuracy: Float[Array, '']
  gradient_norm: Float[Array, '']


Step = Callable[[TrainState, Any, Int[Array, ' N']], tuple[TrainState, Metrics]]


def init_state(
  net: Any,
  sampler: Sampler,
  optimizer: optax.GradientTransformationExtraArgs,
  image_shape: tuple[int, int, int],
  archs_AxE: Int[np.ndarray, 'A E'],
  seed: int,
) -> TrainState:
  """Fresh weights under stream 'init'."""

  @jax.jit
  def params():
    return net.init(
      streams.key(seed, 'init'),
      jnp.zeros((2, *image_shape)),
      jnp.asarray(archs_AxE[0]),
      train=True,
    )['params']

  weights = params()
  return TrainState(
    step=jnp.zeros((), jnp.int32),
    params=weights,
    optimizer=optimizer.init(weights),
    sampler=sampler.init(),
    samples_A=jnp.zeros(len(archs_AxE), jnp.int32),
  )


def make_step(
  net: Any,
  sampler: Sampler,
  optimizer: optax.GradientTransformationExtraArgs,
  batch: Callable[..., tuple[Array, Array]],
  *,
  archs_AxE: Int[np.ndarray, 'A E'],
  batch_size: int,
  steps_per_epoch: int,
  seed: int,
) -> Step:
  """(state, images, order_N) -> (state, metrics), jitted, donating the state.

  The step draws its architectures from (seed, step), sums the gradients of
  its paths and updates once.

  Args:
    net: a supernet.
    sampler: which architectures.
    optimizer: from `optimizer.sgd`.
    batch: (images, indices_B, key) -> (x_BxHxWxC, y_B), in jit.
    archs_AxE: the enumerated space, to count how often each was trained.
    batch_size: B.
    steps_per_epoch: N // B; `order_N` is this epoch's order of the images.
    seed: of the streams 'archs' and 'augment'.
  """
  all_AxE = jnp.asarray(archs_AxE)

  @functools.partial(jax.jit, donate_argnums=0)
  def step(state: TrainState, images, order_N):
    start = state.step % steps_per_epoch * batch_size
    indices_B = jax.lax.dynamic_slice(order_N, (start,), (batch_size,))
    x_BxHxWxC, y_B = batch(
      images, indices_B, streams.key(seed, 'augment', state.step)
    )
    archs_PxE = sampler.sample(
      state.sampler, streams.key(seed, 'archs', state.step)
    )

    def loss(params, arch_E):
      logits_BxK = net.apply({'params': params}, x_BxHxWxC, arch_E, train=True)
      losses_B = optax.softmax_cross_entropy_with_integer_labels(
        logits_BxK, y_B
      )
      return losses_B.mean(), jnp.mean(jnp.argmax(logits_BxK, -1) == y_B)

    def path(summed, arch_E):
      (value, accuracy), gradient = jax.value_and_grad(loss, has_aux=True)(
        state.params, arch_E
      )
      used = net.used(state.params, arch_E)
      any_used = jax.tree.map(jnp.logical_or, summed[1], used)
      return (jax.tree.map(jnp.add, summed[0], gradient), any_used), (
        value,
        accuracy,
      )

    nothing = (
      jax.tree.map(jnp.zeros_like, state.params),
      jax.tree.map(jnp.zeros_like, net.used(state.params, archs_PxE[0])),
    )
    (gradient, used), (losses_P, accuracies_P) = jax.lax.scan(
      path, nothing, archs_PxE
    )
    updates, optimizer_state = optimizer.update(
      gradient, state.optimizer, state.params, used=used
    )
    trained_PxA = (archs_PxE[:, None] == all_AxE).all(-1)
    return dataclasses.replace(
      state,
      step=state.step + 1,
      params=optax.apply_updates(state.params, updates),
      optimizer=optimizer_state,
      samples_A=state.samples_A + trained_PxA.sum(0),
    ), Metrics(
      losses_P.mean(), accuracies_P.mean(), optax.global_norm(gradient)
    )

  return step
