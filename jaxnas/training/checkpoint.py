"""Checkpoints, behind which Orbax stands."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

import jax
import orbax.checkpoint as ocp
from orbax.checkpoint import checkpoint_managers as policies


def write(folder: Path, tree: Any) -> None:
  """Arrays alone, of no step; there when this returns."""
  with ocp.StandardCheckpointer() as checkpointer:
    checkpointer.save(folder.absolute(), tree)


def read(folder: Path, like: Any) -> Any:
  """What `write` wrote, in the shapes, dtypes and places of `like`."""
  with ocp.StandardCheckpointer() as checkpointer:
    return checkpointer.restore(
      folder.absolute(), jax.tree.map(ocp.utils.to_shape_dtype_struct, like)
    )


class Checkpoints:
  """Writes in the background; the newest complete one is what counts.

  Args:
    folder: made where it is missing.
    keep: how many of the newest stay.
    always_keep: steps that stay besides.
  """

  def __init__(
    self, folder: Path, *, keep: int = 2, always_keep: Sequence[int] = ()
  ):
    self._manager = ocp.CheckpointManager(
      folder.absolute(),
      options=ocp.CheckpointManagerOptions(
        preservation_policy=policies.AnyPreservationPolicy(
          [policies.LatestN(keep), policies.CustomSteps(list(always_keep))]
        )
      ),
    )

  def __enter__(self) -> 'Checkpoints':
    return self

  def __exit__(
    self,
    kind: type[BaseException] | None,
    error: BaseException | None,
    trace: TracebackType | None,
  ) -> None:
    # Raises what a write in the background ran into.
    self._manager.wait_until_finished()
    self._manager.close()

  def steps(self) -> list[int]:
    """Of the checkpoints there are, oldest first."""
    return sorted(self._manager.all_steps())

  def save(
    self, state: Any, notes: Mapping[str, Any], *, wait: bool = False
  ) -> None:
    """Under `state.step`; `notes` are JSON. A step that is there stays.

    With `wait` it is there when this returns.
    """
    step = int(state.step)
    if step not in self.steps():
      self._manager.save(
        step,
        args=ocp.args.Composite(
          state=ocp.args.StandardSave(state),
          notes=ocp.args.JsonSave(dict(notes)),
        ),
      )
    if wait:
      self._manager.wait_until_finished()

  def restore(self, step: int, like: Any) -> tuple[Any, dict[str, Any]]:
    """(state, notes) of a step, in the shapes, dtypes and places of `like`."""
    restored: Any = self._manager.restore(
      step,
      args=ocp.args.Composite(
        state=ocp.args.StandardRestore(
          jax.tree.map(ocp.utils.to_shape_dtype_struct, like)
        ),
        notes=ocp.args.JsonRestore(),
      ),
    )
    return restored.state, restored.notes
