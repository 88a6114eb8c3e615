from .engine import Engine as Engine
from .engine import EngineError as EngineError
from .select import available as available
