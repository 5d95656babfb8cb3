"""Trains several members of an ensemble at once, each on a device of its own.

A mesh has the members along its axis, and one program takes the unchanged step
of all of them: under a `vmap` a switch would run all of its branches, under a
`shard_map` each device runs its own. Members meet at every step and nowhere
else: each has its own loop, which asks for steps in its turn.
"""

import contextlib
import functools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from jaxnas.runtime import devices, graphs, processes
from jaxnas.runtime.errors import Stopped
from jaxnas.training.step import Metrics, TrainState, WithNumbers
from jaxnas.training.turns import Asked, Held, Read, Turns, alone

MEMBERS = 'members'


class Member(NamedTuple):
  """A training that others are trained with."""

  step_fn: WithNumbers
  """The step, which differs from that of the others in its numbers alone."""
  turns: Callable[[Held], Turns[Any]]
  """Starts it, with what holds its state."""


def drive(members: Sequence[Member], size: int) -> list[Any]:
  """Trains members, so many at once, and returns what they return, in order.

  One at once is one after the other, on the devices that its step is for.
  Of several the next takes the place of one that is done. A signal stops all of
  them, and any other error of one ends all.

  Args:
    members: at least one.
    size: number of devices, each of which trains a member; 1 at least.
  """
  if size == 1:
    return [alone(one.turns, one.step_fn.many) for one in members]
  group = Group(members[0].step_fn, size)
  results: dict[int, Any] = {}
  asked: dict[int, Asked] = {}
  running: dict[int, tuple[int, Turns[Any]]] = {}
  left = iter(range(len(members)))
  stopped: list[Stopped] = []

  def go_on(place: int, act: Callable[[], Asked]) -> None:
    """Lets the member in a place go on until it asks, and the next if done."""
    try:
      asked[place] = act()
      return
    except StopIteration as end:
      results[running[place][0]] = end.value
    except Stopped as error:
      stopped.append(error)
    begin(place)

  def begin(place: int) -> None:
    """Puts the next member into a place, if there is one left."""
    asked.pop(place, None)
    running.pop(place, None)
    if stopped or (number := next(left, None)) is None:
      return
    turns = members[number].turns(group.places[place])
    open_turns.enter_context(contextlib.closing(turns))
    running[place] = number, turns
    go_on(place, lambda: next(turns))

  with contextlib.ExitStack() as open_turns:
    for place in range(size):
      begin(place)
    while asked:
      # Some may take several steps at once where others are within an epoch.
      steps = min(one.steps for one in asked.values())
      now = {
        place: (members[running[place][0]].step_fn, one.inputs)
        for place, one in asked.items()
        if one.steps == steps
      }
      try:
        reads = group.run(now, steps)
      except Exception as error:
        # It is the error of all of them: one says what may be done about it.
        running[min(now)][1].throw(error)
        raise
      for place, read in reads.items():
        turns = running[place][1]
        go_on(place, functools.partial(turns.send, read))
  if stopped:
    raise stopped[0]
  return [results[number] for number in range(len(members))]


class Group:
  """States of members, one on each device, and the program of their steps.

  A state leaves its device where a member wants it, as for a checkpoint, and
  goes there anew where the member has changed it. It goes by way of the host,
  so that no device ever holds the states of all.

  Args:
    step_fn: of any member.
    size: number of members.
  """

  def __init__(self, step_fn: WithNumbers, size: int):
    self._step_fn = step_fn
    self._mesh = jax.make_mesh(
      (size,),
      (MEMBERS,),
      axis_types=(AxisType.Auto,),
      devices=jax.devices()[:size],
    )
    self.places = [
      Held(functools.partial(self._get, n), functools.partial(self._put_own, n))
      for n in range(size)
    ]
    """Holders of their states."""
    self._states: Any = None
    """States on the devices, along a first axis; None before the first step."""
    self._fetched: Any = None
    """A copy of them on the host, if a member has asked since the last step."""
    self._newer: dict[int, TrainState] = {}
    """States on the host that take the place of those before a step."""
    self._sharding: Any = None
    self._given: dict[int, list[Any]] = {}
    """Leaves of what a step of each place was last given besides the state."""
    self._apart: list[bool] = []
    """True for leaves that have differed among members."""
    self._put: dict[int, tuple[list[Any], Any]] = {}
    """Leaves as they were last given by all, and as they lie on the devices."""
    self._program = functools.cache(self._make_program)

  def _get(self, number: int) -> TrainState:
    """Returns the state of a place, on the device where the member wants it."""
    return devices.put(self._row(number), self._sharding)

  def _put_own(self, number: int, state: TrainState) -> None:
    """Gives a place another state."""
    self._newer[number] = processes.fetch(state)
    self._sharding = state.step.sharding

  def _row(self, number: int) -> TrainState:
    """Returns the state of a place, on the host."""
    if number in self._newer:
      return self._newer[number]
    if self._fetched is None:
      self._fetched = processes.fetch(self._states)
    return jax.tree.map(lambda leaf: leaf[number], self._fetched)

  def run(
    self, asked: dict[int, tuple[WithNumbers, Any]], steps: int
  ) -> dict[int, Read]:
    """Takes so many steps in some places, on inputs that lie on one device.

    The others keep their states; their devices compute, too, and nobody wants
    that.

    Args:
      asked: (step, inputs) by the place.
      steps: their number.

    Returns what reads the metrics, by the place.
    """
    size = len(self.places)
    for number in range(size):
      if number not in asked and self._states is not None:
        self._newer[number] = self._row(number)
    if not asked.keys().isdisjoint(self._newer):
      self._load([self._newer_or(number, asked) for number in range(size)])
      for number in asked:
        self._newer.pop(number, None)
    self._fetched = None
    given, tree = self._placed(asked)
    self._states, metrics = self._program(steps, tree, tuple(self._apart))(
      self._states, given
    )
    fetch = functools.cache(lambda: processes.fetch(metrics))

    def read(number: int) -> Metrics:
      return jax.tree.map(lambda leaf: leaf[number], fetch())

    return {number: functools.partial(read, number) for number in asked}

  def _newer_or(self, number: int, asked: dict[int, Any]) -> TrainState:
    """Returns a place's state; that of another where it never had one."""
    known = self._states is not None or number in self._newer
    return self._row(number if known else min(asked))

  def _load(self, states: Sequence[TrainState]) -> None:
    """Puts the states of all places on their devices."""
    self._states = None
    self._states = devices.put(
      jax.tree.map(lambda *leaves: np.stack(leaves), *states),
      self._over_members,
    )

  def _placed(self, asked: dict[int, tuple[WithNumbers, Any]]) -> Any:
    """Puts what the steps are given on the devices, once while it stays."""
    tree: Any = None
    for number, (step_fn, inputs) in asked.items():
      self._given[number], tree = jax.tree.flatten((inputs, step_fn.numbers))
    anyone = self._given[min(asked)]
    leaves = zip(
      *(self._given.get(n, anyone) for n in range(len(self.places))),
      strict=True,
    )
    out = []
    for index, each in enumerate(map(list, leaves)):
      if index == len(self._apart):
        self._apart.append(False)
      if any(leaf is not each[0] for leaf in each) and not self._apart[index]:
        self._apart[index] = True
        self._put.pop(index, None)
      before = self._put.get(index)
      if before is None or any(
        a is not b for a, b in zip(before[0], each, strict=True)
      ):
        self._put[index] = each, self._put_leaf(each, self._apart[index])
      out.append(self._put[index][1])
    return out, tree

  def _put_leaf(self, each: Sequence[Any], apart: bool) -> Any:
    if apart:
      return devices.put(jnp.stack(each), self._over_members)
    if not isinstance(each[0], jax.Array):
      # The program knows a number of Python's as one that takes any type.
      return each[0]
    return devices.put(each[0], NamedSharding(self._mesh, PartitionSpec()))

  @property
  def _over_members(self) -> NamedSharding:
    return NamedSharding(self._mesh, PartitionSpec(MEMBERS))

  def _make_program(
    self, steps: int, tree: Any, apart: tuple[bool, ...]
  ) -> Callable[[Any, Any], Any]:
    """Compiles (states, leaves of what is given) -> states, metrics."""
    step = self._step_fn.program(steps)

    def on_device(state_1, leaves):
      own = [
        leaf[0] if one else leaf
        for leaf, one in zip(leaves, apart, strict=True)
      ]
      inputs, numbers = jax.tree.unflatten(tree, own)
      state = jax.tree.map(lambda leaf: leaf[0], state_1)
      return jax.tree.map(lambda leaf: leaf[None], step(state, inputs, numbers))

    whole, over = PartitionSpec(), PartitionSpec(MEMBERS)
    return graphs.jit(
      jax.shard_map(
        on_device,
        mesh=self._mesh,
        in_specs=(over, [over if one else whole for one in apart]),
        out_specs=over,
        # Nothing is exchanged, and gradients stay each member's own.
        check_vma=False,
      ),
      donate_argnums=0,
    )
