"""Sources of every kind, each made ready to be listed and read; uploads and volumes, which are read where they are.

How git repositories and archives are fetched is in `git` and `archive`.
"""
