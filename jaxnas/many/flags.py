"""Flags of commands that train many times: where, and how many at once."""

import dataclasses
from pathlib import Path
from typing import TypeVar

from jaxnas.config import Config, flatten, trusted, validation
from jaxnas.config.fields import MOST
from jaxnas.config.flags import Command, Truth
from jaxnas.config.registry import EXECUTORS


@dataclasses.dataclass(frozen=True)
class Needs:
  """The share of a machine that each training takes under Ray and Slurm."""

  gpus: float | None = None
  """GPUs. None: 1 where the cluster has any; under Slurm what --needs.sbatch
  says."""
  cpus: int | None = None
  """Cores. None: 1; under Slurm what --needs.sbatch says."""
  sbatch: str = ''
  """More flags of sbatch, such as '--partition=gpu --gpus=1 --time=8:00:00'; a
  single one behind an equals sign: --needs.sbatch=--partition=gpu."""


NEEDS = Needs()


@dataclasses.dataclass(frozen=True, kw_only=True)
class Many:
  """Flags of every command that trains many times."""

  on: str = 'local'
  """The place of trainings: local, ray, ray:ADDRESS of a cluster, or slurm."""
  workers: int | None = None
  """Trainings at once: processes on one machine, each with a GPU or a share of
  the cores, or tasks of Ray. None: this process trains one after the other;
  Ray takes what its cluster has room for."""
  at_once: int = 64
  """Tasks of the Slurm array that may run at once."""
  needs: Needs = NEEDS
  only: str | None = None
  """The name of one training of those in --workdir: do that one alone, as the
  processes do that --on and --workers start."""

  @property
  def where(self) -> tuple[str, str]:
    """The executor's name, and the address behind it."""
    name, _, address = self.on.partition(':')
    return name, address

  @property
  def in_processes(self) -> bool:
    """True where each training gets a process of its own."""
    elsewhere = self.on != 'local' or self.workers is not None
    return elsewhere and self.only is None

  @property
  def later(self) -> bool:
    """True where the command ends before its trainings do."""
    return self.where[0] == 'slurm'


@dataclasses.dataclass(frozen=True, kw_only=True)
class Gathers(Many, Command):
  """Flags of those whose results can be gathered before all are there."""

  gather: bool = False
  """Train nothing: show the state of all in --workdir, and the results so
  far."""
  dry_run: bool = False
  """Train nothing: say how many trainings are left, with hours and disk."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Labelled(Gathers, Truth):
  """Flags of those that train runs by label, and hold them to the truth."""


def argv_of_task(
  workdir: Path, given: Command, config: Config
) -> tuple[str, ...]:
  """Returns the flags of a task; the rest is in the folder's config.json.

  Args:
    workdir: the folder of the command.
    given: the command's own flags.
    config: the experiment, whose modules the process may import as this one
      has.
  """
  words = ['--workdir', str(workdir.absolute()), '--resume']
  modules = given.trust_module or trusted.modules_of(flatten(config))
  if modules:
    words += ['--trust_module', modules]
  if given.deterministic:
    words += ['--deterministic']
  return tuple(words)


M = TypeVar('M', bound=Many)


def check(given: M) -> M:
  """Returns the flags, of which those that only look imply --resume.

  Raises ValueError where flags are out of range or at odds.
  """
  name, address = given.where
  EXECUTORS.check(name, '--on')
  if address and name != 'ray':
    raise ValueError(f'--on {given.on}: only ray has an address: --on {name}.')
  if given.workers is not None:
    validation.at_least_one('--workers', given.workers)
    if name == 'slurm':
      raise ValueError(
        f'--workers {given.workers} is of local and ray: Slurm has --at_once.'
      )
  validation.at_least_one('--at_once', given.at_once)
  if given.at_once != Many.at_once and name != 'slurm':
    raise ValueError(
      f'--at_once {given.at_once} is of --on slurm: others have --workers.'
    )
  if given.needs != NEEDS and name == 'local':
    raise ValueError(
      '--needs is of --on ray and slurm: local divides the machine by '
      '--workers.'
    )
  if given.needs.cpus is not None:
    validation.at_least_one('--needs.cpus', given.needs.cpus)
  gpus = given.needs.gpus
  if gpus is not None and not (0 <= gpus <= 1 or float(gpus).is_integer()):
    raise ValueError(
      f'--needs.gpus is {gpus:g}; it must be a whole number, or a share of one.'
    )
  if gpus is not None:
    validation.within('--needs.gpus', gpus, 0, MOST)
  if given.needs.sbatch and name != 'slurm':
    raise ValueError(f'--needs.sbatch is of --on slurm, not of {name}.')
  if not isinstance(given, Gathers):
    return given
  looks = [name for name in ('gather', 'dry_run') if getattr(given, name)]
  if len(looks) > 1:
    raise ValueError('--gather and --dry_run exclude each other.')
  if (given.gather or given.only is not None) and given.workdir is None:
    flag = '--gather' if given.gather else '--only'
    raise ValueError(f'{flag} is of a folder that is begun: give --workdir.')
  if given.gather:
    return dataclasses.replace(given, resume=True)
  return given
