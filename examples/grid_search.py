"""A scikit-learn pipeline with a grid search over the classifier's penalty and label smoothing.

python examples/grid_search.py
"""

from __future__ import annotations

from sklearn.datasets import load_digits
from sklearn.decomposition import PCA
from sklearn.model_selection import GridSearchCV, train_test_split
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import StandardScaler

from softnll import SoftmaxClassifier


def main() -> tuple[dict, float, float]:
    """Return the best parameters by held-out log-likelihood, and that and the accuracy on test rows."""
    X, y = load_digits(return_X_y=True)
    X, X_test, y, y_test = train_test_split(X, y, test_size=0.3, random_state=0, stratify=y)
    classifier = SoftmaxClassifier(tol=1e-3)
    steps = [("scale", StandardScaler()), ("reduce", PCA(40, random_state=0)), ("classify", classifier)]
    grid = {"classify__C": [0.01, 0.1, 1.0], "classify__label_smoothing": [0.0, 0.05]}
    search = GridSearchCV(Pipeline(steps), grid, scoring="neg_log_loss", cv=3).fit(X, y)
    return search.best_params_, search.score(X_test, y_test), search.best_estimator_.score(X_test, y_test)


if __name__ == "__main__":
    best, log_likelihood, accuracy = main()
    print(f"{best}: loss {-log_likelihood:.3f}, accuracy {accuracy:.3f}")
