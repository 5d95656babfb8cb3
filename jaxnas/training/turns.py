"""Trainings ask for their steps in turns, and a driver takes them.

The driver here takes the steps of one training, `together` those of several at
once. Only a driver knows where the state lies meanwhile.
"""

import contextlib
import functools
from collections.abc import Callable, Generator
from typing import Any, NamedTuple, TypeVar

import jax

from jaxnas.training.step import Metrics, Step, TrainState

T = TypeVar('T')


class Asked(NamedTuple):
  """A program that a training asks for."""

  inputs: Any
  steps: int
  """Number of steps that it takes, all on these inputs."""


# Waits for a program, and gives its metrics, those of several steps stacked.
Read = Callable[[], Metrics]
Turns = Generator[Asked, Read, T]


class Held(NamedTuple):
  """Holds the state of a training between its programs."""

  get: Callable[[], TrainState]
  put: Callable[[TrainState], None]


def alone(
  training: Callable[[Held], Turns[T]], program: Callable[[int], Step]
) -> T:
  """Takes the steps of one training; returns what that returns.

  Args:
    training: gets what holds its state. It hears of an error of a step where it
      asked for it.
    program: number of steps -> those as one, whose metrics are stacked.
  """
  state: Any = None

  def put(given: TrainState) -> None:
    nonlocal state
    state = given

  with contextlib.closing(training(Held(lambda: state, put))) as turns:
    try:
      asked = next(turns)
      while True:
        run = program(asked.steps)
        try:
          state, values = run(state, asked.inputs)
        except Exception as error:
          asked = turns.throw(error)
        else:
          asked = turns.send(functools.partial(jax.device_get, values))
    except StopIteration as end:
      return end.value
