"""What a running daemon tells Prometheus: which metrics there are, how maps are counted, who is served."""
