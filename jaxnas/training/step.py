"""One training step, the same jitted program for every architecture."""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from flax import struct
from jaxtyping import Array, Bool, Float, Int

from jaxnas import streams, supernets
from jaxnas.data import Training
from jaxnas.samplers import Feedback, Sampler


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
  finite: Bool[Array, '']
  """Whether the running statistics are, where there are any."""
  archs_PxE: Int[Array, 'P E']
  """Of the step."""


# Of which rows of metrics have the mean.
LOGGED = ('loss', 'accuracy', 'gradient_norm')


# (state, inputs of the step) -> (state, metrics)
Step = Callable[[TrainState, Any], tuple[TrainState, Metrics]]
Counter = Callable[[Int[Array, 'P E']], Array]


def finite(tree: Any) -> Bool[Array, '']:
  """Whether every value of the leaves is; True where there are none."""
  leaves = [jnp.isfinite(leaf).all() for leaf in jax.tree.leaves(tree)]
  return jnp.stack([jnp.bool_(True), *leaves]).all()


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
  """

  @functools.partial(jax.jit, donate_argnums=0)
  def step(state: TrainState, inputs):
    drawn, indices_B = images.order.draw(state.images, inputs, state.step)
    x_BxHxWxC, y_B = images.batch(inputs, state.step, indices_B)
    archs_PxE = sampler.sample(
      state.sampler, streams.key(seed, 'archs', state.step)
    )

    def loss(params, statistics, arch_E):
      logits_BxK, statistics = net.apply(
        {'params': params, **statistics},
        x_BxHxWxC,
        arch_E,
        train=True,
        mutable=['batch_stats'],
      )
      target_BxK = optax.smooth_labels(
        jax.nn.one_hot(y_B, logits_BxK.shape[-1]), label_smoothing
      )
      losses_B = optax.softmax_cross_entropy(logits_BxK, target_BxK)
      accuracy = jnp.mean(jnp.argmax(logits_BxK, -1) == y_B)
      return losses_B.mean(), (accuracy, statistics, logits_BxK)

    def reward(arch_E):
      if images.reward is None:
        return jnp.float32(jnp.nan)
      held_out = functools.partial(images.reward, inputs, state.step)

      def measured():
        x_BxHxWxC, y_B = held_out()
        # Not by running statistics, which architectures share: keeping them
        # must not change what is trained.
        logits_BxK = supernets.with_momentum(net, None).apply(
          {'params': state.params}, x_BxHxWxC, arch_E, train=False
        )
        return jnp.mean(jnp.argmax(logits_BxK, -1) == y_B)

      return jax.lax.cond(
        state.step % reward_every == 0, measured, lambda: jnp.float32(jnp.nan)
      )

    def path(carry, arch_E):
      summed, used, statistics, sampler_state, drawn = carry
      (value, (accuracy, statistics, logits_BxK)), gradient = (
        jax.value_and_grad(loss, has_aux=True)(state.params, statistics, arch_E)
      )
      if images.order.note is not None:
        drawn = images.order.note(drawn, indices_B, logits_BxK, y_B)
      of_path = net.used(state.params, arch_E)
      return (
        jax.tree.map(jnp.add, summed, gradient),
        jax.tree.map(jnp.logical_or, used, of_path),
        statistics,
        sampler.update(
          sampler_state, Feedback(arch_E, gradient, reward(arch_E))
        ),
        drawn,
      ), (value, accuracy)

    nothing = (
      jax.tree.map(jnp.zeros_like, state.params),
      jax.tree.map(jnp.zeros_like, net.used(state.params, archs_PxE[0])),
      state.statistics,
      state.sampler,
      drawn,
    )
    (gradient, used, statistics, sampler_state, drawn), of_paths = jax.lax.scan(
      path, nothing, archs_PxE
    )
    losses_P, accuracies_P = of_paths
    updates, optimizer_state = optimizer.update(
      gradient, state.optimizer, state.params, used=used
    )
    params = optax.apply_updates(state.params, updates)
    decay = jnp.minimum(ema_decay, (1 + state.step) / (10 + state.step))
    average = state.average and optax.incremental_update(
      {'params': params, **statistics}, state.average, 1 - decay
    )
    return dataclasses.replace(
      state,
      step=state.step + 1,
      params=params,
      statistics=statistics,
      average=average,
      optimizer=optimizer_state,
      sampler=sampler_state,
      images=drawn,
      samples=state.samples + count(archs_PxE),
    ), Metrics(
      losses_P.mean(),
      accuracies_P.mean(),
      optax.global_norm(gradient),
      finite(statistics),
      archs_PxE,
    )

  return step
