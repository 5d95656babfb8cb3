"""Which architectures a training step uses.

A sampler is a pair of pure, jit-able functions over a pytree of state. A new
one is a short file and a line in `PROPOSALS`.
"""

from jaxnas.samplers.base import Feedback as Feedback
from jaxnas.samplers.base import Sampler as Sampler
from jaxnas.samplers.base import counter as counter
from jaxnas.samplers.debiased import DebiasedState as DebiasedState
from jaxnas.samplers.debiased import debiased as debiased
from jaxnas.samplers.debiased import describe as describe
from jaxnas.samplers.debiased import effective_number as effective_number
from jaxnas.samplers.debiased import solve_temperature as solve_temperature
from jaxnas.samplers.debiased import with_density as with_density
from jaxnas.samplers.online import OnlineState as OnlineState
from jaxnas.samplers.online import online as online
from jaxnas.samplers.uniform import uniform as uniform

PROPOSALS = {'uniform': uniform}
