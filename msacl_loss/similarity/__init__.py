"""The denominator of equation (5), dense and memory-linear."""
