"""Node images: built from a recipe and Debian's packages, the same bytes each time, signed for Secure Boot.

Nothing is imported here: a node carries a few of these modules (`umec_images.update`), and none of those that build.
"""

__all__: list[str] = []
