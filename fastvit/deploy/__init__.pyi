from . import engines as engines
from . import exporters as exporters
from . import sensitivity as sensitivity
