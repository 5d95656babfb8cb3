"""Rules of debiasing: from densities to the factor of each architecture.

A new one is a file and a line in `jaxnas.config.registry`: a function that
names what it needs of `temperature`, `effective_fraction` and `scale`, and
returns a `Rule`.
"""

from jaxnas.samplers.rules.base import Evidence as Evidence
from jaxnas.samplers.rules.base import Factor as Factor
from jaxnas.samplers.rules.base import Rule as Rule
from jaxnas.samplers.rules.base import effective_number as effective_number
from jaxnas.samplers.rules.eq8 import eq8 as eq8
from jaxnas.samplers.rules.eq8 import solve_temperature as solve_temperature
from jaxnas.samplers.rules.self_consistent import (
  self_consistent as self_consistent,
)
