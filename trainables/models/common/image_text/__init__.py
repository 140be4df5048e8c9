"""Networks, images, prompts and processors of ``AutoModelForImageTextToText``."""
