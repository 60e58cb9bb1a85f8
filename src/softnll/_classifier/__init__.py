"""SoftmaxClassifier: the estimator, its objective and optimisers, its file, training and evaluation on data sets."""
