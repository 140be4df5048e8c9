"""The driver's side of Ray: the cluster, its hosts and gangs, and Ray Tune."""
