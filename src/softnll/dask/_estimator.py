"""SoftmaxClassifier on Dask arrays and dataframes: the local estimator, with an objective whose rows are partitions."""

from __future__ import annotations

from typing import Any, NoReturn, Self

import numpy as np
from dask import delayed
from sklearn.utils.validation import check_is_fitted

from softnll._classifier import estimator as local
from softnll._classifier.callbacks import supports_callbacks
from softnll._classifier.options import check_options
from softnll.dask._objective import examined, prepared
from softnll.dask._partitions import align, as_array, is_dask, is_frame
from softnll.dask._scheduler import Scheduler
from softnll.dask._tasks import predicted, right


class SoftmaxClassifier(local.SoftmaxClassifier):
    """Linear classifier of Dask arrays and dataframes: :class:`softnll.SoftmaxClassifier` on tables beyond memory.

    ``minimise  Σ_n loss_n / D  +  ‖W‖² / (2·C·D)``, with the parameters, attributes and optimum of the local estimator.
    Each evaluation is one task a partition, where the partition lies, and their sums, added in the order of the
    partitions: the result has the same bits for any number of workers and threads, and after the loss of a worker.

    It runs on the workers of a ``distributed.Client`` if there is one, else on Dask's scheduler in this process. Rows
    stay in the workers' memory if they take less than 0.3 of it; otherwise each pass reads them anew from their source,
    and a worker needs memory for the partitions that it computes at a time.

    Raises
    ------
    TypeError, ValueError
        As the local estimator, with the number of the partition; for partitions of other widths or types than the
        first; for lengths that do not match.
    ConnectionError
        Where a partition's computation ended several workers, the cluster has had no worker for a minute, or the Client
        is closed.

    Examples
    --------
    >>> import dask.array as da
    >>> from sklearn.datasets import load_digits
    >>> X, y = load_digits(return_X_y=True)
    >>> X, y = da.from_array(X / 16, chunks=(300, -1)), da.from_array(y, chunks=300)
    >>> model = SoftmaxClassifier(C=10).fit(X[:900], y[:900])
    >>> round(model.score(X[900:], y[900:]), 2)
    0.93
    >>> model.predict_proba(X[900:]).shape
    (897, 10)

    Notes
    -----
    The bits are those of one kind of CPU and one partitioning: another one adds other numbers first. `predict` and the
    like return Dask arrays for Dask inputs, which are computed when they are asked for, and NumPy arrays for those in
    memory. There is no `partial_fit`. docs/parallel.md says how to run it on a laptop and on a cluster.
    """

    @supports_callbacks
    def fit(
        self,
        X: Any,
        y: Any,
        sample_weight: Any = None,
        callback: local.Callback | None = None,
        check: bool | None = None,
    ) -> Self:
        """Fit to all of the data, with SciPy's L-BFGS in this process.

        Parameters
        ----------
        X
            ``(N, H)`` features, a Dask array or dataframe of numbers; the lengths of its partitions may be unknown.
        y
            ``(N,)`` labels, or ``(N, K)`` distributions: Dask arrays, series or dataframes with the partitions of X;
            or, if their lengths are known, arrays.
        sample_weight
            ``(N,)`` weights s ≥ 0, like y.
        callback, check
            As in the local estimator.

        Returns
        -------
        SoftmaxClassifier
            Itself.
        """
        check_options(self.get_params(deep=False))
        previous = getattr(self, "classes_", None)
        scheduler = Scheduler.current()
        given = align(X, y, sample_weight)
        options = {"label_smoothing": float(self.label_smoothing)}
        table = examined(scheduler, given.partitions, options, check)
        self.n_features_in_ = table.width
        if given.names is not None:
            self.feature_names_in_ = np.array(given.names, object)
        elif hasattr(self, "feature_names_in_"):
            del self.feature_names_in_
        problem, variables = prepared(
            *(scheduler, table, self.C, self.class_weight, float(self.label_smoothing)),
            fit_intercept=bool(self.fit_intercept),
        )
        data = {"X": X, "y": y, "sample_weight": sample_weight}
        return self._optimise(problem, variables, table.classes, problem.dtype, previous, data, callback)

    @property
    def partial_fit(self) -> NoReturn:
        """There is none: `fit` reads a table partition by partition."""
        raise AttributeError("softnll.dask.SoftmaxClassifier has no partial_fit; softnll.SoftmaxClassifier has")

    def decision_function(self, X: Any) -> Any:
        """Return the scores ``X Wᵀ + b``, ``(N, K)``; for two classes the second's minus the first's, ``(N,)``."""
        return self._by_partition("decision_function", X, (len(self.classes_),) if len(self.classes_) > 2 else ())

    def predict(self, X: Any) -> Any:
        """Return the class of the highest score of each row, ``(N,)``; of equal scores the first."""
        return self._by_partition("predict", X, (), self.classes_.dtype)

    def predict_proba(self, X: Any) -> Any:
        """Return the classes' probabilities, ``(N, K)``."""
        return self._by_partition("predict_proba", X, (len(self.classes_),))

    def predict_log_proba(self, X: Any) -> Any:
        """Return the logarithms of the probabilities in nats, ``(N, K)``."""
        return self._by_partition("predict_log_proba", X, (len(self.classes_),))

    def score(self, X: Any, y: Any, sample_weight: Any = None) -> float:
        """Return the share of rows, by weight, whose predicted class is that of y; it is computed at once."""
        check_is_fitted(self)
        if not is_dask(X):
            return float(self.to_local().score(X, y, sample_weight))
        table = align(X, y, sample_weight)
        task, model = delayed(right, pure=False), delayed(self._without_names(), traverse=False)
        counts = Scheduler.current().compute(delayed(list)([task(each, model) for each in table.partitions]))
        total = sum(each[1] for each in counts)
        if not total > 0:
            raise ValueError("X holds no rows of a weight above 0: there is no score")
        return float(sum(each[0] for each in counts) / total)

    def to_local(self) -> local.SoftmaxClassifier:
        """Return the fitted model as a :class:`softnll.SoftmaxClassifier`, of arrays in memory."""
        check_is_fitted(self)
        model = local.SoftmaxClassifier(**self.get_params(deep=False))
        fitted = {name: value for name, value in vars(self).items() if name not in self.get_params(deep=False)}
        model.__dict__.update(fitted)
        return model

    def _without_names(self) -> local.SoftmaxClassifier:
        """Return the local model without names of features, which arrays do not have."""
        model = self.to_local()
        model.__dict__.pop("feature_names_in_", None)
        return model

    def _by_partition(self, method: str, X: Any, columns: tuple[int, ...], dtype: Any = None) -> Any:
        """Return what a method of the local model returns, of each partition, as a Dask array."""
        check_is_fitted(self)
        if not is_dask(X):
            return getattr(self.to_local(), method)(X)
        names = getattr(self, "feature_names_in_", None)
        if is_frame(X) and names is not None and [*X.columns] != [*names]:
            raise ValueError(f"X has the columns {[*X.columns][:6]}, the fit had {[*names][:6]}")
        X = as_array(X)
        if X.ndim != 2 or X.shape[1] != self.n_features_in_:
            raise ValueError(f"X has shape {X.shape}; allowed: (N, {self.n_features_in_})")
        if dtype is None:
            single = X.dtype == self.coef_.dtype == np.float32
            dtype = np.dtype(np.float32 if single else np.float64)
        return X.map_blocks(
            predicted,
            delayed(self._without_names(), traverse=False),
            method,
            dtype=dtype,
            chunks=(X.chunks[0], columns) if columns else (X.chunks[0],),
            drop_axis=None if columns else 1,
            meta=np.empty((0, *columns), dtype),
        )
