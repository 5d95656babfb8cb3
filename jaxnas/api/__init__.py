"""The package as Python calls it: what the commands do, without flags.

`jaxnas` itself offers all of it.
"""

from jaxnas.api.extending import register_function as register_function
from jaxnas.api.extending import register_optimizer as register_optimizer
from jaxnas.api.extending import register_rule as register_rule
from jaxnas.api.extending import register_sampler as register_sampler
from jaxnas.api.extending import register_space as register_space
from jaxnas.api.run import Run as Run
from jaxnas.api.run import open_run as open_run
from jaxnas.api.training import compare_samplers as compare_samplers
from jaxnas.api.training import load_config as load_config
from jaxnas.api.training import run_experiment as run_experiment
