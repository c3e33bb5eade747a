"""The way into the image registry: who may push and pull what, and nothing passes whose digest is wrong.

A stock docker-registry keeps the bytes behind it, on a unix socket that only this process reaches.
"""

from umec_images.gateway.service import ImagesService, ImagesSettings

__all__ = ["ImagesService", "ImagesSettings"]
