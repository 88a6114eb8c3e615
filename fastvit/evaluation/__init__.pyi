from .confusion import write_confusion as write_confusion
from .metrics import ClassMetrics as ClassMetrics
from .metrics import Metrics as Metrics
from .report import write_report as write_report
from .validation import evaluate as evaluate
