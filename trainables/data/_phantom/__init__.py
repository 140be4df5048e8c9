"""How the phantom dataset is made: bits -> cases -> drawing and questions."""
