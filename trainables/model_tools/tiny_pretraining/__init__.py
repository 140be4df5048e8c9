"""Data, network and optimizer for pretraining the small model that ships with the project."""
