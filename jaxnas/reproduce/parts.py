"""What is measured of a trained run besides its ranking.

Each takes the job and the folder of its finished run, and returns what goes
into the result, ready for JSON.
"""

import dataclasses
import itertools
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jaxnas import correlation
from jaxnas.reproduce.jobs import Job, changed

if TYPE_CHECKING:
  from jaxnas.build import Experiment
  from jaxnas.training.preemption import Preemption
  from jaxnas.training.step import TrainState

# Table 6 depends on them: all are told that the supernet declares.
TENSORS = ('authors', 'early', 'deep')

# Epochs of the paper's schedule that are looked at; a shorter one is looked at
# after each of its epochs.
EPOCHS = (0, 5, 10, 50, 100, 200, 300)

# Under what ImageNet's architectures are searched.
MAX_MACS = '330M'
# Flags of a search besides; without them it is as long as that of SPOS.
SEARCH: tuple[str, ...] = ()

Part = Callable[[Job, Path, 'Preemption'], dict[str, Any]]


def looked_at(total: int) -> tuple[int, ...]:
  """Epochs of a run of so many that densities and distances are taken at.

  >>> looked_at(3), looked_at(300)
  ((0, 1, 2, 3), (0, 5, 10, 50, 100, 200, 300))
  """
  if total < EPOCHS[-1]:
    every = max(total // 6, 1)
    return tuple(sorted({*range(0, total + 1, every), total}))
  return EPOCHS


def along_the_way(job: Job) -> bool:
  """Whether an item looks at checkpoints of such a run."""
  return (job.row.config, job.row.sampler) == ('pooling', 'uniform')


def kept(job: Job) -> Job:
  """The job, with the checkpoints that parts may be taken from later."""
  if not along_the_way(job):
    return job
  total = job.config.total_epochs
  gaps = [b - a for a, b in itertools.pairwise(looked_at(total))]
  return dataclasses.replace(
    job,
    config=changed(
      job.config,
      {'checkpoint.every_epochs': min(gaps), 'checkpoint.keep': total + 1},
    ),
  )


def along(
  job: Job, run: Path, preemption: 'Preemption'
) -> 'Iterator[tuple[int, Experiment, TrainState]]':
  """(epoch, experiment, state) at the epochs that are looked at."""
  from jaxnas import build
  from jaxnas.training.checkpoint import Checkpoints

  experiment = build.experiment(job.config)
  like = experiment.init_state()
  steps = experiment.training.steps_per_epoch
  with Checkpoints(run / 'checkpoints') as checkpoints:
    for epoch in looked_at(job.config.total_epochs):
      preemption.check()
      state = like
      if epoch:
        state, _ = checkpoints.restore(epoch * steps, like)
      yield epoch, experiment, state


def densities(job: Job, run: Path, preemption: 'Preemption') -> dict[str, Any]:
  """Spearman of the densities at each epoch with the last, by tensor set.

  Gradients are taken once for all sets.
  """
  from jaxnas import density, density_config
  from jaxnas.density import tensors

  config = job.config
  epochs, alphas = [], {}
  for epoch, experiment, state in along(job, run, preemption):
    epochs.append(epoch)
    subject = density_config.subject(experiment, state)
    net, params, archs_AxE, *_ = subject
    names = {
      name: tensors.select(net, params, archs_AxE, name)
      for name in TENSORS
      if name in net.tensor_sets
    }
    every = ','.join(sorted({*itertools.chain(*names.values())}))
    features = density.gather(
      subject,
      density_config.measure(
        changed(config, {'density.tensors': every}), net, params, archs_AxE
      ),
      memory_gb=config.density.memory_gb,
      poll=preemption.check,
    )
    for name, of_set in names.items():
      estimated = density_config.estimate(
        changed(config, {'density.tensors': name}),
        subject,
        features={key: features[key] for key in of_set},
      )
      alphas.setdefault(name, []).append(estimated.alpha_A)
  return {
    'epochs': epochs,
    'spearman': {
      name: [
        correlation.spearman(alpha_A, of_epoch[-1]) for alpha_A in of_epoch
      ]
      for name, of_epoch in alphas.items()
    },
  }


def distances(job: Job, run: Path, preemption: 'Preemption') -> dict[str, Any]:
  """Mean gradient distance in each weight tensor at each epoch."""
  from jaxnas import density_config, density_log

  epochs, panels, names = [], {'training': [], 'validation': []}, ()
  for epoch, experiment, state in along(job, run, preemption):
    epochs.append(epoch)
    names = density_log.weights(experiment, state.params)
    subject = density_config.subject(experiment, state)
    row = density_log.distances(experiment, state, subject, preemption.check)
    for panel, rows in panels.items():
      rows.append(
        [
          # Gradients of a tensor may vanish, and have no direction then.
          round(float(value), 5) if value == value else None
          for value in row[f'{panel}_distance_LxT']
        ]
      )
  return {'epochs': epochs, 'tensors': [*names], **panels}


def searched(searcher: str) -> Part:
  """The best architecture that a search under the limit finds."""

  def search(job: Job, run: Path, preemption: 'Preemption') -> dict[str, Any]:
    from jaxnas import search, search_flags

    folder = run / searcher
    if not (folder / search.BEST).exists():
      begun = ['--resume'] if (folder / search_flags.WHAT).exists() else []
      command = ['--run', str(run), '--workdir', str(folder)]
      command += ['--searcher', searcher, '--max_macs', MAX_MACS, *SEARCH]
      search.main([*(command[2:4] if begun else command), *begun])
    best = json.loads((folder / search.BEST).read_text('utf-8'))
    return {name: best[name] for name in ('arch', 'accuracy', 'macs', 'params')}

  return search


def retrained(searcher: str) -> Part:
  """What that architecture reaches alone."""

  def retrain(job: Job, run: Path, preemption: 'Preemption') -> dict[str, Any]:
    from jaxnas import retrain, search

    best = json.loads((run / searcher / search.BEST).read_text('utf-8'))
    folder = run / f'retrain_{searcher}'
    if not (folder / retrain.RESULT).exists():
      command = ['--run', str(run), '--workdir', str(folder)]
      command += ['--arch', best['arch']]
      begun = ['--resume'] if (folder / retrain.WHICH).exists() else []
      retrain.main([*command, *begun])
    result = json.loads((folder / retrain.RESULT).read_text('utf-8'))
    return {name: result[name] for name in ('arch', 'accuracy', 'seeds')}

  return retrain


PARTS: dict[str, Part] = {
  'densities': densities,
  'distances': distances,
  **{name: searched(name) for name in ('evolution', 'shifting')},
  **{f'retrain_{name}': retrained(name) for name in ('evolution', 'shifting')},
}
