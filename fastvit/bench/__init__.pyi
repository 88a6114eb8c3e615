from .race import Race as Race
from .race import Way as Way
from .race import race as race
from .stats import Quartiles as Quartiles
from .stats import quartiles as quartiles
from .stats import ratio as ratio
