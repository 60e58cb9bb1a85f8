"""SoftmaxClassifier: multinomial logistic regression with scikit-learn's interface."""

from __future__ import annotations

from collections.abc import Callable
from os import PathLike
from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

try:
    from sklearn.base import BaseEstimator, ClassifierMixin
except ImportError as error:
    raise ImportError("SoftmaxClassifier needs more: pip install 'softnll[app]'") from error
from scipy.sparse import issparse
from sklearn.exceptions import ConvergenceWarning
from sklearn.utils import check_random_state
from sklearn.utils.multiclass import _check_partial_fit_first_call
from sklearn.utils.validation import check_is_fitted, validate_data

from softnll._classifier.adam import Adam
from softnll._classifier.callbacks import CallbackSupportMixin, FitTasks, supports_callbacks
from softnll._classifier.file import MAX_BYTES, read_model, write_model
from softnll._classifier.inputs import checked_data, class_weights, encode
from softnll._classifier.lbfgs import Variables, minimise, warn_unless_converged
from softnll._classifier.options import check_options
from softnll._classifier.penalised_loss import Objective, Penalised, pack, unpack
from softnll._classifier.precondition import precondition
from softnll._classifier.recipe import FeatureRecipe
from softnll._classifier.scaling import moments, scaling
from softnll._numpy.functional import log_softmax, softmax

Callback = Callable[[int, float, NDArray[Any], NDArray[Any]], None]


class SoftmaxClassifier(CallbackSupportMixin, ClassifierMixin, BaseEstimator):  # type: ignore[misc]
    """Linear classifier that minimises the mean cross-entropy of ``softmax(X Wᵀ + b)``, with a penalty on W.

    ``minimise  Σ_n loss_n / D  +  ‖W‖² / (2·C·D)``, ``D = Σ_n s_n·w_{y_n}`` (soft y: ``Σ_n s_n``), losses as in
    :func:`softnll.cross_entropy`; the intercept b is not penalised. For three and more classes that is the objective of
    scikit-learn's ``LogisticRegression(C=C)``. For two classes it is still the symmetric softmax with a row of W each,
    so equal to ``LogisticRegression(C=2·C)``, whose only coefficients are the difference of the two rows.

    Parameters
    ----------
    C
        Inverse strength of the penalty, > 0; ``inf`` for none. In units of rows: twice the rows with the same C is half
        the penalty a row.
    class_weight
        dict of class: weight, ``"balanced"`` for ``Σs / (K · Σ_{n in c} s_n)``, or None for 1.
    label_smoothing
        ε in [0, 1]: spreads that share of each target over all classes.
    fit_intercept
        Whether there is a b.
    tol
        `fit` ends when no entry of the objective's gradient is larger, with many rows also not in the variables of the
        change described in the notes, with sparse or badly scaled features only there. Any other end is a
        ConvergenceWarning.
    max_iter
        The most L-BFGS iterations of `fit`; reaching it is a ConvergenceWarning. 0 keeps the start.
    warm_start
        Start `fit` at the previous coefficients.
    random_state
        Shuffles the minibatches of `partial_fit`; `fit` draws nothing.
    batch_size
        Rows of a minibatch of `partial_fit`.
    learning_rate
        Adam's step size in `partial_fit`.

    Attributes
    ----------
    coef_
        ``(K, H)`` W, also for K = 2; float32 if X was float32 (and no feature's mean was more than 1000 standard
        deviations from 0), else float64.
    intercept_
        ``(K,)`` b, in the same type; zeros without one.
    classes_
        ``(K,)`` the labels, sorted; of soft y ``0 … K−1``.
    n_iter_
        L-BFGS iterations of `fit`, or minibatches that `partial_fit` has seen.
    n_features_in_, feature_names_in_
        H, and the columns' names where X had some.

    Raises
    ------
    TypeError, ValueError
        From the methods: for options outside their range, non-finite X, y that is neither labels nor
        distributions, one class only, negative weights.

    Examples
    --------
    >>> from sklearn.datasets import load_digits
    >>> X, y = load_digits(return_X_y=True)
    >>> model = SoftmaxClassifier(C=10).fit(X[:898] / 16, y[:898])
    >>> round(model.score(X[898:] / 16, y[898:]), 3)
    0.937

    Notes
    -----
    X of float32 is multiplied in float32 and never copied to float64; losses, sums and L-BFGS's vectors are float64. An
    X that is not C-contiguous is copied once. With many rows L-BFGS works in variables in which the objective is about
    equally curved in all directions: the same optimum in a fraction of the iterations, at the price of a sample of the
    rows in memory (2000, or 16 MiB, or a 32nd of X; :func:`softnll._classifier.precondition.precondition` says when).

    Sparse features, and those whose standard deviations differ by more than 100 from their median or from 1, or whose
    means are more than 100 of them from 0, are shifted and scaled in the variables of L-BFGS
    (:class:`softnll._classifier.scaling.Scaling`); objective and penalty stay those of X as it is. The memory of sparse
    features is that of their non-zeros, W and the logits.

    Cox (1966), "Some procedures connected with the logistic qualitative response curve"; Bishop (2006), "Pattern
    recognition and machine learning", 4.3.4.
    """

    classes_: NDArray[Any]
    coef_: NDArray[np.floating[Any]]
    intercept_: NDArray[np.floating[Any]]
    n_iter_: int
    n_features_in_: int
    recipe_: FeatureRecipe | None = None  # how `softnll train` made the features, for `softnll predict`
    _weight_seen: float  # D of all rows seen so far
    _adam: Adam | None  # the state of partial_fit

    def __init__(
        self,
        C: float = 1.0,
        *,
        class_weight: dict[Any, float] | str | None = None,
        label_smoothing: float = 0.0,
        fit_intercept: bool = True,
        tol: float = 1e-4,
        max_iter: int = 100,
        warm_start: bool = False,
        random_state: Any = None,
        batch_size: int = 256,
        learning_rate: float = 0.01,
    ) -> None:
        self.C = C
        self.class_weight = class_weight
        self.label_smoothing = label_smoothing
        self.fit_intercept = fit_intercept
        self.tol = tol
        self.max_iter = max_iter
        self.warm_start = warm_start
        self.random_state = random_state
        self.batch_size = batch_size
        self.learning_rate = learning_rate

    def start_at(self, classes: NDArray[Any], coef: NDArray[Any], intercept: NDArray[Any]) -> None:
        """Set classes, coefficients and intercept, from which `fit` goes on with ``warm_start``."""
        self.classes_, self.coef_, self.intercept_ = classes, coef, intercept

    @supports_callbacks
    def fit(
        self,
        X: ArrayLike,
        y: ArrayLike,
        sample_weight: ArrayLike | None = None,
        callback: Callback | None = None,
        check: bool | None = None,
    ) -> Self:
        """Fit to all of the data, with SciPy's L-BFGS.

        Parameters
        ----------
        X
            ``(N, H)`` features, an array or a sparse matrix, which is converted to CSR.
        y
            ``(N,)`` labels, or ``(N, K)`` distributions over the classes 0 … K−1, K ≥ 2.
        sample_weight
            ``(N,)`` weights s ≥ 0: 2 counts a row twice, 0 leaves it out.
        callback
            Called after each iteration with its number, the mean loss without the penalty, coefficients ``(K, H)`` and
            intercept ``(K,)`` (float64). StopIteration from it ends the fit. KeyboardInterrupt, from it or
            Ctrl-C, ends it too and is raised again once the attributes hold the best point reached.
        check
            False takes soft y of any mass, which is then no distribution.

        Returns
        -------
        SoftmaxClassifier
            Itself.
        """
        check_options(self.get_params(deep=False))
        previous = getattr(self, "classes_", None)
        given: dict[str, Any] = {"X": X, "y": y, "sample_weight": sample_weight}
        X, classes, targets, weights = checked_data(self, **given, order="C", reset=True)
        if len(classes) < 2:
            raise ValueError(
                f"y holds one class, {classes[0]!r}; SoftmaxClassifier needs samples of at least 2 classes"
            )
        found = moments(X, weights, centre=self.fit_intercept)
        if not issparse(X) and X.dtype == np.float32 and found.needs_float64(centre=self.fit_intercept):
            X = X.astype(np.float64)
        problem = self._problem(X, targets, classes, weights, self.C, check=check)
        if issparse(X) or found.badly_scaled(centre=self.fit_intercept):
            variables: Variables | None = scaling(problem, found)
        else:
            variables = precondition(problem)
        return self._optimise(problem, variables, classes, X.dtype, previous, given, callback)

    def _optimise(
        self,
        problem: Objective,
        variables: Variables | None,
        classes: NDArray[Any],
        dtype: Any,
        previous: NDArray[Any] | None,
        given: dict[str, Any],
        callback: Callback | None,
    ) -> Self:
        """Minimise the objective and keep the result; ``previous`` has the classes of the fit before."""
        shape = problem.shape
        start = self._start(*shape)
        if self.warm_start and previous is not None:
            if not np.array_equal(previous, classes) or self.coef_.shape != shape:
                raise ValueError("warm_start needs the classes and the number of features of the previous fit")
            start = self._packed()
        tasks = FitTasks(self, **given, classes=classes, max_iter=self.max_iter)
        tasks.begin(*unpack(start, shape))

        def report(iteration: int, value: float, vector: NDArray[np.float64]) -> None:
            if callback is not None:
                callback(iteration, value - problem.penalty(vector), *unpack(vector.copy(), shape))
            tasks.next(*unpack(vector.copy(), shape))

        minimum = minimise(problem, start, tol=self.tol, max_iter=self.max_iter, callback=report, variables=variables)
        self.classes_ = classes
        self._keep(minimum.x, dtype)
        self.n_iter_ = minimum.iterations
        self._weight_seen, self._adam = problem.total, None
        tasks.end()
        if minimum.interrupted is not None:
            raise minimum.interrupted
        warn_unless_converged(minimum, ConvergenceWarning)
        return self

    def partial_fit(
        self,
        X: ArrayLike,
        y: ArrayLike,
        classes: ArrayLike | None = None,
        sample_weight: ArrayLike | None = None,
        check: bool | None = None,
    ) -> Self:
        """Update the coefficients by one pass of Adam over some rows in shuffled minibatches: for data beyond memory.

        Adam's state is kept from call to call. In the penalty ‖W‖²/(2·C·D), D is the weight of all rows seen so far, so
        that over a stream of new rows the objective approaches that of `fit`; repeated rows count again.

        Parameters
        ----------
        X, y, sample_weight, check
            As in `fit`. The first call's X decides whether coefficients are float32 or float64.
        classes
            The labels of all calls; needed by the first one unless y is soft.

        Returns
        -------
        SoftmaxClassifier
            Itself.
        """
        check_options(self.get_params(deep=False))
        if isinstance(self.class_weight, str):
            # scikit-learn raises the same: the type is allowed, in fit.
            message = "class_weight='balanced' needs all of the data; partial_fit takes None or a dict"
            raise ValueError(message)  # noqa: TRY004
        first = not hasattr(self, "coef_")
        X, found, labels, weights = checked_data(self, X, y, sample_weight, order=None, reset=first, codes=False)
        if classes is None and first and labels.ndim == 2:
            classes = found
        _check_partial_fit_first_call(self, classes)
        targets = encode(labels, self.classes_)
        if first:
            self._keep(self._start(len(self.classes_), X.shape[1]), X.dtype)
            self.n_iter_, self._weight_seen, self._adam = 0, 0.0, None
        vector = self._packed()
        if self._adam is None:
            self._adam = Adam(vector.size)
            self._random = check_random_state(self.random_state)
        class_weight = class_weights(self.class_weight, self.classes_, targets, None)
        counted = np.ones(X.shape[0]) if weights is None else weights
        if class_weight is not None and targets.ndim == 1:
            counted = counted * class_weight[targets]
        self._weight_seen += float(counted.sum())
        order = self._random.permutation(np.flatnonzero(counted))  # a batch of weight 0 has no mean
        for start in range(0, len(order), self.batch_size):
            rows = order[start : start + self.batch_size]
            batch = X[rows].astype(self.coef_.dtype, copy=False)
            part = None if weights is None else weights[rows]
            # The batch's mean estimates that of all rows; the penalty is that of all rows.
            strength = self.C * (self._weight_seen / counted[rows].sum())
            problem = self._problem(batch, targets[rows], self.classes_, part, strength, check=check)
            vector = vector - self._adam.step(problem(vector)[1], self.learning_rate)
            self.n_iter_ += 1
        self._keep(vector, self.coef_.dtype)
        return self

    def __sklearn_tags__(self) -> Any:
        """Tell scikit-learn that sparse X is taken."""
        tags = super().__sklearn_tags__()
        tags.input_tags.sparse = True
        return tags

    def decision_function(self, X: ArrayLike) -> NDArray[np.floating[Any]]:
        """Return the scores ``X Wᵀ + b``, ``(N, K)``; for two classes the second's minus the first's, ``(N,)``."""
        scores = self._scores(X)
        return scores[:, 1] - scores[:, 0] if scores.shape[1] == 2 else scores

    def predict(self, X: ArrayLike) -> NDArray[Any]:
        """Return the class of the highest score of each row, ``(N,)``; of equal scores the first."""
        scores = self._scores(X)
        return np.asarray(self.classes_[scores.argmax(axis=1)])

    def predict_proba(self, X: ArrayLike) -> NDArray[np.floating[Any]]:
        """Return the classes' probabilities, ``(N, K)``, in the type of X and coefficients."""
        return softmax(self._scores(X))

    def predict_log_proba(self, X: ArrayLike) -> NDArray[np.floating[Any]]:
        """Return the logarithms of the probabilities in nats, ``(N, K)``; finite also where those underflow to 0."""
        return log_softmax(self._scores(X))

    def save(self, path: str | PathLike[str]) -> None:
        """Write the fitted model to an .npz file without pickles, whole or not at all; equal models give equal bytes.

        Raises
        ------
        TypeError
            For classes or parameters that are neither numbers nor text, such as a RandomState.
        OSError
            Where the file cannot be written.
        """
        check_is_fitted(self)
        more: dict[str, Any] = {"weight_seen": self._weight_seen}
        if self.recipe_ is not None:
            more["recipe"] = self.recipe_.to_plain()
        write_model(path, self, more)

    @classmethod
    def load(cls, path: str | PathLike[str], *, max_bytes: int = MAX_BYTES) -> Self:
        """Return the model that `save` wrote.

        Nothing in the file is executed, and sizes are checked before memory is allocated.

        Raises
        ------
        ValueError
            For a file that is not such a model, damaged, of an unknown version, or larger than ``max_bytes``.
        OSError
            Where the file cannot be read.
        """
        parameters, attributes = read_model(path, max_bytes=max_bytes)
        try:
            check_options(cls().get_params() | parameters)
            model = cls(**parameters)
        except (TypeError, ValueError) as error:
            raise ValueError(f"{path}: not a model that can be read: {error}") from None
        model.__dict__.update(attributes, _adam=None)
        return model

    def _problem(
        self, X: Any, targets: Any, classes: Any, sample_weight: Any, C: float, *, check: bool | None
    ) -> Penalised:
        """Return the objective on these rows."""
        options = {
            "class_weight": class_weights(self.class_weight, classes, targets, sample_weight),
            "sample_weight": sample_weight,
            "label_smoothing": float(self.label_smoothing),
            "check": check,
        }
        return Penalised.check(X, targets, len(classes), C, self.fit_intercept, options)

    def _start(self, n_classes: int, width: int) -> NDArray[np.float64]:
        """Return the start of an unfitted model: all probabilities equal."""
        return np.zeros(n_classes * (width + bool(self.fit_intercept)))

    def _packed(self) -> NDArray[np.float64]:
        """Return the coefficients as one vector."""
        return pack(self.coef_, self.intercept_ if self.fit_intercept else None)

    def _keep(self, vector: NDArray[np.float64], dtype: Any) -> None:
        """Set the coefficients from one vector."""
        shape = (len(self.classes_), self.n_features_in_)
        weight, bias = unpack(vector, shape)
        self.coef_, self.intercept_ = weight.astype(dtype), bias.astype(dtype)

    def _scores(self, X: Any) -> NDArray[Any]:
        """Return the scores of all classes, ``(N, K)``."""
        check_is_fitted(self)
        X = validate_data(self, X, accept_sparse="csr", dtype=[np.float64, np.float32], reset=False)
        scores: NDArray[Any] = X @ self.coef_.T
        scores += self.intercept_
        return scores
