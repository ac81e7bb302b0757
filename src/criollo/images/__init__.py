"""References, pull, list, load, save, remove: the life of an image."""
