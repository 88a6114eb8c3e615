from .racing import Backend as Backend
from .racing import Race as Race
from .racing import race as race
from .report import Measured as Measured
from .report import Report as Report
from .report import measure as measure
