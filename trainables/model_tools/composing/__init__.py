"""Builds a BLIP of a pretrained image encoder and a pretrained text encoder."""
