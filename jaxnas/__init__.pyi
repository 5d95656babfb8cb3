from jaxnas.api import Run as Run
from jaxnas.api import compare_samplers as compare_samplers
from jaxnas.api import load_config as load_config
from jaxnas.api import open_run as open_run
from jaxnas.api import register_function as register_function
from jaxnas.api import register_optimizer as register_optimizer
from jaxnas.api import register_rule as register_rule
from jaxnas.api import register_sampler as register_sampler
from jaxnas.api import register_space as register_space
from jaxnas.api import run_experiment as run_experiment
from jaxnas.config import Checkpoint as Checkpoint
from jaxnas.config import Config as Config
from jaxnas.config import Data as Data
from jaxnas.config import Debias as Debias
from jaxnas.config import Density as Density
from jaxnas.config import Logging as Logging
from jaxnas.config import Mesh as Mesh
from jaxnas.config import Optimizer as Optimizer
from jaxnas.config import Ranking as Ranking
from jaxnas.config import Retrain as Retrain
from jaxnas.config import Sampler as Sampler
from jaxnas.config import Supernet as Supernet
from jaxnas.spaces import Costs as Costs
from jaxnas.spaces import Space as Space
from jaxnas.supernets import Network as Network

__version__: str
