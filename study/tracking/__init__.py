"""Records a study while it runs, in MLflow and on the terminal."""
