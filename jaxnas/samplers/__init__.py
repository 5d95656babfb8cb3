"""Which architectures a training step uses.

A sampler is pure, jit-able functions over a pytree of state. A new one is a
short file and a line in `PROPOSALS`: a function (space, *, ...) -> Sampler,
which is given those of `paths`, `steps_per_epoch`, `epochs`, `warmup_steps`,
`steps`, `clip_norm` and the options of the config's sampler section that its
signature names.

Samplers wrap each other: `debiased` and `among_candidates` any proposal,
`mixture` what they return.
"""

from jaxnas.samplers.base import Feedback as Feedback
from jaxnas.samplers.base import Measurements as Measurements
from jaxnas.samplers.base import Sampler as Sampler
from jaxnas.samplers.base import counter as counter
from jaxnas.samplers.base import paths as paths
from jaxnas.samplers.boltzmann import boltzmann as boltzmann
from jaxnas.samplers.candidates import CandidatesState as CandidatesState
from jaxnas.samplers.candidates import among_candidates as among_candidates
from jaxnas.samplers.candidates import clustered as clustered
from jaxnas.samplers.candidates import listed as listed
from jaxnas.samplers.debiased import DebiasedState as DebiasedState
from jaxnas.samplers.debiased import debiased as debiased
from jaxnas.samplers.debiased import describe as describe
from jaxnas.samplers.debiased import effective_number as effective_number
from jaxnas.samplers.debiased import solve_temperature as solve_temperature
from jaxnas.samplers.debiased import with_density as with_density
from jaxnas.samplers.fair import fair as fair
from jaxnas.samplers.fixed import fixed as fixed
from jaxnas.samplers.importance import importance as importance
from jaxnas.samplers.mixture import MixtureState as MixtureState
from jaxnas.samplers.mixture import mixture as mixture
from jaxnas.samplers.mixture import of_archs as of_archs
from jaxnas.samplers.mixture import proposal as mixture_proposal
from jaxnas.samplers.novelty import novelty as novelty
from jaxnas.samplers.tree import tree as tree
from jaxnas.samplers.uniform import uniform as uniform

PROPOSALS = {
  'uniform': uniform,
  'fair': fair,
  'boltzmann': boltzmann,
  'importance': importance,
  'novelty': novelty,
  'tree': tree,
  # Its architectures; `mixture` wraps what debiases them.
  'mixture': mixture_proposal,
}
