"""The classifier on tables that outgrow one machine's memory: Dask arrays and dataframes, in this process or a cluster.

docs/parallel.md says how to run it.
"""

from __future__ import annotations

try:
    import dask as _dask  # noqa: F401 - for the message about what to install
    import distributed as _distributed  # noqa: F401 - likewise
except ImportError as error:
    raise ImportError("softnll.dask needs Dask: pip install 'softnll[dask]'") from error

from softnll.dask._estimator import SoftmaxClassifier

__all__ = ["SoftmaxClassifier"]
