"""What a step learns from its architectures: in turn, or side by side."""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Int

from jaxnas import supernets
from jaxnas.data import Training
from jaxnas.nn.layers import MOMENTUM, Groups
from jaxnas.samplers import Feedback, Sampler
from jaxnas.training.mesh import Layout, Measured

Batch = tuple[Array, Array]


class Learnt(NamedTuple):
  """Of all architectures of a step."""

  gradient: Any
  """The sum of theirs."""
  used: Any
  """Booleans that broadcast to the parameters: whether any trains them."""
  statistics: Any
  """Running ones of batch normalisation."""
  sampler: Any
  images: Any
  """States after what both were told."""
  losses_P: Float[Array, ' P']
  accuracies_P: Float[Array, ' P']


# (state, archs_PxE, inputs of the step, batch, its indices, state of the order)
# -> what is learnt
Learn = Callable[..., Learnt]


class Losses(NamedTuple):
  """Pure functions of a net at some variables, for one architecture."""

  gradient: Callable[..., Any]
  """(params, statistics, arch_E, batch) -> ((loss, (accuracy, statistics,
  logits_BxK)), gradient)"""
  reward: Callable[..., Float[Array, '']]
  """(params, arch_E, batch) -> accuracy, normalised by the batch."""


def losses(net: Any, label_smoothing: float) -> Losses:
  """Of a supernet, or a network alone; smoothing as in `step.make_step`."""

  def loss(params, statistics, arch_E, batch):
    x_BxHxWxC, y_B = batch
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

  def reward(params, arch_E, batch):
    x_BxHxWxC, y_B = batch
    # Not by running statistics, which architectures share: keeping them
    # must not change what is trained.
    logits_BxK = supernets.with_momentum(net, None).apply(
      {'params': params}, x_BxHxWxC, arch_E, train=False
    )
    return jnp.mean(jnp.argmax(logits_BxK, -1) == y_B)

  return Losses(jax.value_and_grad(loss, has_aux=True), reward)


def in_turn(
  net: Any,
  sampler: Sampler,
  images: Training,
  *,
  label_smoothing: float,
  reward_every: int,
) -> Learn:
  """On one device; arguments as in `step.make_step`."""
  of_arch = losses(net, label_smoothing)

  def learn(state, archs_PxE, inputs, batch, indices_B, drawn):
    def reward(arch_E):
      if images.reward is None:
        return jnp.float32(jnp.nan)
      held_out = functools.partial(images.reward, inputs, state.step)
      return jax.lax.cond(
        state.step % reward_every == 0,
        lambda: of_arch.reward(state.params, arch_E, held_out()),
        lambda: jnp.float32(jnp.nan),
      )

    def path(carry, arch_E):
      summed, used, statistics, sampler_state, drawn = carry
      (value, (accuracy, statistics, logits_BxK)), gradient = of_arch.gradient(
        state.params, statistics, arch_E, batch
      )
      if images.order.note is not None:
        drawn = images.order.note(drawn, indices_B, logits_BxK, batch[1])
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
      _none_used(net, state, archs_PxE),
      state.statistics,
      state.sampler,
      drawn,
    )
    carry, of_paths = jax.lax.scan(path, nothing, archs_PxE)
    return Learnt(*carry, *of_paths)

  return learn


def side_by_side(
  net: Any,
  sampler: Sampler,
  images: Training,
  layout: Layout,
  *,
  label_smoothing: float,
  reward_every: int,
) -> Learn:
  """On a mesh, with one exchange; arguments as in `step.make_step`.

  What a path tells the sampler, the order of images and the running statistics
  is exchanged too, and told them in the order of the paths, as `in_turn`. Where
  the sampler reads gradients that is P of them.
  """
  net = supernets.in_groups(net, layout.groups)

  def learn(state, archs_PxE, inputs, batch, indices_B, drawn):
    # A momentum of 1 gives what each path has measured.
    tracks = bool(state.statistics)
    of_arch = losses(
      supernets.with_momentum(net, 1.0) if tracks else net, label_smoothing
    )

    def measure(shared, arch_E, batches):
      params, before, step = shared
      (value, (accuracy, statistics, logits_BxK)), gradient = of_arch.gradient(
        params, before, arch_E, batches['training']
      )
      reward = jnp.float32(jnp.nan)
      if images.reward is not None:
        reward = jax.lax.cond(
          step % reward_every == 0,
          lambda: of_arch.reward(params, arch_E, batches['reward']),
          lambda: jnp.float32(jnp.nan),
        )
      return Measured(
        gradient,
        {
          'value': value,
          'accuracy': accuracy,
          'reward': reward,
          # Exactly zero where the path did not measure any.
          'moved': jax.tree.map(jnp.subtract, statistics, before)
          if tracks
          else {},
          'gradient': gradient if sampler.gradients else None,
        },
        logits_BxK if images.order.note is not None else (),
      )

    archs_PxE = layout.within(archs_PxE)
    batches = {'training': batch}
    if images.reward is not None:
      batches['reward'] = images.reward(inputs, state.step)
    summed, of_path, logits_PxBxK = layout.side_by_side(measure)(
      (state.params, state.statistics, state.step), archs_PxE, batches
    )

    def tell(carry, told):
      used, statistics, sampler_state, drawn = carry
      arch_E, found, logits_BxK = told
      if images.order.note is not None:
        drawn = images.order.note(drawn, indices_B, logits_BxK, batch[1])
      feedback = Feedback(arch_E, found['gradient'], found['reward'])
      return (
        jax.tree.map(jnp.logical_or, used, net.used(state.params, arch_E)),
        jax.tree.map(_follow, statistics, state.statistics, found['moved']),
        sampler.update(sampler_state, feedback),
        drawn,
      ), None

    carry, _ = jax.lax.scan(
      tell,
      (
        _none_used(net, state, archs_PxE),
        state.statistics,
        state.sampler,
        drawn,
      ),
      (archs_PxE, of_path, logits_PxBxK),
    )
    return Learnt(summed, *carry, of_path['value'], of_path['accuracy'])

  return learn


def _none_used(net: Any, state: Any, archs_PxE: Int[Array, 'P E']) -> Any:
  return jax.tree.map(jnp.zeros_like, net.used(state.params, archs_PxE[0]))


def _follow(statistic: Array, before: Array, moved: Array) -> Array:
  """A running statistic after a path that measured `before + moved`."""
  towards = statistic + MOMENTUM * (before + moved - statistic)
  return jnp.where(moved != 0, towards, statistic)


def learner(
  net: Any,
  sampler: Sampler,
  images: Training,
  groups: int,
  layout: Layout | None,
  *,
  label_smoothing: float,
  reward_every: int,
) -> Learn:
  """`in_turn` without a layout, else `side_by_side`."""
  how = {'label_smoothing': label_smoothing, 'reward_every': reward_every}
  if layout is not None:
    return side_by_side(net, sampler, images, layout, **how)
  return in_turn(
    supernets.in_groups(net, Groups(groups)), sampler, images, **how
  )
