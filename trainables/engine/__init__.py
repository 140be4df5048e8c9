"""Engines, which take training steps by PyTorch alone or by DeepSpeed, on one device or several."""
