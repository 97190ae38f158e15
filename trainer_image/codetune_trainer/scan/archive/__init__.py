"""Archive sources: downloads over HTTP, tar and zip within limits, packs that files are read from.

No entry is ever unpacked under its own name.
"""
