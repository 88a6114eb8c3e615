from .predicting import predict as predict
from .result import Prediction as Prediction
from .result import recorded as recorded
