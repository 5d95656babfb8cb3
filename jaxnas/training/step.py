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
from jaxtyping import Array, Bool, Float, Int

from jaxnas.data import Training
from jaxnas.runtime import graphs, rng
from jaxnas.samplers import Sampler
from jaxnas.training import paths
from jaxnas.training.mesh import DeviceLayout
from jaxnas.training.optimizer import Optimizer


@struct.dataclass
class TrainState:
  """State of training that checkpoints hold: arrays, or their shapes."""

  step: Any
  """Number of steps done, int32."""
  params: Any
  statistics: Any
  """Running statistics of batch normalisation; {} where the net keeps none."""
  average: Any
  """Moving average of parameters and statistics; {} where none is kept."""
  optimizer: Any
  sampler: Any
  images: Any
  """State of the order in which images are drawn, see `Training.order`."""
  samples: Any
  """Counts of steps that trained each architecture, or each op; int32."""

  @property
  def variables(self) -> dict[str, Any]:
    """Variables for evaluation: the moving average where one is kept."""
    return self.average or {'params': self.params, **self.statistics}


class Metrics(NamedTuple):
  """Metrics of one step: means over its paths, but the norm of the sum."""

  loss: Float[Array, '']
  accuracy: Float[Array, '']
  gradient_norm: Float[Array, '']
  finite: Bool[Array, '']
  """True where the running statistics are finite, if there are any."""
  archs_PxE: Int[Array, 'P E']
  """Architectures of the step."""


# Fields whose means are in the rows of metrics.
LOGGED = ('loss', 'accuracy', 'gradient_norm')


# (state, inputs of the step) -> (state, metrics)
Step = Callable[[TrainState, Any], tuple[TrainState, Metrics]]
Counter = Callable[[Int[Array, 'P E']], Array]


def finite(tree: Any) -> Bool[Array, '']:
  """True where every value of all leaves is finite, or where there are none."""
  leaves = [jnp.isfinite(leaf).all() for leaf in jax.tree.leaves(tree)]
  return jnp.stack([jnp.bool_(True), *leaves]).all()


def init_state(
  net: Any,
  sampler: Sampler,
  optimizer: Optimizer,
  count: Counter,
  variables: Any,
  *,
  images: Any = (),
  average: bool = False,
) -> TrainState:
  """Builds the state before the first step.

  Args:
    net: a supernet, or a network alone.
    sampler: same as in `make_step`.
    optimizer: same as in `make_step`.
    count: same as in `make_step`.
    variables: from `supernets.init`.
    images: first state of the order of training images.
    average: True to keep a moving average of the variables.
  """
  fresh = dict(jax.tree.map(jnp.array, variables))
  params, drawn = fresh.pop('params'), sampler.init()
  arch_1xE = jnp.zeros((1, net.space.positions), jnp.int32)

  def used() -> Any:
    return net.used(params, sampler.sample(drawn, jax.random.key(0))[0])

  return TrainState(
    step=jnp.zeros((), jnp.int32),
    params=params,
    statistics=fresh,
    average=jax.tree.map(jnp.array, variables) if average else {},
    optimizer=optimizer.init(params, jax.eval_shape(used)),
    sampler=drawn,
    images=images,
    samples=jnp.zeros_like(count(arch_1xE)),
  )


@struct.dataclass
class Numbers:
  """All numbers of an experiment that a step reads.

  They are arguments of its program, so that a run with another seed or other
  rates finds the program compiled.
  """

  stream: Any
  """Data of the key of the stream 'archs'."""
  optimizer: Optimizer
  aim: paths.Aim
  ema_decay: Any


@dataclasses.dataclass(frozen=True)
class WithNumbers:
  """A jitted step with the numbers of an experiment."""

  program: Callable[[int], Callable[..., Any]]
  """Number of steps -> (state, inputs, numbers) -> (state, metrics), not
  jitted; it stacks the metrics of more than one."""
  jitted: Callable[[int], Any]
  """Number of steps -> their program, jitted."""
  numbers: Numbers

  def seeded(self, seed: int) -> 'WithNumbers':
    """Returns the same programs with the architectures of another seed."""
    stream = np.asarray(jax.random.key_data(rng.key(seed, 'archs')))
    return dataclasses.replace(
      self, numbers=dataclasses.replace(self.numbers, stream=stream)
    )

  def __call__(
    self, state: TrainState, inputs: Any
  ) -> tuple[TrainState, Metrics]:
    return self.many(1)(state, inputs)

  def many(self, count: int) -> Step:
    """Returns so many steps as one, on the same inputs; metrics are stacked."""
    return lambda state, inputs: self.jitted(count)(state, inputs, self.numbers)

  def trace(self, state: TrainState, inputs: Any) -> Any:
    return self.jitted(1).trace(state, inputs, self.numbers)

  def lower(self, state: TrainState, inputs: Any) -> Any:
    return self.jitted(1).lower(state, inputs, self.numbers)


def make_step(
  net: Any,
  sampler: Sampler,
  optimizer: Optimizer,
  images: Training,
  count: Counter,
  *,
  seed: int,
  label_smoothing: float = 0.0,
  loss: paths.Loss | None = None,
  teacher: paths.Teacher | None = None,
  ema_decay: float = 0.0,
  reward_every: int = 1,
  groups: int = 1,
  layout: DeviceLayout | None = None,
) -> WithNumbers:
  """Builds the step (state, inputs) -> (state, metrics).

  The step is jitted and donates the state. It draws its architectures from
  (seed, step), sums the gradients of its paths and updates once.

  Args:
    net: a supernet, or a network alone.
    sampler: draws the architectures.
    optimizer: its numbers are arguments, too.
    images: makes the batches. Where it has validation images, a path's reward
      is its accuracy on them before the update; else rewards are NaN.
    count: archs_PxE -> how often each architecture is among them.
    seed: of the stream 'archs'.
    label_smoothing: fraction of a label's weight that is spread evenly over all
      classes.
    loss: (logits_BxK, target_BxK) -> losses_B; None: cross-entropy.
    teacher: an architecture that every step trains besides, and that the others
      learn from; None: there is none. Metrics are of the others alone.
    ema_decay: of the moving average, where the state has one; the first steps
      use less, (1 + step) / (10 + step), so that the start is forgotten.
    reward_every: number of steps from one with rewards to the next.
    groups: number of parts of a batch, each normalised alone.
    layout: of the mesh on which state and inputs lie, with the same groups;
      None for one device. Both give the same results to rounding.
  """

  def step(state: TrainState, inputs, numbers: Numbers):
    learn = paths.learner(
      net,
      sampler,
      images,
      groups,
      layout,
      objective=paths.Objective(
        numbers.aim,
        loss or optax.softmax_cross_entropy,
        None if teacher is None else teacher.arch,
      ),
      reward_every=reward_every,
    )
    drawn, indices_B = images.order.draw(state.images, inputs, state.step)
    batch = images.batch(inputs, state.step, indices_B)
    archs_PxE = sampler.sample(
      state.sampler,
      jax.random.fold_in(jax.random.wrap_key_data(numbers.stream), state.step),
    )
    trained_QxE = archs_PxE
    if teacher is not None:
      teacher_1xE = jnp.array([teacher.arch], archs_PxE.dtype)
      trained_QxE = jnp.concatenate([teacher_1xE, archs_PxE])
    learnt = learn(state, archs_PxE, inputs, batch, indices_B, drawn)
    updates, optimizer_state = numbers.optimizer.update(
      learnt.gradient, state.optimizer, state.params, used=learnt.used
    )
    params = optax.apply_updates(state.params, updates)
    decay = jnp.minimum(numbers.ema_decay, (1 + state.step) / (10 + state.step))
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
      samples=state.samples + count(trained_QxE),
    ), Metrics(
      learnt.losses_P.mean(),
      learnt.accuracies_P.mean(),
      optax.global_norm(learnt.gradient),
      finite(learnt.statistics),
      archs_PxE,
    )

  options: dict[str, Any] = {
    'donate_argnums': 0,
    'out_shardings': None if layout is None else layout.replicated,
  }

  def program(count: int) -> Callable[..., Any]:
    def steps(state: TrainState, inputs, numbers: Numbers):
      return jax.lax.scan(
        lambda state, _: step(state, inputs, numbers), state, length=count
      )

    return step if count == 1 else steps

  return WithNumbers(
    program,
    functools.cache(lambda count: graphs.jit(program(count), **options)),
    Numbers(
      stream=(),
      optimizer=optimizer,
      aim=paths.Aim(
        paths.smoothing(label_smoothing, net.space.classes),
        0.0 if teacher is None else teacher.share,
      ),
      ema_decay=ema_decay,
    ),
  ).seeded(seed)
