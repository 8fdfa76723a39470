"""What a cluster is told before an engine runs there; made from the models, so that nothing is said twice."""
