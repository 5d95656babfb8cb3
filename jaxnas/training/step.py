"""One training step, the same jitted program for every architecture."""

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from flax import struct
from jaxtyping import Array, Float, Int

from jaxnas import streams
from jaxnas.data import Training
from jaxnas.samplers import Sampler
from jaxnas.training import paths
from jaxnas.training.mesh import Layout


@struct.dataclass
class TrainState:
  """All that a checkpoint holds: arrays, or their shapes to restore into."""

  step: Any
  """Steps done, int32."""
  params: Any
  statistics: Any
  """Running ones of batch normalisation, {} where the net keeps none."""
  average: Any
  """Moving average of both, {} without one."""
  optimizer: Any
  sampler: Any
  images: Any
  """Of the order in which training images are drawn, `Training.order`."""
  samples: Any
  """How often each architecture was trained, int32, or each op."""

  @property
  def variables(self) -> dict[str, Any]:
    """What the net is evaluated with."""
    return self.average or {'params': self.params, **self.statistics}


class Metrics(NamedTuple):
  """Of one step, each a mean over its paths, but for the norm of the sum."""

  loss: Float[Array, '']
  accuracy: Float[Array, '']
  gradient_norm: Float[Array, '']


# (state, inputs of the step) -> (state, metrics)
Step = Callable[[TrainState, Any], tuple[TrainState, Metrics]]
Counter = Callable[[Int[Array, 'P E']], Array]


def init_state(
  net: Any,
  sampler: Sampler,
  optimizer: optax.GradientTransformationExtraArgs,
  count: Counter,
  variables: Any,
  *,
  images: Any = (),
  average: bool = False,
) -> TrainState:
  """Before the first step.

  Args:
    net: a supernet, or a network alone.
    sampler: as in `make_step`.
    optimizer: as in `make_step`.
    count: as in `make_step`.
    variables: from `supernets.init`.
    images: first state of the order of training images.
    average: keep a moving average of the variables.
  """
  fresh = dict(jax.tree.map(jnp.array, variables))
  params = fresh.pop('params')
  arch_1xE = jnp.zeros((1, net.space.positions), jnp.int32)
  return TrainState(
    step=jnp.zeros((), jnp.int32),
    params=params,
    statistics=fresh,
    average=jax.tree.map(jnp.array, variables) if average else {},
    optimizer=optimizer.init(params),
    sampler=sampler.init(),
    images=images,
    samples=jnp.zeros_like(count(arch_1xE)),
  )


def make_step(
  net: Any,
  sampler: Sampler,
  optimizer: optax.GradientTransformationExtraArgs,
  images: Training,
  count: Counter,
  *,
  seed: int,
  label_smoothing: float = 0.0,
  ema_decay: float = 0.0,
  reward_every: int = 1,
  groups: int = 1,
  layout: Layout | None = None,
) -> Step:
  """(state, inputs) -> (state, metrics), jitted, donating the state.

  The step draws its architectures from (seed, step), sums the gradients of
  its paths and updates once.

  Args:
    net: a supernet, or a network alone.
    sampler: which architectures.
    optimizer: from `optimizer.sgd`.
    images: what batches are made of. Where it brings validation images, a
      path's reward is its accuracy on them before the update; else rewards
      are NaN.
    count: archs_PxE -> how often each is among them, to add up.
    seed: of the stream 'archs'.
    label_smoothing: share of a label's weight that all classes get alike.
    ema_decay: of the moving average, where the state has one; smaller in the
      first steps, (1 + step) / (10 + step), so that the start is forgotten.
    reward_every: steps from one with rewards to the next.
    groups: of a batch, whose images are normalised together.
    layout: of the mesh on which state and inputs lie, with the same groups;
      None: one device. Either gives the same to rounding.
  """

  learn = paths.learner(
    net,
    sampler,
    images,
    groups,
    layout,
    label_smoothing=label_smoothing,
    reward_every=reward_every,
  )

  def step(state: TrainState, inputs):
    drawn, indices_B = images.order.draw(state.images, inputs, state.step)
    batch = images.batch(inputs, state.step, indices_B)
    archs_PxE = sampler.sample(
      state.sampler, streams.key(seed, 'archs', state.step)
    )
    learnt = learn(state, archs_PxE, inputs, batch, indices_B, drawn)
    updates, optimizer_state = optimizer.update(
      learnt.gradient, state.optimizer, state.params, used=learnt.used
    )
    params = optax.apply_updates(state.params, updates)
    decay = jnp.minimum(ema_decay, (1 + state.step) / (10 + state.step))
    average = state.average and optax.incremental_update(
      {'params': params, **learnt.statistics}, state.average, 1 - decay
    )
    return dataclasses.replace(
      state,
      step=state.step + 1,
      params=params,
      statistics=learnt.statistics,
      average=average,
      optimizer=optimizer_state,
      sampler=learnt.sampler,
      images=learnt.images,
      samples=state.samples + count(archs_PxE),
    ), Metrics(
      learnt.losses_P.mean(),
      learnt.accuracies_P.mean(),
      optax.global_norm(learnt.gradient),
    )

  return jax.jit(
    step,
    donate_argnums=0,
    out_shardings=None if layout is None else layout.whole,
  )
