"""An experiment as data: its sections, and the files that say it."""

from jaxnas.config.experiment import ALTERNATIVES as ALTERNATIVES
from jaxnas.config.experiment import NOT_THE_EXPERIMENT as NOT_THE_EXPERIMENT
from jaxnas.config.experiment import Config as Config
from jaxnas.config.files import differences as differences
from jaxnas.config.files import digest as digest
from jaxnas.config.files import find as find
from jaxnas.config.files import flatten as flatten
from jaxnas.config.files import from_json as from_json
from jaxnas.config.files import load as load
from jaxnas.config.files import of_experiment as of_experiment
from jaxnas.config.files import to_json as to_json
from jaxnas.config.method import Debias as Debias
from jaxnas.config.method import Density as Density
from jaxnas.config.method import Sampler as Sampler
from jaxnas.config.sections import Checkpoint as Checkpoint
from jaxnas.config.sections import Data as Data
from jaxnas.config.sections import Logging as Logging
from jaxnas.config.sections import Mesh as Mesh
from jaxnas.config.sections import Optimizer as Optimizer
from jaxnas.config.sections import Ranking as Ranking
from jaxnas.config.sections import Retrain as Retrain
from jaxnas.config.sections import Supernet as Supernet
