"""environment.json: by what a run was computed, over all its resumptions."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import jax

from jaxnas.nn import gpu
from jaxnas.nn.cpu import native
from jaxnas.runtime import environment, errors, files, graphs

FILE = 'environment.json'

# Between what has computed one part of a run and the next.
THEN = ', then '
# Between what has computed some trainings and what the others.
OR = ' or '


def describe(**metadata: Any) -> dict[str, Any]:
  """Returns command, machine, versions, backend and kernels, for JSON.

  Beside the backend stands what XLA was told (`graphs.describe`).

  Kernels are the sources of C++ that programs have asked for, with 'C++' or,
  where that could not be built, 'XLA', and 'Pallas' where a GPU has ours: their
  digits differ by rounding.
  """
  asked = {*native.formulations()} | ({gpu.KERNEL} if gpu.serves() else set())
  return environment.environment(
    backend=jax.default_backend(),
    kernels={name: _formulation(name) for name in sorted(asked)},
    **graphs.describe(),
    **metadata,
  )


def _formulation(name: str) -> str:
  if name == gpu.KERNEL and gpu.serves():
    return 'Pallas'
  return native.formulation(name)


def of_folders(folders: Iterable[Path]) -> dict[str, Any]:
  """Returns by what trainings in folders of their own were computed.

  The process that gathers them computes nothing, and may be on a machine of
  another kind.

  Args:
    folders: of the trainings; one without environment.json says nothing.

  Returns:
    backend and kernels as in `describe`, with all that there were of each, or
    nothing where no folder says any.
  """
  backends: set[str] = set()
  kernels: dict[str, set[str]] = {}
  for folder in folders:
    found = _read(folder / FILE, 'What computed there is not known.')
    if not found:
      continue
    backends.add(found['backend'])
    for name, by in found['kernels'].items():
      kernels.setdefault(name, set()).add(by)
  if not backends:
    return {}
  return {
    'backend': OR.join(sorted(backends)),
    'kernels': {name: OR.join(sorted(by)) for name, by in kernels.items()},
  }


class Origin:
  """Keeps environment.json of a run.

  Args:
    folder: of the run. What an earlier process has written there is read
      first.
    metadata: says more about the process.
  """

  def __init__(self, folder: Path, **metadata: Any):
    self._folder, self._metadata = folder, metadata
    self._before = _read(folder / FILE)
    self._kernels: dict[str, str] = dict(self._before.get('kernels', {}))
    self._written: dict[str, Any] = {}

  def goes_on(self) -> None:
    """Warns where this process computes otherwise than the one before it."""
    now = describe()
    changes = [
      f'{name} by {by} instead of {last}'
      for name, kept in self._before.get('kernels', {}).items()
      if (by := _formulation(name)) != (last := kept.split(THEN)[-1])
    ]
    for name, last in {
      'backend': self._before.get('backend'),
      **self._before.get('versions', {}),
    }.items():
      version = {**now, **now['versions']}.get(name)
      if last is not None and version != last:
        changes.append(f'{name} {version} instead of {last}')
    if changes:
      print(
        f'warning: {self._folder} goes on with {", ".join(changes)}: from here '
        'on its digits are not those of an uninterrupted run.'
      )

  def save(self) -> None:
    """Writes the file, with the kernels that programs have asked for by now."""
    now = describe(**self._metadata)
    for name, by in now['kernels'].items():
      parts = self._kernels[name].split(THEN) if name in self._kernels else []
      if parts[-1:] != [by]:
        self._kernels[name] = THEN.join([*parts, by])
    now['kernels'] = dict(self._kernels)
    if now != self._written:
      files.write_json(self._folder / FILE, now)
      self._written = now


def _read(file: Path, instead: str = 'It is written anew.') -> dict[str, Any]:
  """Reads what a process has written; where that is no such file, it warns.

  Args:
    file: environment.json of a run.
    instead: says in the warning what follows.

  Returns the content, or nothing.
  """
  if not file.exists():
    return {}
  kinds = {'versions': dict, 'kernels': dict, 'backend': str}
  try:
    found = files.read_json(file, kinds)
    texts = *found['versions'].values(), *found['kernels'].values()
    if not all(isinstance(text, str) for text in texts):
      raise errors.Damaged(f'{file} has versions or kernels that are no texts.')
  except errors.Damaged as error:
    print(f'warning: {error} {instead}')
    return {}
  return found
