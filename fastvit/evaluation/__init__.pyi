from .confusion import draw_confusion as draw_confusion
from .metrics import ClassMetrics as ClassMetrics
from .metrics import Metrics as Metrics
from .validation import evaluate as evaluate
