"""The artifact store in an S3-compatible bucket.

Pods work on a folder; `mirroring` brings what they need of the bucket into it and what they made out of it, and does
nothing where the folder is the store itself. Nothing else in Codetune speaks S3.
"""
