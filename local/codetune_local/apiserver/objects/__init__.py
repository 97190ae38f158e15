"""What becomes of an object on its way into the store: schemas, defaults, validation, patches, deletion.

Pure, but that `schemas` reads what a library publishes.
"""
