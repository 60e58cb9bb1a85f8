"""`softnll.diagnose`: what is wrong with scores and labels, as findings with numbers, consequence and remedy."""
