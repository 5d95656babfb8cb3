"""Learning from the paths of a step: in turn, or side by side on a mesh."""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from jaxnas import supernets
from jaxnas.data import Training
from jaxnas.nn.layers import MOMENTUM, Groups
from jaxnas.samplers import Feedback, Sampler
from jaxnas.training.mesh import DeviceLayout, Measured

Batch = tuple[Array, Array]


class Learnt(NamedTuple):
  """Result of all paths of a step."""

  gradient: Any
  """Sum of the gradients of all paths."""
  used: Any
  """Booleans that broadcast to the parameters, True where any path trains."""
  statistics: Any
  """Running statistics of batch normalisation."""
  sampler: Any
  """State of the sampler, updated."""
  images: Any
  """State of the order of images, updated."""
  losses_P: Float[Array, ' P']
  accuracies_P: Float[Array, ' P']


# (state, archs_PxE, inputs of the step, batch, its indices, state of the order
# of images) -> Learnt
Learn = Callable[..., Learnt]


class Smoothing(NamedTuple):
  """Weights of classes in a label, from `smoothing`."""

  own: Any
  """Weight of the label's class, beside the one of every class."""
  each: Any
  """Weight of every class."""


def smoothing(share: float, classes: int) -> Smoothing:
  """Returns the weights where all classes get this share of a label alike.

  They are computed in double precision, before a program rounds them.
  """
  return Smoothing(1.0 - share, share / classes)


class Aim(NamedTuple):
  """Numbers that make the target of an image from its label."""

  smoothing: Smoothing
  soft: Any
  """Share of the target that the teacher's softmax has."""


# (logits_BxK, target_BxK) -> losses_B
Loss = Callable[[Array, Array], Array]


class Teacher(NamedTuple):
  """An architecture that the paths of a step learn from."""

  arch: tuple[int, ...]
  share: float
  """Part of a path's target that its softmax is."""


class Objective(NamedTuple):
  """The aim of a path.

  The teacher T, if there is one, is trained by labels in every step, as one
  path more. With its logits z_T of the same step, the target of another path is

    soft softmax(z_T) + (1 - soft) (smoothed label)

  and no gradient goes through z_T. With soft = 1 and the largest architecture
  that is in-place distillation (Yu et al., "BigNAS", ECCV 2020; stated there,
  as are the missing temperature and labels). Once-for-All (Cai et al., ICLR
  2020) adds both losses of a teacher that was trained before: soft = 0.5 is
  half their sum, with this teacher. One arch of the sampler a path, and not
  BigNAS's smallest besides: inferred.
  """

  aim: Aim
  loss: Loss
  teacher: tuple[int, ...] | None


class Losses(NamedTuple):
  """Pure functions of a net's variables, for one architecture."""

  gradient: Callable[..., Any]
  """(params, statistics, arch_E, batch) -> ((loss, (accuracy, statistics,
  logits_BxK)), gradient); a batch may have a teacher's softmax behind labels"""
  reward: Callable[..., Float[Array, '']]
  """(params, arch_E, batch) -> accuracy, with statistics of the batch."""


def losses(net: Any, objective: Objective) -> Losses:
  """Builds the functions of a supernet or of a network alone."""

  (smoothing, share), loss_of, _ = objective

  def loss(params, statistics, arch_E, batch):
    x_BxHxWxC, y_B, *soft = batch
    logits_BxK, statistics = net.apply(
      {'params': params, **statistics},
      x_BxHxWxC,
      arch_E,
      train=True,
      mutable=['batch_stats'],
    )
    label_BxK = jax.nn.one_hot(y_B, logits_BxK.shape[-1])
    target_BxK = smoothing.own * label_BxK + smoothing.each
    for soft_BxK in soft:
      target_BxK = share * soft_BxK + (1 - share) * target_BxK
    losses_B = loss_of(logits_BxK, target_BxK)
    accuracy = jnp.mean(jnp.argmax(logits_BxK, -1) == y_B)
    return losses_B.mean(), (accuracy, statistics, logits_BxK)

  def reward(params, arch_E, batch):
    x_BxHxWxC, y_B = batch
    # Running statistics, which architectures share, are not read: keeping them
    # must not change training.
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
  objective: Objective,
  reward_every: int,
) -> Learn:
  """Trains paths in turn on one device; arguments as in `step.make_step`."""
  net_fns = losses(net, objective)

  def learn(state, archs_PxE, inputs, batch, indices_B, drawn):
    def reward(arch_E):
      if images.reward is None:
        return jnp.float32(jnp.nan)
      held_out = functools.partial(images.reward, inputs, state.step)
      return jax.lax.cond(
        state.step % reward_every == 0,
        lambda: net_fns.reward(state.params, arch_E, held_out()),
        lambda: jnp.float32(jnp.nan),
      )

    def train(trained, arch_E, batch):
      summed, used, statistics = trained
      (value, (accuracy, statistics, logits_BxK)), gradient = net_fns.gradient(
        state.params, statistics, arch_E, batch
      )
      used_here = net.used(state.params, arch_E)
      return (
        jax.tree.map(jnp.add, summed, gradient),
        jax.tree.map(jnp.logical_or, used, used_here),
        statistics,
      ), (gradient, logits_BxK, value, accuracy)

    trained = (
      jax.tree.map(jnp.zeros_like, state.params),
      _none_used(net, state, archs_PxE),
      state.statistics,
    )
    learnt_from = batch
    if objective.teacher is not None:
      teacher_E = jnp.array(objective.teacher)
      trained, (_, logits_BxK, *_) = train(trained, teacher_E, batch)
      learnt_from = (*batch, jax.nn.softmax(logits_BxK))

    def path(carry, arch_E):
      trained, sampler_state, drawn = carry
      trained, (gradient, logits_BxK, *values) = train(
        trained, arch_E, learnt_from
      )
      if images.order.note is not None:
        drawn = images.order.note(drawn, indices_B, logits_BxK, batch[1])
      feedback = Feedback(arch_E, gradient, reward(arch_E))
      return (trained, sampler.update(sampler_state, feedback), drawn), values

    (trained, *others), per_path = jax.lax.scan(
      path, (trained, state.sampler, drawn), archs_PxE
    )
    return Learnt(*trained, *others, *per_path)

  return learn


def side_by_side(
  net: Any,
  sampler: Sampler,
  images: Training,
  layout: DeviceLayout,
  *,
  objective: Objective,
  reward_every: int,
) -> Learn:
  """Trains paths on a mesh with one exchange; arguments as in `make_step`.

  The exchange includes what paths measure for the sampler, the order of images
  and the running statistics, which are then updated path by path, as `in_turn`
  does. Where the sampler reads gradients, that is P gradients. A teacher is
  trained on every row of the mesh alike, with an exchange of its own.
  """
  net = supernets.in_groups(net, layout.groups)

  def learn(state, archs_PxE, inputs, batch, indices_B, drawn):
    # With a momentum of 1 each path returns the statistics that it measured.
    tracks = bool(state.statistics)
    net_fns = losses(
      supernets.with_momentum(net, 1.0) if tracks else net, objective
    )

    def moved(statistics, before):
      """Returns exactly zero where a path measured no statistics."""
      return jax.tree.map(jnp.subtract, statistics, before) if tracks else {}

    def measure_teacher(shared, arch_E, batches):
      params, before, _ = shared
      (_, (_, statistics, logits_BxK)), gradient = net_fns.gradient(
        params, before, arch_E, batches['training']
      )
      return Measured(gradient, moved(statistics, before), logits_BxK)

    def measure(shared, arch_E, batches):
      params, before, step = shared
      (value, (accuracy, statistics, logits_BxK)), gradient = net_fns.gradient(
        params, before, arch_E, batches['training']
      )
      reward = jnp.float32(jnp.nan)
      if images.reward is not None:
        reward = jax.lax.cond(
          step % reward_every == 0,
          lambda: net_fns.reward(params, arch_E, batches['reward']),
          lambda: jnp.float32(jnp.nan),
        )
      return Measured(
        gradient,
        {
          'value': value,
          'accuracy': accuracy,
          'reward': reward,
          'moved': moved(statistics, before),
          'gradient': gradient if sampler.gradients else None,
        },
        logits_BxK if images.order.note is not None else (),
      )

    archs_PxE = layout.within(archs_PxE)
    batches = {'training': batch}
    if images.reward is not None:
      batches['reward'] = images.reward(inputs, state.step)
    shared = state.params, state.statistics, state.step
    used, statistics = _none_used(net, state, archs_PxE), state.statistics
    of_teacher = None
    if objective.teacher is not None:
      teacher_E = jnp.array(objective.teacher)
      every_row = layout.side_by_side(measure_teacher)(
        shared, jnp.tile(teacher_E, (layout.rows, 1)), batches
      )
      of_teacher = jax.tree.map(
        lambda leaf: leaf / layout.rows, every_row.summed
      )
      used = net.used(state.params, teacher_E)
      statistics = jax.tree.map(
        lambda now, moved_R: _follow(now, now, moved_R[0]),
        statistics,
        every_row.per_path,
      )
      batches['training'] = (*batch, jax.nn.softmax(every_row.per_image[0]))
    summed, per_path, logits_PxBxK = layout.side_by_side(measure)(
      shared, archs_PxE, batches
    )
    if of_teacher is not None:
      summed = jax.tree.map(jnp.add, of_teacher, summed)

    def update(carry, measured):
      used, statistics, sampler_state, drawn = carry
      arch_E, values, logits_BxK = measured
      if images.order.note is not None:
        drawn = images.order.note(drawn, indices_B, logits_BxK, batch[1])
      feedback = Feedback(arch_E, values['gradient'], values['reward'])
      return (
        jax.tree.map(jnp.logical_or, used, net.used(state.params, arch_E)),
        jax.tree.map(_follow, statistics, state.statistics, values['moved']),
        sampler.update(sampler_state, feedback),
        drawn,
      ), None

    carry, _ = jax.lax.scan(
      update,
      (used, statistics, state.sampler, drawn),
      (archs_PxE, per_path, logits_PxBxK),
    )
    return Learnt(summed, *carry, per_path['value'], per_path['accuracy'])

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
  layout: DeviceLayout | None,
  *,
  objective: Objective,
  reward_every: int,
) -> Learn:
  """Returns `in_turn` without a layout, else `side_by_side`."""
  settings = {'objective': objective, 'reward_every': reward_every}
  if layout is not None:
    return side_by_side(net, sampler, images, layout, **settings)
  return in_turn(
    supernets.in_groups(net, Groups(groups)), sampler, images, **settings
  )
