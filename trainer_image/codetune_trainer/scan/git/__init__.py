"""git sources: mirrors that fetch as little as can be, submodules, LFS, credentials; files read out of git's objects.

No work tree is ever made, and nothing that a repository holds is run. What LFS downloads, `archive` asks for.
"""
