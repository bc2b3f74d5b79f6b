"""What an encoder learned, measured: frozen features, probes, geographic cross-validation, intervals.

``blocks`` and ``crossfit`` decide who learns from whom, ``probes`` and ``neighbours`` read features out, ``targets``
says what is asked, ``gather`` reads the store, ``scoring`` brings them together; docs/evaluation.md has the protocol.
"""

from mmearth_train.evaluate.results import Evaluation, EvaluationError, Row, load_evaluation, table
from mmearth_train.evaluate.run import EvaluateConfig, evaluate

__all__ = ["EvaluateConfig", "Evaluation", "EvaluationError", "Row", "evaluate", "load_evaluation", "table"]
