from .exporter import Check as Check
from .exporter import ExportError as ExportError
from .exporter import ExportReport as ExportReport
from .exporter import check_target as check_target
from .exporter import export as export
from .formats import FORMATS as FORMATS
