"""Image names → commands of this machine: there are no container images here, only this Python installation."""

from codetune_local.images.catalog import Image, find_image, list_known_images

__all__ = ["Image", "find_image", "list_known_images"]
