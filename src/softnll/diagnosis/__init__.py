"""What is wrong with scores and labels: findings with numbers, consequence and remedy; `softnll.diagnose`."""

from softnll.diagnosis.checks import diagnose
from softnll.diagnosis.finding import Evidence, Finding, Findings

__all__ = ["Evidence", "Finding", "Findings", "diagnose"]
