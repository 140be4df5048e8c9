"""The device's side of a study: processes that hold the model and train trials."""
