"""Looks at the studies that there are, and deletes them or what nothing needs of them."""
