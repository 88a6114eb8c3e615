from .processor import Processor as Processor
from .reading import load as load
from .tower import Tower as Tower
from .tower import TowerConfig as TowerConfig
from .tower import join as join
from .tower import register as register
