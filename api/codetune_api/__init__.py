"""The Codetune API as types: the resources that people apply, and the contracts between Codetune's own parts.

Purely data: no I/O, no clock, no client. Every other package imports this one; it imports pydantic only.
"""
